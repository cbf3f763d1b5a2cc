"""Columns of dates and times of day, as numbers: days since 1970-01-01, or hours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

ORDERS = ("auto", "ymd", "dmy", "mdy", "text")

_CLOCK = (
    r"(?:[T ]+(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?(?P<zone>Z|[+-]\d\d:?\d\d)?)?"
)
_YEAR_FIRST = re.compile(r"(?P<a>\d{4})([-/.])(?P<b>\d{1,2})\2(?P<c>\d{1,2})" + _CLOCK, re.ASCII)
_MONTH = re.compile(r"\d{4}[-/](?:0?[1-9]|1[0-2])", re.ASCII)
_YEAR_LAST = re.compile(r"(?P<a>\d{1,2})([-/.])(?P<b>\d{1,2})\2(?P<c>\d{4}|\d\d)" + _CLOCK, re.ASCII)
_NAMED = ("%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
_TIME = re.compile(r"(?P<hour>\d{1,3}):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:\.(?P<part>\d{1,9}))?)?", re.ASCII)


class Unclear(Exception):
    """A column of dates in which ``text`` is not a date, or in which the order of day and month is ambiguous."""

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(problem)
        self.text, self.problem = text, problem


def is_date(text: str) -> bool:
    """Whether ``text`` has the form of a date or a time of day, possible or not."""
    return len(text) <= 60 and (
        bool(_MONTH.fullmatch(text) or _YEAR_FIRST.fullmatch(text) or _YEAR_LAST.fullmatch(text) or _TIME.fullmatch(text))
        or _named(text) is not None
    )


def read_dates(texts: Iterable[str], order: str) -> dict[str, float]:
    """The value of each text: days since 1970-01-01 (UTC where a zone is given), or hours for times of day.

    Args:
        texts: the different cells of a column.
        order: ``auto``, or ``dmy``, ``mdy``, ``ymd``. Under ``auto`` 1/2/2024 is refused unless another cell settles what is
            the day; dates with dots are taken for day, month, year.

    Raises:
        Unclear: if one is no date, or has another form than the others, or the order is not certain.
    """
    texts = list(dict.fromkeys(texts))
    kinds = {text: _kind(text) for text in texts}
    first = kinds[texts[0]]
    for text in texts:
        if kinds[text] != first:
            raise Unclear(text, f"has another form than {texts[0]!r}")
    if first == "time":
        return {text: _hours(text) for text in texts}
    if first == "named":
        return {text: _days(text, _named(text)) for text in texts}
    if first == "month":
        return {text: _numeric(f"{text}{text[4]}1", _YEAR_FIRST, "abc") for text in texts}
    if first.startswith("year first"):
        return {text: _numeric(text, _YEAR_FIRST, "abc") for text in texts}
    groups = _last_order(texts, order)
    return {text: _numeric(text, _YEAR_LAST, groups) for text in texts}


def _last_order(texts: list[str], order: str) -> str:
    """Which group is year, month, day: ``cba`` for day first, ``cab`` for month first."""
    if order == "dmy":
        return "cba"
    if order == "mdy":
        return "cab"
    if order == "ymd":
        return "abc"
    found = [match for match in map(_YEAR_LAST.fullmatch, texts) if match]
    if any(len(match["c"]) == 2 for match in found):
        raise Unclear(texts[0], "has a year of two digits")
    if all(match[2] == "." for match in found):
        return "cba"
    day_first = any(int(match["a"]) > 12 for match in found)
    month_first = any(int(match["b"]) > 12 for match in found)
    if day_first == month_first:
        raise Unclear(texts[0], "does not say which number is the day")
    return "cba" if day_first else "cab"


def _kind(text: str) -> str:
    for pattern, name in ((_YEAR_FIRST, "year first"), (_YEAR_LAST, "year last")):
        if found := pattern.fullmatch(text):
            return f"{name} with zone" if found["zone"] else name
    if _MONTH.fullmatch(text):
        return "month"
    return "time" if _TIME.fullmatch(text) else "named" if _named(text) is not None else "none"


def _named(text: str) -> datetime | None:
    if not text[:1].isalnum() or not any(mark.isalpha() for mark in text) or len(text) > 20:
        return None
    for form in _NAMED:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def _numeric(text: str, pattern: re.Pattern[str], order: str) -> float:
    found = pattern.fullmatch(text)
    assert found is not None
    year, month, day = (int(found[group]) for group in order)
    if len(found[order[0]]) <= 2:
        year += 2000 if year < 69 else 1900
    try:
        date = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        raise Unclear(text, "is not a possible date") from None
    seconds = date.timestamp()
    if found["hour"]:
        seconds += 3600 * int(found["hour"]) + 60 * int(found["minute"]) + float(f"{found['second'] or 0}.{found['part'] or 0}")
    zone = found["zone"]
    if zone and zone != "Z":
        digits = zone[1:].replace(":", "")
        seconds -= (1 if zone[0] == "+" else -1) * (3600 * int(digits[:2]) + 60 * int(digits[2:]))
    return seconds / 86400


def _days(text: str, date: datetime | None) -> float:
    assert date is not None
    return date.replace(tzinfo=UTC).timestamp() / 86400


def _hours(text: str) -> float:
    found = _TIME.fullmatch(text)
    assert found is not None
    return int(found["hour"]) + int(found["minute"]) / 60 + float(f"{found['second'] or 0}.{found['part'] or 0}") / 3600
