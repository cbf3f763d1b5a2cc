"""A table of texts: CSV, TSV, JSON lines, JSON or Parquet as cells with their line numbers. The caller interprets the cells."""

from __future__ import annotations

import csv
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

from ocd_bench.config import nearest
from ocd_bench.errors import Unavailable, UsageError
from ocd_bench.printable import quoted
from ocd_bench.reading.files import open_file, read_json
from ocd_bench.reading.guard import guarded, reading
from ocd_bench.reading.limits import COLUMNS, LINE_CHARACTERS, VARIABLE, check_size, size_limit
from ocd_bench.reading.names import split_name
from ocd_bench.reading.notes import listed
from ocd_bench.reading.text import check_encoding, read_lines
from ocd_bench.reading.unpack import Zip

ENDINGS = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet")
"""What :func:`read_sheet` takes, but for ``.json`` and ``.parquet`` in any compression."""
CELLS = 25_000_000
"""Most cells of a sheet, where the variable of :mod:`ocd_bench.reading.limits` is not set; each takes some 40 bytes."""
DELIMITERS = {"auto": "", ",": ",", ";": ";", "tab": "\t", "|": "|", "space": " "}
"""Values of a ``delimiter`` setting, and the character each stands for."""


@dataclass(frozen=True)
class Cell:
    """A cell and its place. Messages begin with ``place``."""

    sheet: Sheet
    line: int
    column: str
    text: str

    @property
    def place(self) -> str:
        """File, line and column."""
        return f"{self.sheet.path}, line {self.line}, column {self.column!r}"


@dataclass(frozen=True)
class Sheet:
    """The cells of one file: ``columns[j][i]`` under ``header[j]``; ``lines[i]`` is the first line of row i (or its number, in
    Parquet and JSON lists).

    ``extra``: every row has one cell more than the header; ``header`` then begins with an empty name (row names of R).
    """

    path: Path
    header: tuple[str, ...]
    columns: list[list[str]]
    lines: Sequence[int]
    delimiter: str = ""
    extra: bool = False
    _places: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {name: place for place, name in reversed(list(enumerate(self.header)))})

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def rows(self) -> list[list[str]]:
        """The cells row by row, built at each call."""
        return [list(row) for row in zip(*self.columns, strict=True)]

    def texts(self, name: str) -> list[str]:
        """A column's cells."""
        return self.columns[self._places[name]]

    def column(self, name: str) -> Iterator[Cell]:
        """A column's cells with their places."""
        for line, text in zip(self.lines, self.texts(name), strict=True):
            yield Cell(self, line, name, text)

    def require(self, name: str, setting: str) -> None:
        """Refuse a column name that the header lacks, with the nearest one it has.

        Raises:
            UsageError: naming the setting and the columns.
        """
        if name not in self._places:
            hint = nearest(name, self.header)
            raise UsageError(f"setting {setting}={name!r}: {self.path} has no such column{hint}; columns: {self.listing()}")

    def listing(self) -> str:
        """The first dozen column names, for messages."""
        return listed([name or "''" for name in self.header], 12)


@dataclass(frozen=True)
class SheetOptions:
    """How a sheet is read; every field but the first two is a setting of the task.

    Args:
        section: of the settings, for messages: ``tabular``.
        quoted_tabs: whether cells of a tab-separated file may be quoted.
        delimiter: a key of :data:`DELIMITERS`.
        encoding: ``auto`` (what a byte order mark says, else UTF-8), or one that Python knows.
        header: whether the first row names the columns; else they are ``column 1``, ``column 2``, ...

    Raises:
        UsageError: for a delimiter or an encoding that is not known.
    """

    section: str
    quoted_tabs: bool = True
    delimiter: str = "auto"
    encoding: str = "auto"
    header: bool = True

    def __post_init__(self) -> None:
        if self.delimiter not in DELIMITERS:
            raise UsageError(f"setting {self.section}.delimiter={self.delimiter!r}: expected {' '.join(DELIMITERS)}")
        check_encoding(f"{self.section}.encoding", self.encoding)


@guarded
def read_sheet(path: Path, options: SheetOptions) -> Sheet:
    """The cells of a file, stripped, by its ending; rows without any content are left out.

    Raises:
        UsageError: if it is empty, damaged, too large, or a row has another length than the header; the message names the line.
        Unavailable: for Parquet without pyarrow.
    """
    name = split_name(path.name)
    if name.packed == ".zip" and not name.ending:
        with Zip(path) as archive:
            name = split_name(archive.only())
    if name.ending == ".parquet":
        return _from_records(path, _parquet(path))
    if name.ending == ".json":
        return _from_records(path, _json(path))
    if name.ending in (".jsonl", ".ndjson"):
        return _from_records(path, _json_lines(path, options))
    return _from_text(path, options)


# -- text with delimiters -------------------------------------------------------------------------------------------------
def _from_text(path: Path, options: SheetOptions) -> Sheet:
    lines = read_lines(path, options.encoding, f"{options.section}.encoding")
    head = list(islice(lines, 100))
    skipped, named = _announced(head)
    delimiter = DELIMITERS[options.delimiter] or named or _delimiter(path, head[skipped:])
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" and not options.quoted_tabs else csv.QUOTE_MINIMAL
    csv.field_size_limit(LINE_CHARACTERS)
    texts: Iterable[str] = chain(head[skipped:], lines)
    if delimiter == " ":
        texts = map(_trimmed, texts)
    reader = csv.reader(texts, delimiter=delimiter, quoting=quoting, strict=True, skipinitialspace=True)
    columns: list[list[str]] = []
    numbers = array("q")
    most = _most_cells()
    first: list[str] = []
    extra = False
    known: dict[str, str] = {}
    while True:
        start = skipped + reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UsageError(f"{path}, line {start}: {error}; {options.section}.delimiter sets what separates cells") from error
        if row is None:
            break
        # Equal cells share one text, which keeps a large table small.
        row = [known.setdefault(text, text) for text in map(str.strip, row)]
        if len(known) > 100_000:
            known.clear()
        if not any(row):
            continue
        if not first:
            first = row
            if len(row) > COLUMNS:
                raise UsageError(f"{path}, line {start}: {len(row):,} columns, at most {COLUMNS:,} are read")
            if options.header:
                continue
        if not columns:
            extra = options.header and len(row) == len(first) + 1
            columns = [[] for _ in range(len(first) + extra)]
        if len(row) != len(columns):
            line, count = (numbers[0], len(columns)) if extra else (start, len(row))
            raise UsageError(
                f"{path}, line {line}: {count} cells, but the header has {len(first)}; separated by {delimiter!r} "
                f"({options.section}.delimiter)"
            )
        _check_cells(path, start, (len(numbers) + 1) * (len(columns) + 1), most)
        for column, text in zip(columns, row, strict=True):
            column.append(text)
        numbers.append(start)
    if not first:
        raise UsageError(f"{path}: the file is empty")
    if not columns:
        raise UsageError(f"{path}: has a header line and no rows")
    if not options.header:
        return Sheet(path, tuple(f"column {place}" for place in range(1, len(columns) + 1)), columns, numbers, delimiter)
    if extra and not any(columns[-1]):  # a delimiter at the end of each row, and none in the header
        return Sheet(path, (*first, ""), columns, numbers, delimiter)
    return Sheet(path, ("", *first) if extra else tuple(first), columns, numbers, delimiter, extra)


def _most_cells() -> int:
    return size_limit() // 40 if os.environ.get(VARIABLE) else CELLS


def _check_cells(path: Path, line: int, count: int, most: int) -> None:
    if count > most:
        raise UsageError(f"{path}, line {line}: more than {most:,} cells; take a part of the file, or set {VARIABLE}")


def _announced(head: list[str]) -> tuple[int, str]:
    """Lines to skip before the header, and the delimiter if one names it. Skipped are ``sep=;``, as of Excel, and comments
    (``# ...``) above a line of more cells."""
    skipped, named = 0, ""
    for line, below in pairwise(head):
        text = line.rstrip("\r\n")
        if text.lower().startswith("sep=") and len(text) == 5:
            named = text[4]
        elif not (text.startswith("#") and (below.startswith("#") or _cells(text) < _cells(below))):
            break
        skipped += 1
    return skipped, named


def _trimmed(line: str) -> str:
    """A line without leading and trailing blanks, which separate no cells."""
    return line.strip(" \t\r\n") + "\n"


def _cells(line: str) -> int:
    return max(line.count(mark) for mark in ",;\t|")


def _delimiter(path: Path, head: list[str]) -> str:
    """A tab for TSV; else whichever of ``, ; tab |`` splits the first rows into equally many cells, and into most. Blanks if
    none of these splits anything."""
    if split_name(path.name).ending in (".tsv", ".tab"):
        return "\t"

    def score(mark: str) -> tuple[bool, int]:
        try:
            lines = head[:-1] if len(head) > 2 else head
            rows = csv.reader(map(_trimmed, lines) if mark == " " else lines, delimiter=mark, skipinitialspace=True)
            counts = [len(row) for row in rows if any(row)]
        except csv.Error:
            return False, 0
        # R leaves out the name of the first column.
        even = len(counts) > 0 and (len(set(counts)) == 1 or set(counts[1:]) == {counts[0] + 1})
        return even and counts[0] > 1, counts[0] if counts else 0

    best = max(",;\t|", key=score)
    return " " if score(best)[1] <= 1 and score(" ")[0] else best


# -- records --------------------------------------------------------------------------------------------------------------
def _from_records(path: Path, records: Iterable[tuple[int, Mapping[str, Any]]]) -> Sheet:
    """A sheet whose header is every key, in the order of their first appearance; a key that a record lacks is an empty cell."""
    columns: dict[str, list[str]] = {}
    numbers = array("q")
    most = _most_cells()
    for number, record in records:
        texts = {key: _text(value) for key, value in record.items()}
        for key in texts:
            if key not in columns:
                columns[key] = [""] * len(numbers)
        if len(columns) > COLUMNS:
            raise UsageError(f"{path}, line {number}: more than {COLUMNS:,} columns")
        if not any(texts.values()):
            continue
        _check_cells(path, number, (len(numbers) + 1) * (len(columns) + 1), most)
        for key, column in columns.items():
            column.append(texts.get(key, ""))
        numbers.append(number)
    if not numbers:
        raise UsageError(f"{path}: the file is empty")
    return Sheet(path, tuple(columns), list(columns.values()), numbers)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.strip()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _json_lines(path: Path, options: SheetOptions) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(read_lines(path, options.encoding, f"{options.section}.encoding"), start=1):
        if not line.strip():
            continue
        with reading(f"{path}, line {number}"):
            # Numbers are kept as text, because large integers may be equal as floats.
            record = json.loads(line, parse_int=str, parse_float=str)
        if not isinstance(record, dict):
            raise UsageError(f"{path}, line {number}: expected one object a line, found {quoted(line.strip(), 40)}")
        yield number, record


def _json(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    records = read_json(path, numbers_as_text=True)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UsageError(f"{path}: expected a list of objects, one a row")
    yield from enumerate(records, start=1)


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise Unavailable(f"{path}: reading Parquet needs the package pyarrow: pip install pyarrow") from error
    with open_file(path) as file, reading(path):
        table = parquet.ParquetFile(file)
        check_size(path, sum(table.metadata.row_group(i).total_byte_size for i in range(table.metadata.num_row_groups)))
        _check_cells(path, 1, table.metadata.num_rows * (1 + table.metadata.num_columns), _most_cells())
        number = 0
        for batch in table.iter_batches(batch_size=4096):
            for record in batch.to_pylist():
                number += 1
                yield number, record
