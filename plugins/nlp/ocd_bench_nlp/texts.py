"""Labelled texts from files of any known form or folders of classes, and the few-shot draw."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocd_bench.errors import UsageError
from ocd_bench.reading import (
    Notes,
    SheetOptions,
    counted,
    guarded,
    is_stray,
    left_out,
    list_folder,
    listed,
    part_of,
    read_lines,
    read_sheet,
)
from ocd_bench.reading.sheet import ENDINGS as SHEETS

TEXT_COLUMNS = ("text", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "class", "target", "category", "is_counterfactual")
ENDINGS = (*SHEETS, ".zip")
TEXT_FILES = (".txt", "")
"""Endings of files that hold one text each, in a folder of their class."""
UNLABELLED = frozenset({"unsup", "unlabeled", "unlabelled", "unsupervised"})


@dataclass(frozen=True)
class Texts:
    """Texts with class names, in file order."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int]) -> Texts:
        """The texts at ``indices``."""
        return Texts(tuple(self.texts[i] for i in indices), tuple(self.labels[i] for i in indices))


@dataclass(frozen=True)
class Columns:
    """How files are read.

    Args:
        text, label: column names in any case; empty: the usual one that is there.
        options: of the sheet.
    """

    text: str = ""
    label: str = ""
    options: SheetOptions = field(default_factory=lambda: SheetOptions("nlp", quoted_tabs=False))


@guarded
def read_file(path: Path, columns: Columns | None = None, notes: Notes | None = None) -> Texts:
    """A CSV, TSV, JSON lines, JSON or Parquet file with a header, a text column and a label column.

    Cells of a TSV are not quoted: a quotation mark in one is a quotation mark.

    Args:
        notes: where it is said which columns were taken.

    Raises:
        UsageError: naming file and line of what is wrong.
    """
    columns = columns or Columns()
    sheet = read_sheet(path, columns.options)
    header = [name.strip().lower() for name in sheet.header]
    text = _column(path, header, columns.text, TEXT_COLUMNS, "text")
    label = _column(path, header, columns.label, LABEL_COLUMNS, "label")
    if text == label:
        raise UsageError(
            f"{path}: column {header[text]!r} cannot be both text and label; set nlp.text_column, nlp.label_column"
        )
    taken = sheet.columns[text], sheet.columns[label]
    for line, *cells in zip(sheet.lines, *taken, strict=True):
        if not all(cells):
            raise UsageError(f"{path}: line {line} has an empty text or label; remove it")
    if notes is not None:
        others = [name for place, name in enumerate(header) if place not in (text, label)]
        rest = f", without {listed(others)}" if others else ""
        notes.add(f"columns {header[text]!r} and {header[label]!r}{rest}")
    return Texts(*map(tuple, taken))


def _column(path: Path, header: list[str], wanted: str, usual: Sequence[str], what: str) -> int:
    names = (wanted.strip().lower(),) if wanted else usual
    found = [name for name in names if name in header]
    cure = f"name it with --set nlp.{what}_column=NAME"
    if not found:
        raise UsageError(
            f"{path}: no {what} column ({', '.join(names)}) in its header: {listed(header, 12) or 'it is empty'}; {cure}"
        )
    if len(found) > 1:
        raise UsageError(f"{path}: {' and '.join(map(repr, found))} could both be the {what} column; {cure}")
    if header.count(found[0]) > 1:
        raise UsageError(f"{path}: column name {found[0]!r} appears twice; rename one")
    return header.index(found[0])


@guarded
def read_place(place: Path, columns: Columns | None = None, notes: Notes | None = None) -> tuple[Texts, Texts | None, Texts]:
    """Training, validation (or None) and test texts.

    A folder holds files for training and test, and perhaps for validation, told by their names (``train``, ``dev``,
    ``mine_test``); or folders of these names that hold a folder of text files for each class; or one file, or one folder for
    each class. One file, given as such or alone in its folder, or one set of class folders, is cut: a fifth of it, after a
    fixed shuffle, is the test.

    Raises:
        UsageError: if there are no such files, or one of them is damaged.
    """
    notes = notes if notes is not None else Notes()
    if place.is_file():
        return cut(read_file(place, columns, notes))
    listing = list_folder(place, ENDINGS)
    parts: dict[str, list[str]] = {}
    for name in listing.files:
        parts.setdefault(part_of(name) or "", []).append(name)
    whole = parts.pop("", [])
    doubled = next((names for names in parts.values() if len(names) > 1), None)
    if doubled and {"train", "test"} <= parts.keys():
        raise UsageError(f"{place}: {' and '.join(doubled)} could both be meant; take one away")
    if {"train", "test"} <= parts.keys():
        if rest := [*whole, *listing.left_out]:
            notes.add(f"{counted(len(rest), 'file')} left out: {listed(rest, 4)}")
        read = {part: read_file(place / names[0], columns, notes) for part, names in parts.items()}
        return read["train"], read.get("val"), read["test"]
    if not listing.files:
        return _class_folders(place, notes)
    if len(listing.files) > 1:
        raise UsageError(
            f"{place}: expected train.csv and test.csv (or {', '.join(SHEETS[1:])}), or one single file; found "
            f"{listed(listing.files, 5)}"
        )
    notes.left_out(listing.left_out)
    return cut(read_file(place / listing.files[0], columns, notes))


def _class_folders(place: Path, notes: Notes) -> tuple[Texts, Texts | None, Texts]:
    """Texts of ``CLASS/NAME.txt``, or of that below folders for training and test."""
    children = sorted(child for child in place.iterdir() if child.is_dir() and not is_stray(child.name))
    parts: dict[str, Path] = {}
    for child in children:
        part = part_of(child.name)
        if part and part in parts:
            raise UsageError(f"{place}: {parts[part].name} and {child.name} could both be meant; take one away")
        if part:
            parts[part] = child
    if {"train", "test"} <= parts.keys():
        read = {part: _classes(folder, notes) for part, folder in parts.items()}
        return read["train"], read.get("val"), read["test"]
    if len(children) >= 2 and not parts:
        return cut(_classes(place, notes))
    raise UsageError(
        f"{place}: expected train.csv and test.csv (or {', '.join(SHEETS[1:])}), one single file, or folders of classes with "
        f"a text file for each text; found {listed([child.name for child in children], 5) or 'none'}"
    )


def _classes(folder: Path, notes: Notes) -> Texts:
    """The texts of ``CLASS/NAME.txt`` below ``folder``, by class, then by name."""
    listing = list_folder(folder, TEXT_FILES, 2)
    texts, labels = [], []
    for name in listing.files:
        label, slash, _ = name.partition("/")
        if not slash:
            continue
        if label.lower() in UNLABELLED:
            notes.add(f"folder {label!r} left out: it is no class")
            continue
        text = "".join(read_lines(folder / name)).strip()
        if not text:
            raise UsageError(f"{folder / name}: an empty text; remove it")
        texts.append(text)
        labels.append(label)
    notes.add(left_out(name for name in listing.left_out if "/" in name))
    if not texts:
        raise UsageError(f"{folder}: no text files in folders of classes (CLASS/NAME.txt)")
    return Texts(tuple(texts), tuple(labels))


def cut(texts: Texts, share: float = 0.2) -> tuple[Texts, None, Texts]:
    """One set as training and test texts, ``share`` of them for the test; the cut is the same for every seed."""
    order = list(range(len(texts)))
    random.Random(0).shuffle(order)
    held = max(1, round(len(order) * share))
    return texts.take(sorted(order[held:])), None, texts.take(sorted(order[:held]))


def draw_shots(pool: Texts, classes: Sequence[str], shots: int, draw: random.Random, without: frozenset[str]) -> list[int]:
    """Indices of ``shots`` texts of every class, classes in turn, none of whose texts is in ``without``.

    Raises:
        UsageError: if a class has too few.
    """
    chosen: list[list[int]] = []
    for name in classes:
        seen: set[str] = set()
        own = []
        for index, (text, label) in enumerate(zip(pool.texts, pool.labels, strict=True)):
            if label == name and text not in without and text not in seen:
                seen.add(text)
                own.append(index)
        if len(own) < shots:
            raise UsageError(
                f"class {name!r} has {len(own)} texts to draw from (different ones, none of them held out), {shots} are asked "
                "for; lower nlp.shots"
            )
        chosen.append(draw.sample(own, shots))
    return [indices[turn] for turn in range(shots) for indices in chosen]
