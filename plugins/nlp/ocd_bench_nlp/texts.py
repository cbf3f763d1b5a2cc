"""Labelled texts from CSV or TSV files, and the few-shot draw."""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ocd_bench.errors import UsageError

TEXT_COLUMNS = ("text", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "class", "target", "category", "is_counterfactual")
ENDINGS = (".csv", ".tsv", ".tab")
VALIDATION_FILES = ("validation", "dev", "val", "valid")


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


def read_file(path: Path, text_column: str = "", label_column: str = "") -> Texts:
    """A CSV or TSV file with a header, a text column and a label column.

    Args:
        text_column, label_column: their names in the header; empty: the first usual one that is there.

    Raises:
        UsageError: naming file and line of what is wrong.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    texts, labels = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Tab-separated files are not quoted: a quotation mark in one is a quotation mark.
            rows = csv.reader(file, delimiter=",", strict=True)
            if path.suffix.lower() in (".tsv", ".tab"):
                rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
            header = [name.strip().lower() for name in next(rows, [])]
            text = _column(path, header, text_column, TEXT_COLUMNS, "text")
            label = _column(path, header, label_column, LABEL_COLUMNS, "label")
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise UsageError(f"{path}: line {rows.line_num} has {len(row)} fields, the header {len(header)}")
                if not row[text].strip() or not row[label].strip():
                    raise UsageError(f"{path}: line {rows.line_num} has an empty text or label; remove it")
                texts.append(row[text].strip())
                labels.append(row[label].strip())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a UTF-8 CSV or TSV file ({error})") from error
    if not texts:
        raise UsageError(f"{path}: holds no rows below its header")
    return Texts(tuple(texts), tuple(labels))


def _column(path: Path, header: list[str], wanted: str, usual: Sequence[str], what: str) -> int:
    names = (wanted.strip().lower(),) if wanted else usual
    for name in names:
        if name in header:
            return header.index(name)
    raise UsageError(
        f"{path}: no {what} column ({', '.join(names)}) in its header: {', '.join(header) or 'it is empty'}; "
        f"name it with --set nlp.{what}_column=NAME"
    )


def read_place(place: Path, text_column: str = "", label_column: str = "") -> tuple[Texts, Texts | None, Texts]:
    """Training, validation (or None) and test texts of a folder: ``train``, ``validation`` or ``dev``, and ``test``, each .csv
    or .tsv. One single file, given as such or alone in its folder, is cut: a fifth of it, after a fixed shuffle, is the test.

    Raises:
        UsageError: if there are no such files, or one of them is damaged.
    """

    def read(path: Path) -> Texts:
        return read_file(path, text_column, label_column)

    if place.is_file():
        return cut(read(place))
    folder = place
    files = {path.stem.lower(): path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS}
    if "train" in files and "test" in files:
        validation = next((files[name] for name in VALIDATION_FILES if name in files), None)
        return read(files["train"]), read(validation) if validation else None, read(files["test"])
    if len(files) != 1:
        raise UsageError(
            f"{folder}: expected train.csv and test.csv (or .tsv), or one single file; found {', '.join(files) or 'none'}"
        )
    return cut(read(next(iter(files.values()))))


def cut(texts: Texts, share: float = 0.2) -> tuple[Texts, None, Texts]:
    """One set as training and test texts, ``share`` of them for the test; the cut is the same for every seed."""
    order = list(range(len(texts)))
    random.Random(0).shuffle(order)
    held = max(1, round(len(order) * share))
    return texts.take(sorted(order[held:])), None, texts.take(sorted(order[:held]))


def draw_shots(pool: Texts, classes: Sequence[str], shots: int, chance: random.Random, without: frozenset[str]) -> list[int]:
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
        chosen.append(chance.sample(own, shots))
    return [indices[turn] for turn in range(shots) for indices in chosen]
