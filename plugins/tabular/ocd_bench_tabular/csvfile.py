"""Tables of users: CSV, TSV, JSON lines, JSON or Parquet, as one file or as training and test files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocd_bench import DataMissing, UsageError
from ocd_bench.reading import Notes, Sheet, SheetOptions, counted, guarded, list_folder, listed, part_of, read_sheet
from ocd_bench.reading.sheet import ENDINGS
from ocd_bench_tabular import numbers
from ocd_bench_tabular.columns import Kind, Texts, as_column, comma_evidence, gather, recognise, summary
from ocd_bench_tabular.settings import TabularSettings
from ocd_bench_tabular.table import TEST, TRAIN, VAL, Table
from ocd_bench_tabular.target import read_target, target_name

PARTS = {"train": TRAIN, "val": VAL, "test": TEST, None: None}
_NAMELESS = re.compile(r"(?:Unnamed: \d+)?")
NOWHERE = -1
"""The part of rows that ``tabular.split_column`` excludes."""


@guarded
def read_csv_folder(folder: Path, settings: TabularSettings) -> Table:
    """The table of a folder that holds one file, or one each for training and test (and perhaps validation).

    Raises:
        DataMissing: if there is none.
        UsageError: if it is not clear which file is meant, or one is damaged.
    """
    listing = list_folder(folder, ENDINGS)
    files = [folder / name for name in listing.files]
    if not files:
        left = f" (it has {listed(listing.left_out, 3)})" if listing.left_out else ""
        raise DataMissing(f"{folder}: no CSV or TSV file is there, nor any of {', '.join(ENDINGS)}{left}")
    notes = Notes()
    notes.left_out(listing.left_out)
    parts = {path: PARTS[part_of(path.name)] for path in files}
    found = sorted((part, path) for path, part in parts.items() if part is not None)
    if len(found) == len(files) == len({part for part, _ in found}) and {TRAIN, TEST} <= {part for part, _ in found}:
        return read_csv_files(dict(found), settings, notes)
    if len(files) > 1:
        raise UsageError(
            f"{folder}: {len(files)} files ({', '.join(path.name for path in files[:5])}); "
            "expected one, or train.csv and test.csv once each; tabular.csv names one"
        )
    return read_csv_files({None: files[0]}, settings, notes)


def read_csv_files(files: Mapping[int | None, Path], settings: TabularSettings, notes: Notes | None = None) -> Table:
    """The table of the files, by part (TRAIN, VAL, TEST), or of one file, ``{None: path}``.

    Args:
        notes: what is known of the files already.

    Raises:
        UsageError: naming file, line, column and value where there is one to name.
    """
    options = SheetOptions("tabular", True, settings.delimiter, settings.encoding, settings.header)
    remarks = Notes()
    sheets = [_named(read_sheet(path, options), settings, remarks) for path in files.values()]
    first = sheets[0]
    for sheet in sheets[1:]:
        odd = sorted(set(sheet.header) ^ set(first.header))
        if odd:
            raise UsageError(f"{sheet.path}: columns differ from those of {first.path.name}: {odd[0]!r} is in one of them only")
    target = target_name(first, settings)
    for setting in ("split_column", "groups"):
        if getattr(settings, setting):
            first.require(getattr(settings, setting), f"tabular.{setting}")
    for setting in ("drop", "categorical", "numeric"):
        for name in getattr(settings, setting):
            first.require(name, f"tabular.{setting}")
    away = {target, settings.split_column, settings.groups, *settings.drop}
    features = [name for name in first.header if name not in away]
    if not features:
        raise UsageError(f"{first.path}: no column is left beside the target {target!r}")
    texts = {name: gather(name, sheets, settings) for name in (*features, target)}
    parts = _parts(files, sheets, settings, remarks)
    recognised = _recognise_all([texts[name] for name in features], settings, sheets, texts[target])
    values, classes, what = read_target(texts[target], settings, recognised.comma_file)
    kinds = [recognised.kinds[name] for name in features]
    columns = [as_column(texts[name], kind) for name, kind in zip(features, kinds, strict=True)]
    note = Notes(f"{first.path.name}, {len(values)} rows, target {target} ({what})")
    most = settings.max_categories
    if any(kind.what == "categories" and len({*c.values}) > most for c, kind in zip(columns, kinds, strict=True)):
        remarks.add(f"the {most} most frequent values of a column told apart (tabular.max_categories)")
    for text in (*summary(columns, kinds), str(notes or ""), str(remarks), _counting(columns, kinds)):
        note.add(text)
    groups = None
    if settings.groups:
        names = [text for sheet in sheets for text in sheet.texts(settings.groups)]
        groups = np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)
        note.add(f"{counted(len(set(names)), 'group')} by {settings.groups}")
    keep = slice(None) if parts is None else parts != NOWHERE
    columns = [type(column)(column.name, column.values[keep]) for column in columns]
    parts, groups = (None if each is None else each[keep] for each in (parts, groups))
    return Table(columns, values[keep], classes, parts, str(note), groups)


class _Recognised:
    """Every column's kind. Columns whose decimal mark depends on another column are examined last."""

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}
        self.comma_file = False


def _recognise_all(features: Sequence[Texts], settings: TabularSettings, sheets: Sequence[Sheet], target: Texts) -> _Recognised:
    found = _Recognised()
    for column in features:
        found.kinds[column.name] = recognise(column, settings)
    aside = _quietly(lambda: recognise(target, settings))
    names = [column.name for column in features]
    known: dict[str, Kind | None] = {**found.kinds, target.name: aside}
    found.comma_file = comma_evidence(sheets, known.get, [*names, target.name])
    if found.comma_file:
        for column in features:
            form = found.kinds[column.name].format
            if form and form.marks == numbers.POINT:
                found.kinds[column.name] = recognise(column, settings, comma_file=True)
    return found


def _quietly(look: Callable[[], Kind]) -> Kind | None:
    """The kind, or None where it is refused: the target is judged by rules of its own, later."""
    try:
        return look()
    except UsageError:
        return None


def _named(sheet: Sheet, settings: TabularSettings, notes: Notes) -> Sheet:
    """The sheet without its index and without columns that have neither name nor content; other nameless ones get a name.

    Raises:
        UsageError: for a column name that appears twice, or numbers in place of a header.
    """
    header = list(sheet.header)
    away: set[int] = set()
    for place, name in enumerate(header):
        if not _NAMELESS.fullmatch(name):
            continue
        texts = sheet.columns[place]
        if not any(texts):
            away.add(place)
            notes.add("a column without name and content left out")
        elif settings.index == "auto" and place == 0 and (sheet.extra or _is_index(texts)):
            away.add(place)
            notes.add(f"first column without a name (row {'names' if sheet.extra else 'numbers'}) left out")
        elif not name:
            header[place] = f"column {place + 1}"
            notes.add(f"a column without a name is called {header[place]!r}")
    if sheet.extra and 0 in away and len(set(sheet.columns[0])) < len(sheet):
        raise UsageError(
            f"{sheet.path}, line {sheet.lines[0]}: one cell more than the header has, and the first ones are no row names: "
            "values appear twice; complete the header"
        )
    if settings.index not in ("auto", "none"):
        sheet.require(settings.index, "tabular.index")
        away.add(header.index(settings.index))
    kept = [place for place in range(len(header)) if place not in away]
    names = [header[place] for place in kept]
    if settings.header:
        _refuse_values_as_names(sheet, names)
    for name, count in Counter(names).items():
        if count > 1 and name not in settings.drop:
            places = [str(place + 1) for place in kept if header[place] == name]
            raise UsageError(f"{sheet.path}: column name {name!r} appears twice (columns {', '.join(places[:4])}); rename one")
    return Sheet(sheet.path, tuple(names), [sheet.columns[place] for place in kept], sheet.lines, sheet.delimiter)


def _is_index(texts: Sequence[str]) -> bool:
    """Whether these are row numbers: integers, each once."""
    return all(text.isdigit() for text in texts) and len(set(texts)) == len(texts)


def _refuse_values_as_names(sheet: Sheet, names: Sequence[str]) -> None:
    written = [name for name in names if (number := numbers.number_in(name)) and not number.body.lstrip("+-").isdigit()]
    if written or (names and all(numbers.number_in(name) for name in names)):
        shown = (written or names)[0]
        raise UsageError(
            f"{sheet.path}, line 1: expected a header line of column names, found numbers ({shown!r}); write one, or set "
            "tabular.header=false"
        )


def _parts(
    files: Mapping[int | None, Path], sheets: Sequence[Sheet], settings: TabularSettings, notes: Notes
) -> NDArray | None:
    """The part of every row, by file or by the values of ``tabular.split_column``; None if it is to be drawn."""
    if None not in files:
        if settings.split_column:
            raise UsageError(
                f"setting tabular.split_column={settings.split_column!r}: the data come as training and test files"
            )
        given = np.array([part for part in files if part is not None], np.int8)
        return np.repeat(given, [len(sheet) for sheet in sheets])
    if not settings.split_column:
        return None
    texts = [text for sheet in sheets for text in sheet.texts(settings.split_column)]
    wanted: dict[str, int] = {}
    for setting, part in (("train_values", TRAIN), ("val_values", VAL), ("test_values", TEST)):
        for value in getattr(settings, setting):
            if value not in texts:
                known = listed(sorted(set(texts)), 8)
                raise UsageError(
                    f"setting tabular.{setting}={value!r}: no row has it in {settings.split_column!r}; it has {known}"
                )
            if wanted.setdefault(value, part) != part:
                raise UsageError(f"setting tabular.{setting}={value!r}: named for two parts")
    parts = np.array([wanted.get(text, NOWHERE if settings.train_values else TRAIN) for text in texts], np.int8)
    notes.add(f"test rows: {settings.split_column} {', '.join(settings.test_values)}")
    if (parts == NOWHERE).any():
        notes.add(f"{counted(int((parts == NOWHERE).sum()), 'row')} of other values left out")
    return parts


def _counting(columns: Sequence[object], kinds: Sequence[Kind]) -> str:
    """A remark on columns that number the rows: a model could use such an id."""
    names = []
    for column, kind in zip(columns, kinds, strict=True):
        values = column.values  # type: ignore[attr-defined]
        if kind.what == "numbers" and len(values) > 9 and np.array_equal(values, values[0] + np.arange(len(values))):
            names.append(column.name)  # type: ignore[attr-defined]
    return f"{listed(names)} counts the rows (tabular.drop leaves it out)" if names else ""
