"""The column to predict: values to regress on, or classes."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from ocd_bench import UsageError
from ocd_bench.reading import Sheet, quoted
from ocd_bench_tabular import numbers
from ocd_bench_tabular.columns import Texts, recognise
from ocd_bench_tabular.settings import TabularSettings

CODES_AT_MOST = 10
"""Up to this many integers 0..K-1 or 1..K are taken for classes."""
Target = tuple[NDArray, tuple[str, ...], str]
"""Values (float64) or class codes (int64), class names (empty for regression), and a word on what they are."""


def target_name(sheet: Sheet, settings: TabularSettings) -> str:
    """The column to predict: ``tabular.target``, or the one named target.

    Raises:
        UsageError: listing the columns, if there is none.
    """
    if settings.target:
        sheet.require(settings.target, "tabular.target")
        return settings.target
    named = [name for name in sheet.header if name.lower() == "target"]
    if len(named) == 1:
        return named[0]
    raise UsageError(f"{sheet.path}: say which column to predict with --set tabular.target=COLUMN; columns: {sheet.listing()}")


def read_target(column: Texts, settings: TabularSettings, comma_file: bool) -> Target:
    """The target of every row.

    With ``tabular.kind`` auto, texts, codes with leading zeros, integers that no float64 holds, two different numbers, or the
    integers 0..K-1 or 1..K (K at most 10) are classes; other numbers are regressed on. Class labels are compared exactly, never
    as floats.

    Raises:
        UsageError: naming line and value, if a cell is missing or the column is not certain.
    """
    kind = settings.kind
    counts = list(dict.fromkeys(text for text in column.texts if text is not None))
    found = {text: number for text in counts if (number := numbers.number_in(text)) is not None}
    whole = found and all(number.body.lstrip("+-").isdigit() and not number.affix for number in found.values())
    codes = len(found) == len(counts) and whole and any(len(text) > 1 and text[0] == "0" for text in counts)
    large = len(found) == len(counts) and whole and any(abs(int(n.body)) >= numbers.EXACT for n in found.values())
    if kind != "regression" and (codes or large or (kind == "classification" and len(found) < len(counts))):
        return _classes(column, _texts(column), kind)
    if kind == "regression":
        settings = _with_number(settings, column.name)
    recognised = recognise(column, settings, comma_file)
    if recognised.what == "categories":
        return _classes(column, _texts(column), kind)
    if None in column.texts:
        index = column.texts.index(None)
        raise UsageError(f"{column.place(index)}: the target is missing ({column.raw[index]!r})")
    if recognised.what == "dates" or recognised.format is None:
        text = column.texts[0] or ""
        raise column.refusal(text, "is a date", "predict a number or a class; tabular.dates=text takes it for a class")
    form = recognised.format
    exact = [form.exact(found[text or ""]) for text in column.texts]
    distinct = sorted(set(exact))
    if len(distinct) < 2:
        raise UsageError(f"{_where(column)} has one value only, {quoted(column.raw[0])}")
    if kind == "regression" or (kind == "auto" and not _look_like_codes(distinct)):
        values = np.array([recognised.values[text or ""] for text in column.texts], np.float64)
        return values, (), "; ".join(filter(None, (f"regression{_inferred(kind)}", str(form))))
    names = {value: _name(value) for value in distinct}
    return _coded(column, [names[value] for value in exact], [names[value] for value in distinct], kind)


def _name(value: Decimal) -> str:
    """A number as a class name: written out, unless that takes hundreds of digits."""
    if not value:
        return "0"
    if abs(value.adjusted()) >= 400:
        return str(value)
    text = format(value, "f")  # exact: normalize() would round to 28 digits
    return text.rstrip("0").rstrip(".") if "." in text else text


def _with_number(settings: TabularSettings, name: str) -> TabularSettings:
    import dataclasses

    return dataclasses.replace(settings, numeric=(*settings.numeric, name))


def _texts(column: Texts) -> list[str]:
    """Class labels as they stand: "None" may well be a class among words."""
    for index, text in enumerate(column.raw):
        if text in ("", "?"):
            raise UsageError(f"{column.place(index)}: the target is missing ({text!r})")
    return column.raw


def _classes(column: Texts, labels: list[str], kind: str) -> Target:
    distinct = sorted(set(labels))
    if len(distinct) < 2:
        raise UsageError(f"{_where(column)} has one value only, {quoted(labels[0])}")
    return _coded(column, labels, distinct, kind)


def _coded(column: Texts, labels: Sequence[str], names: Sequence[str], kind: str) -> Target:
    if len(names) > len(labels) // 2:
        raise UsageError(f"{_where(column)} has {len(names)} different values in {len(labels)} rows: too many for classes")
    number = {name: code for code, name in enumerate(names)}
    codes = np.array([number[label] for label in labels], np.int64)
    return codes, tuple(names), f"{len(names)} classes{_inferred(kind)}"


def _where(column: Texts) -> str:
    return f"{column.sheets[0].path}: the target {column.name!r}"


def _inferred(kind: str) -> str:
    return ", inferred; tabular.kind sets it" if kind == "auto" else ""


def _look_like_codes(distinct: Sequence[Decimal]) -> bool:
    steps = range(len(distinct))
    return len(distinct) == 2 or (
        len(distinct) <= CODES_AT_MOST and list(distinct) in ([Decimal(k) for k in steps], [Decimal(k + 1) for k in steps])
    )
