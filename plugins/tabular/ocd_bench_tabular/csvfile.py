"""Anybody's CSV or TSV as a table: one file, or ``train.csv`` and ``test.csv``, with a header line.

A column is one of numbers when at least nine in ten of its non-empty cells are numbers; a cell of it that is not a number is
then a mistake in the file, and is named. Any other column is one of categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocd_bench import DataMissing, UsageError
from ocd_bench_tabular.settings import TabularSettings
from ocd_bench_tabular.sheet import Cell, Sheet, read_sheet
from ocd_bench_tabular.table import TEST, TRAIN, VAL, Column, Table

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
PARTS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
NUMERIC_SHARE = 0.9
CODES_AT_MOST = 10
"""Up to this many integers 0..K-1 or 1..K are taken for classes."""


def read_csv_folder(folder: Path, settings: TabularSettings) -> Table:
    """The table of a folder that holds one CSV/TSV, or ``train`` and ``test`` (and perhaps ``val``) ones.

    Raises:
        DataMissing: if there is none.
        UsageError: if it is not clear which file is meant, or one is damaged.
    """
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(SUFFIXES) and path.is_file())
    if not files:
        raise DataMissing(f"{folder}: no CSV or TSV file is there")
    named = [(path.name.lower().partition(".")[0], path) for path in files]
    parts = {name: path for name, path in sorted(named, key=lambda item: PARTS.get(item[0], TEST)) if name in PARTS}
    if "train" in parts and "test" in parts and len(parts) == sum(name in PARTS for name, _ in named):
        return read_csv_files(parts, settings)
    if len(files) > 1:
        raise UsageError(
            f"{folder}: {len(files)} files ({', '.join(path.name for path in files[:5])}); "
            "expected one, or train.csv and test.csv once each; tabular.csv names one"
        )
    return read_csv_files({"all": files[0]}, settings)


def read_csv_files(files: Mapping[str, Path], settings: TabularSettings) -> Table:
    """The table of the files, by part: ``{"all": path}``, or ``{"train": .., "test": .., "val": ..}``.

    Raises:
        UsageError: naming file, line, column and value where there is one to name.
    """
    sheets = {part: read_sheet(path) for part, path in files.items()}
    first, *others = sheets.values()
    for sheet in others:
        odd = sorted(set(sheet.header) ^ set(first.header))
        if odd:
            raise UsageError(f"{sheet.path}: columns differ from those of {first.path.name}: {odd[0]!r} is in one of them only")
    target = _target_name(first, settings)
    if settings.groups:
        first.require(settings.groups, "tabular.groups")
    for setting in ("drop", "categorical"):
        for name in getattr(settings, setting):
            first.require(name, f"tabular.{setting}")

    def cells(name: str) -> list[Cell]:
        return [cell for sheet in sheets.values() for cell in sheet.column(name)]

    features = [name for name in first.header if name not in (target, settings.groups, *settings.drop)]
    if not features:
        raise UsageError(f"{first.path}: no column is left beside the target {target!r}")
    values, classes, kind = _target(cells(target), settings.kind)
    columns = [_feature(name, cells(name), name in settings.categorical) for name in features]
    parts = None
    if "all" not in sheets:
        parts = np.repeat(np.array([PARTS[part] for part in sheets], np.int8), [len(sheet.rows) for sheet in sheets.values()])
    groups, note = None, f"{first.path.name}, {len(values)} rows, target {target} ({kind})"
    if settings.groups:
        names = [cell.text for cell in cells(settings.groups)]
        groups = np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)
        note += f", {len(set(names))} groups by {settings.groups}"
    return Table(columns, values, classes, parts, note, groups)


def _feature(name: str, cells: Sequence[Cell], categorical: bool) -> Column:
    if not categorical and _numeric(cells):
        return Column(name, _numbers(cells, "mend it, or name the column in tabular.categorical or tabular.drop"))
    texts = np.empty(len(cells), dtype=object)
    texts[:] = [None if cell.missing else cell.text for cell in cells]
    return Column(name, texts)


def _numeric(cells: Sequence[Cell]) -> bool:
    """Whether nine in ten of the non-empty cells are numbers."""
    filled = [cell for cell in cells if not cell.missing]
    return bool(filled) and sum(cell.is_number() for cell in filled) >= NUMERIC_SHARE * len(filled)


def _numbers(cells: Sequence[Cell], cure: str) -> NDArray:
    """float64 (N,), NaN where empty."""
    values = np.full(len(cells), np.nan)
    for place, cell in enumerate(cells):
        try:
            values[place] = np.nan if cell.missing else cell.number()
        except ValueError:
            raise UsageError(
                f"{cell.place}: {cell.text[:80]!r} is not a number, and nearly all of that column are; {cure}"
            ) from None
    return values


def _target_name(sheet: Sheet, settings: TabularSettings) -> str:
    if settings.target:
        sheet.require(settings.target, "tabular.target")
        return settings.target
    named = [name for name in sheet.header if name.lower() == "target"]
    if len(named) == 1:
        return named[0]
    raise UsageError(f"{sheet.path}: say which column to predict with --set tabular.target=COLUMN; columns: {sheet.listing()}")


def _target(cells: Sequence[Cell], kind: str) -> tuple[NDArray, tuple[str, ...], str]:
    """Values (float64) or class codes (int64), class names, and a word on what they are.

    With ``kind`` auto a column of text, of two distinct numbers, or of the integers 0..K-1 or 1..K (K at most 10) holds
    classes; any other column of numbers is regressed on.
    """
    numeric = _numeric(cells)
    for cell in cells:
        # "None" may well be a class among words; among numbers it is a gap.
        if cell.missing if numeric else cell.text in ("", "?"):
            raise UsageError(f"{cell.place}: the target is missing ({cell.text!r})")
    if kind == "regression" and not numeric:
        cell = next(cell for cell in cells if not cell.is_number())
        raise UsageError(f"{cell.place}: {cell.text[:80]!r} is not a number, and tabular.kind is regression")
    where = f"{cells[0].sheet.path}: the target {cells[0].column!r}"
    values: NDArray = _numbers(cells, "mend it") if numeric else np.array([cell.text for cell in cells])
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) < 2:
        raise UsageError(f"{where} has one value only, {cells[0].text[:80]!r}")
    inferred = ", inferred; tabular.kind sets it" if kind == "auto" else ""
    if kind == "regression" or (kind == "auto" and numeric and not _look_like_codes(distinct)):
        return values, (), f"regression{inferred}"
    if len(distinct) > len(values) // 2:
        raise UsageError(f"{where} has {len(distinct)} different values in {len(values)} rows: too many for classes")
    names = tuple(f"{name:.17g}" if numeric else str(name) for name in distinct)
    return codes.astype(np.int64), names, f"{len(names)} classes{inferred}"


def _look_like_codes(distinct: NDArray) -> bool:
    if len(distinct) == 2:
        return True
    steps = np.arange(len(distinct))
    return len(distinct) <= CODES_AT_MOST and (np.array_equal(distinct, steps) or np.array_equal(distinct, steps + 1))
