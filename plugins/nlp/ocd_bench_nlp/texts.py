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


def read_file(path: Path) -> Texts:
    """A CSV or TSV file with a header, a text column and a label column.

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
            text = _column(path, header, TEXT_COLUMNS, "text")
            label = _column(path, header, LABEL_COLUMNS, "label")
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


def _column(path: Path, header: list[str], names: Sequence[str], what: str) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise UsageError(f"{path}: no {what} column ({', '.join(names)}) in its header: {', '.join(header) or 'it is empty'}")


def read_folder(folder: Path) -> tuple[Texts, Texts | None, Texts]:
    """Training, validation (or None) and test texts of a folder: ``train``, ``validation`` or ``dev``, and ``test``, each .csv
    or .tsv; a folder of one single file is cut, its last fifth (after a fixed shuffle) for the test.

    Raises:
        UsageError: if there are no such files.
    """
    files = {path.stem.lower(): path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".csv", ".tsv", ".tab")}
    if "train" in files and "test" in files:
        validation = next((files[name] for name in VALIDATION_FILES if name in files), None)
        return read_file(files["train"]), read_file(validation) if validation else None, read_file(files["test"])
    if len(files) != 1:
        raise UsageError(
            f"{folder}: expected train.csv and test.csv (or .tsv), or one single file; found {', '.join(files) or 'none'}"
        )
    return cut(read_file(next(iter(files.values()))))


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
            raise UsageError(f"class {name!r} has {len(own)} training texts, {shots} are asked for; lower nlp.shots")
        chosen.append(chance.sample(own, shots))
    return [indices[turn] for turn in range(shots) for indices in chosen]
