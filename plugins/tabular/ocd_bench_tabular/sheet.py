"""One CSV or TSV file as cells of text that know their line."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocd_bench import UsageError
from ocd_bench.config import nearest

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
"""Cells that hold no value, whatever their case."""


@dataclass(frozen=True)
class Cell:
    """A cell and where it stands: ``place`` is how messages begin."""

    sheet: Sheet
    line: int
    column: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.sheet.path}, line {self.line}, column {self.column!r}"

    @property
    def missing(self) -> bool:
        return self.text.lower() in MISSING

    def number(self) -> float:
        """The cell as a finite number. Raises ValueError for anything else, Python's own ``1_000`` included."""
        if "_" in self.text:
            raise ValueError(self.text)
        number = float(self.text.replace(",", ".") if self.sheet.decimal_comma else self.text)
        if not math.isfinite(number):
            raise ValueError(self.text)
        return number

    def is_number(self) -> bool:
        try:
            self.number()
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class Sheet:
    """The cells of one file: ``rows[i][j]`` under ``header[j]``; ``lines[i]`` is row i's first line in ``path``.

    ``decimal_comma``: cells are separated by semicolons, so that ``1,5`` is a number, as such spreadsheets write it.
    """

    path: Path
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]
    decimal_comma: bool = False

    def column(self, name: str) -> Iterator[Cell]:
        place = self.header.index(name)
        for line, row in zip(self.lines, self.rows, strict=True):
            yield Cell(self, line, name, row[place])

    def require(self, name: str, setting: str) -> None:
        """Refuse a column name that the header lacks, with the nearest one it has."""
        if name not in self.header:
            hint = nearest(name, self.header)
            raise UsageError(f"setting {setting}={name!r}: {self.path} has no such column{hint}; columns: {self.listing()}")

    def listing(self) -> str:
        """The first dozen column names, for messages."""
        more = len(self.header) - 12
        return ", ".join(self.header[:12]) + (f" and {more} more" if more > 0 else "")


def read_sheet(path: Path) -> Sheet:
    """The cells of a file (perhaps gzipped), stripped; rows without any content are left out.

    Raises:
        UsageError: if it is empty, is not text, has no usable header, or a row of another length than the header.
    """
    text = _read_text(path)
    delimiter = _delimiter(path, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    start = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                if rows and len(cells) != len(rows[0]):
                    raise UsageError(f"{path}, line {start}: {len(cells)} cells, but the header has {len(rows[0])}")
                rows.append(cells)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"{path}, line {start}: {error}") from error
    sheet = Sheet(path, rows[0], rows[1:], lines[1:], decimal_comma=delimiter == ";")
    _check_header(sheet, lines[0])
    return sheet


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from error
    if not text.strip(" \t\r\n,;|"):
        raise UsageError(f"{path}: the file is empty")
    return text


def _delimiter(path: Path, text: str) -> str:
    """A tab for TSV; else whichever of ``, ; tab |`` splits the first line into most cells."""
    if ".tsv" in path.name.lower():
        return "\t"
    head = next(line for line in io.StringIO(text) if line.strip())
    return max(",;\t|", key=lambda mark: len(next(csv.reader([head], delimiter=mark))))


def _check_header(sheet: Sheet, line: int) -> None:
    for name in sheet.header:
        if not name or sheet.header.count(name) > 1:
            problem = "appears twice" if name else "is empty"
            raise UsageError(f"{sheet.path}, line {line}: column name {name!r} {problem}")
    if all(Cell(sheet, line, name, name).is_number() for name in sheet.header):
        raise UsageError(f"{sheet.path}, line {line}: expected a header line of column names, found numbers only")
    if not sheet.rows:
        raise UsageError(f"{sheet.path}: has a header line and no rows")
