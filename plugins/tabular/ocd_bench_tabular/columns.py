"""The kind of a column of texts: numbers, dates, or categories. An ambiguous column is refused; nothing is guessed.

A column has numbers (or dates) if at least half of its non-empty cells have the form of one. Any other cell in it is then an
error that names the cell. Integers with leading zeros (``01``) are codes and are kept as texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ocd_bench import UsageError
from ocd_bench.reading import Sheet, counted, listed, quoted
from ocd_bench_tabular import dates, numbers
from ocd_bench_tabular.numbers import EXACT, Format, Number
from ocd_bench_tabular.settings import TabularSettings
from ocd_bench_tabular.table import Column

SHARE = 0.5
"""Minimum share of numbers (or dates) among the cells of a column of numbers (or dates)."""


@dataclass(frozen=True)
class Texts:
    """One column of one or several files, missing cells as None.

    Attributes:
        texts: the cells.
        raw: the cells as they stand, missing ones too.
        sheets: the files, in the order of the cells.
    """

    name: str
    texts: list[str | None]
    raw: list[str]
    sheets: Sequence[Sheet]

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, index: int) -> str:
        """File, line and column of a cell, for the beginning of messages."""
        for sheet, end in zip(self.sheets, accumulate(len(sheet) for sheet in self.sheets), strict=True):
            if index < end:
                return f"{sheet.path}, line {sheet.lines[index - end + len(sheet)]}, column {self.name!r}"
        raise IndexError(index)

    def refusal(self, text: str, problem: str, cure: str) -> UsageError:
        """The error about the first cell that holds ``text``."""
        return UsageError(f"{self.place(self.texts.index(text))}: {quoted(text)} {problem}; {cure}")


def gather(name: str, sheets: Sequence[Sheet], settings: TabularSettings) -> Texts:
    """The column ``name`` of all files, empty cells and those of ``tabular.missing`` as missing."""
    missing = {each.lower() for each in settings.missing} | {""}
    raw = [text for sheet in sheets for text in sheet.texts(name)]
    gaps = {text for text in set(raw) if text.lower() in missing}
    return Texts(name, [None if text in gaps else text for text in raw], raw, sheets)


@dataclass(frozen=True)
class Kind:
    """The kind of a column (``numbers``, ``dates`` or ``categories``), the value of each text, and the format."""

    what: str
    values: Mapping[str, float]
    format: Format | None = None


def recognise(column: Texts, settings: TabularSettings, comma_file: bool = False) -> Kind:
    """Determines the kind of a column.

    Args:
        comma_file: whether something else about the file says that its decimal mark is a comma.

    Raises:
        UsageError: naming file, line, column and value, and the settings that decide, if it is not certain.
    """
    counts = Counter(text for text in column.texts if text is not None)
    total = sum(counts.values())
    forced = column.name in settings.numeric
    if not total or column.name in settings.categorical:
        return Kind("categories", {})
    found = {text: number for text in counts if (number := numbers.number_in(text)) is not None}
    if not forced and _leading_zeros(counts):
        if len(counts) > settings.max_categories:
            text = next(text for text in counts if len(text) > 1 and text[0] == "0")
            raise column.refusal(
                text, f"has a leading zero, and the column {len(counts):,} different codes",
                "name it in tabular.numeric (a number), tabular.categorical or tabular.drop",
            )  # fmt: skip
        return Kind("categories", {})
    share = sum(counts[text] for text in found) / total
    odd = {text: what for text in counts if text not in found and (what := numbers.odd_number(text))}
    if forced or share + sum(counts[text] for text in odd) / total >= SHARE:
        return _as_numbers(column, counts, found, odd, settings, comma_file, forced)
    if settings.dates != "text" and sum(counts[text] for text in counts if dates.is_date(text)) / total >= SHARE:
        return _as_dates(column, counts, settings)
    _refuse_units(column, counts)
    return Kind("categories", {})


def _leading_zeros(counts: Mapping[str, int]) -> bool:
    """Whether these are codes of digits, at least one with a leading zero: ``01``, ``007``, ``02134``. A number with a sign or
    decimals among them makes measurements of all."""
    whole = [text for text in counts if text.isascii() and text.isdigit()]
    if len(whole) < SHARE * len(counts) or not any(len(text) > 1 and text[0] == "0" for text in whole):
        return False
    return not any(numbers.number_in(text) for text in counts if not text.isdigit())


def _as_numbers(
    column: Texts,
    counts: Counter[str],
    found: Mapping[str, Number],
    odd: Mapping[str, str],
    settings: TabularSettings,
    comma_file: bool,
    forced: bool,
) -> Kind:
    cure = "correct it, or name the column in tabular.categorical or tabular.drop"
    if odd:
        text = next(iter(odd))
        raise column.refusal(text, f"is {odd[text]}, which is not read", f"write it plainly, {cure}")
    try:
        if not found:
            raise numbers.Unclear(next(iter(counts)), "is not a number")
        form = numbers.find_format(found, settings.decimal, settings.thousands, comma_file)
    except numbers.Unclear as error:
        raise column.refusal(
            error.text, error.problem,
            "set tabular.decimal or tabular.thousands, or name the column in tabular.categorical or tabular.drop",
        ) from error  # fmt: skip
    values: dict[str, float] = {}
    rest = [text for text in counts if text not in found]
    if rest:
        share = sum(counts[text] for text in found) / sum(counts.values())
        most = "nearly all of that column are" if share >= 0.9 else f"{share:.0%} of that column are"
        raise column.refusal(rest[0], f"is not a number, and {most}", f"{cure}, or add it to tabular.missing")
    for text, number in found.items():
        try:
            values[text] = form.value(number)
        except ValueError:
            raise column.refusal(text, "is not a finite number, and nearly all of that column are", cure) from None
        if not forced and abs(values[text]) >= EXACT and _whole(number.body):
            raise column.refusal(
                text, "is an integer that a float64 may not hold exactly",
                "name the column in tabular.categorical (an id or a code), tabular.numeric (rounded) or tabular.drop",
            )  # fmt: skip
    return Kind("numbers", values, form)


def _whole(body: str) -> bool:
    return body.lstrip("+-").isdigit()


def _as_dates(column: Texts, counts: Mapping[str, int], settings: TabularSettings) -> Kind:
    try:
        return Kind("dates", dates.read_dates(counts, settings.dates))
    except dates.Unclear as error:
        raise column.refusal(
            error.text, error.problem, "tabular.dates says the order (dmy, mdy, ymd), or takes dates for categories (text)"
        ) from error


def _refuse_units(column: Texts, counts: Mapping[str, int]) -> None:
    """Refuse numbers with units (``12 kg``, ``1.2M``, ``300k``): as categories they would lose their order."""
    units = Counter(numbers.unit_of(text) for text in counts)
    count = len(counts) - units.pop("", 0)
    if count >= 3 and count >= 0.9 * len(counts) and len(units) <= 3:
        text = next(text for text in counts if numbers.unit_of(text))
        raise column.refusal(
            text, f"is a number with the unit {numbers.unit_of(text)!r}",
            "write it without the unit, or name the column in tabular.categorical or tabular.drop",
        )  # fmt: skip


def as_column(column: Texts, kind: Kind) -> Column:
    """The feature: float64 with NaN for missing cells, or object of texts with None."""
    if kind.what != "categories":
        values = dict(kind.values)
        return Column(column.name, np.array([np.nan if text is None else values[text] for text in column.texts], np.float64))
    texts = np.empty(len(column), dtype=object)
    texts[:] = column.texts
    if {text.lower() for text in column.texts if text is not None} <= {"true", "false"}:
        texts[:] = [None if text is None else text.lower() for text in column.texts]
    return Column(column.name, texts)


def comma_evidence(sheets: Sequence[Sheet], recognised: Callable[[str], Kind | None], names: Sequence[str]) -> bool:
    """Whether the files write decimal commas: another column does, or cells are separated by semicolons and no column writes
    a decimal point."""
    marks = {kind.format.marks.decimal for name in names if (kind := recognised(name)) and kind.format and _decides(kind)}
    return "," in marks or (not marks and any(sheet.delimiter == ";" for sheet in sheets))


def _decides(kind: Kind) -> bool:
    """Whether some cell of the column is certain about its decimal mark."""
    assert kind.format is not None
    mark = kind.format.marks.decimal
    other = numbers.Marks("," if mark == "." else ".", mark)
    return any(mark in text and ((n := numbers.number_in(text)) is None or other.plain(n.body) is None) for text in kind.values)


def summary(columns: Sequence[Column], kinds: Sequence[Kind]) -> list[str]:
    """The kinds of the columns, for the dataset's note."""
    count = Counter(kind.what for kind in kinds)
    sizes = [len({*column.values} - {None}) for column, kind in zip(columns, kinds, strict=True) if kind.what == "categories"]
    parts = []
    if count["numbers"]:
        parts.append(counted(count["numbers"], "number"))
    if count["dates"]:
        parts.append(counted(count["dates"], "date"))
    if sizes:
        shown = listed([f"{size:,}" for size in sorted(sizes)], 5)
        shown = " and ".join(shown.rsplit(", ", 1)) if len(sizes) <= 5 else shown
        parts.append(f"{counted(len(sizes), 'category', 'categories')} of {shown} {'value' if sizes == [1] else 'values'}")
    texts = [", ".join(parts)]
    for column, kind in zip(columns, kinds, strict=True):
        if kind.format and str(kind.format):
            texts.append(f"{column.name}: {kind.format}")
    return texts
