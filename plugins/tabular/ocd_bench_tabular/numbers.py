"""The format of the numbers of a column: decimal and thousands marks, currency and percent signs.

A format is never guessed. Each cell is read with every pair of marks that fits it. A column has numbers only if the pairs that
fit all cells give one value per cell. If two readings are left (``1,234`` is 1.234 or 1234), or if the cells are numbers only
with thousands marks, the column is refused. The message names the cell and the settings that decide.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property

DECIMALS = ("auto", ".", ",")
THOUSANDS = ("auto", "none", ",", ".", "space", "'")
EXACT = 2**53
"""Largest integer up to which float64 represents all integers exactly."""

LONGEST = 400
"""Most characters of a number; every float64 written out is shorter. Longer cells are texts."""

_SPACES = "\u0020\u00a0\u2009\u202f"
_CODES = "AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HKD|HUF|INR|JPY|KRW|MXN|NOK|NZD|PLN|RUB|SEK|SGD|TRY|USD|ZAR"
_SIGNED = re.compile(
    rf"(?P<sign>[+-]?)(?P<before>[^\W\d_]{{0}}(?:{_CODES})|[^\w\s.,'+()-])?[{_SPACES}]?(?P<inner>[+-]?)"
    rf"(?P<body>[0-9.,][0-9.,'{_SPACES}]*(?:[eE][+-]?[0-9]+)?)[{_SPACES}]?(?P<after>%|‰|{_CODES}|[^\w\s.,'+()-])?"
)
_PLAIN = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_ODD = (
    (re.compile(r"\(\D?[0-9][0-9.,]*\D?\)"), "a negative number as accountants write it"),
    (re.compile(r"[0-9][0-9.,]*-"), "a number with its sign behind it"),
    (re.compile(r"[+-]?[0-9]{1,3}(?:_[0-9]{3})+(?:\.[0-9]*)?"), "a number with underscores"),
    (re.compile(r"0[xX][0-9a-fA-F]+"), "a hexadecimal number"),
    (re.compile(r"[+-]?[0-9.]+[dDqQ][+-]?[0-9]+"), "a number as Fortran writes it"),
)
_UNIT = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?\s?([a-zA-Zµ°Ω][a-zA-Z°/²³0-9]{0,5})")


@dataclass(frozen=True)
class Marks:
    """A decimal mark and a thousands mark (empty for none)."""

    decimal: str
    thousands: str = ""

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        whole = "[0-9]+"
        if self.thousands:
            mark = f"[{_SPACES}]" if self.thousands == " " else re.escape(self.thousands)
            whole = rf"(?:[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+|[0-9]+)"
        point = re.escape(self.decimal)
        return re.compile(rf"[+-]?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?")

    def plain(self, text: str) -> str | None:
        """``text`` as Python writes numbers; None if it is no number with these marks."""
        if not self._pattern.fullmatch(text):
            return None
        for mark in _SPACES if self.thousands == " " else self.thousands:
            text = text.replace(mark, "")
        return text.replace(self.decimal, ".")

    def __str__(self) -> str:
        return f"decimal {self.decimal!r}" + (f" and thousands {self.thousands!r}" if self.thousands else "")


POINT = Marks(".")
ALL = (POINT, Marks(","), *(Marks(d, t) for t in (",", ".", " ", "'") for d in (".", ",") if d != t))


def allowed(decimal: str, thousands: str) -> tuple[Marks, ...]:
    """The marks that the settings ``tabular.decimal`` and ``tabular.thousands`` leave open."""
    wanted = {"auto": None, "none": "", "space": " "}.get(thousands, thousands)
    return tuple(
        marks
        for marks in ALL
        if decimal in ("auto", marks.decimal) and (wanted is None or marks.thousands in (wanted, ""))
        and not (wanted and marks.decimal == wanted)
    )  # fmt: skip


@dataclass(frozen=True)
class Number:
    """A cell that may be a number: the sign or code of a currency or a percent sign, and the rest without it."""

    affix: str
    body: str


def number_in(text: str) -> Number | None:
    """``text`` taken apart; None if nothing about it is a number. Signs of other scripts become ASCII."""
    if len(text) > LONGEST:
        return None
    if _PLAIN.fullmatch(text):
        return Number("", text)
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(mark)) if mark.isdecimal() else mark for mark in text)
        text = text.replace("\u2212", "-").replace("\u066b", ".").replace("\u066c", ",")
    found = _SIGNED.fullmatch(text)
    if not found:
        return None
    affixes = [each for each in (found["before"], found["after"]) if each]
    signs = [each for each in (found["sign"], found["inner"]) if each]
    if len(affixes) > 1 or len(signs) > 1 or any(not _is_affix(each) for each in affixes):
        return None
    body = "".join(signs) + found["body"].rstrip(_SPACES)
    return Number("".join(affixes), body) if any(marks.plain(body) for marks in ALL) else None


def _is_affix(text: str) -> bool:
    return text in "%‰" or len(text) == 3 or unicodedata.category(text) == "Sc"


def odd_number(text: str) -> str:
    """What kind of number ``text`` is that no marks can read; empty if it is none."""
    return next((what for pattern, what in _ODD if pattern.fullmatch(text)), "") if len(text) <= LONGEST else ""


def unit_of(text: str) -> str:
    """The unit behind a number (``12 kg``); empty if there is none."""
    found = _UNIT.fullmatch(text) if len(text) <= LONGEST else None
    return found[1] if found else ""


@dataclass(frozen=True)
class Format:
    """The format of all numbers of a column."""

    marks: Marks
    affix: str = ""

    def __str__(self) -> str:
        """What is not plain about it; empty for numbers as Python writes them."""
        marks = str(self.marks) if self.marks != POINT else ""
        return ", ".join(filter(None, (marks, f"in {self.affix}" if self.affix else "")))

    def value(self, number: Number) -> float:
        """The number as a float. Raises ValueError if it is written otherwise, or is not finite."""
        plain = self.marks.plain(number.body) if number.affix == self.affix else None
        if plain is None:
            raise ValueError(number.body)
        value = float(plain)
        if not math.isfinite(value):
            raise ValueError(number.body)
        return value

    def exact(self, number: Number) -> Decimal:
        """The number, exactly. Raises ValueError as :meth:`value`."""
        plain = self.marks.plain(number.body) if number.affix == self.affix else None
        try:
            return Decimal(plain or "x")
        except InvalidOperation:
            raise ValueError(number.body) from None


class Unclear(Exception):
    """A column of numbers with an ambiguous format, which the cell ``text`` shows."""

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(problem)
        self.text, self.problem = text, problem


def find_format(numbers: Mapping[str, Number], decimal: str, thousands: str, comma_file: bool) -> Format:
    """The one format that all of these cells have.

    Args:
        numbers: each different cell, taken apart.
        decimal, thousands: the settings.
        comma_file: whether something else about the file says that its decimal mark is a comma.

    Raises:
        Unclear: if they have none, or more than one.
    """
    affixes = sorted({number.affix for number in numbers.values()})
    if len(affixes) > 1:
        marked = next(text for text, number in numbers.items() if number.affix)
        plain = next(text for text, number in numbers.items() if number.affix != numbers[marked].affix)
        raise Unclear(plain, f"has not the sign or unit of {marked!r}")
    bodies = {number.body: text for text, number in numbers.items()}
    choices = allowed(decimal, thousands)
    fits = {marks: [marks.plain(body) for body in bodies] for marks in choices}
    full = [marks for marks, values in fits.items() if None not in values]
    if not full:
        raise _conflict(bodies, fits)
    settled = decimal != "auto" or thousands not in ("auto", "none")
    grouped = Marks(",", ".")
    if POINT in full and not any(mark in body for body in bodies for mark in ",'" + _SPACES):
        # A point before three digits in every cell may separate thousands where the file writes decimal commas.
        if comma_file and not settled and grouped in full and any("." in body for body in bodies):
            raise _two_readings(bodies, POINT, grouped)
        return Format(POINT, affixes[0])
    first = full[0]
    for other in full[1:]:
        if [float(value or 0) for value in fits[other]] != [float(value or 0) for value in fits[first]]:
            raise _two_readings(bodies, first, other)
    if not settled and first.thousands and not any(first.thousands in body and first.decimal in body for body in bodies):
        text = next((text for body, text in bodies.items() if first.thousands in body), next(iter(bodies.values())))
        raise Unclear(text, "looks like a number with thousands marks, and no cell shows both marks")
    return Format(first, affixes[0])


def _marked(body: str) -> bool:
    return any(mark in body for mark in ".,'" + _SPACES)


def _conflict(bodies: Mapping[str, str], fits: Mapping[Marks, Sequence[str | None]]) -> Unclear:
    """Name a cell that the best marks cannot read, beside one that only they can."""
    best = max(fits, key=lambda marks: sum(value is not None for value in fits[marks]))
    texts = list(bodies.values())
    wrong = next(text for text, value in zip(texts, fits[best], strict=True) if value is None)
    right = next((text for text, value in zip(texts, fits[best], strict=True) if value is not None and _marked(text)), "")
    return Unclear(wrong, f"is not written with {best}" + (f", as {right!r} is" if right else ""))


def _two_readings(bodies: Mapping[str, str], one: Marks, two: Marks) -> Unclear:
    for body, text in bodies.items():
        first, second = one.plain(body), two.plain(body)
        if first is not None and second is not None and float(first) != float(second):
            return Unclear(text, f"can be read as {first} or as {second}")
    return Unclear(next(iter(bodies.values())), "can be read in two ways")
