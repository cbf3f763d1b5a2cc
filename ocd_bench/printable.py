"""Text from outside, made safe to print: control characters, bidirectional marks and lone surrogates become escapes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: control, format (bidirectional and invisible marks), surrogate, line and paragraph separator."""


def printable(text: str) -> str:
    r"""``text`` with every character escaped that a terminal or a page may obey, hide or refuse to encode.

    >>> printable("red\x1b[31m")
    'red\\x1b[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(mark) if unicodedata.category(mark) in _ESCAPED else mark for mark in text)


def one_line(text: str) -> str:
    """``text`` as one printable line: line breaks become spaces, everything else as in :func:`printable`."""
    return printable(re.sub(r"\s*\n\s*", " ", text.strip()))


def quoted(text: str, most: int = 80) -> str:
    """A value from a file, quoted for a message, escaped, and cut after ``most`` characters."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}…"


def printable_values(value: object) -> object:
    """Plain JSON values with every text in them, keys included, made printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key) if isinstance(key, str) else key: printable_values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [printable_values(item) for item in value]
    return value


def texts_in(value: object) -> Iterator[str]:
    """Every text in plain JSON values, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts_in(key)
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


def _escape(mark: str) -> str:
    return mark.encode("unicode_escape").decode("ascii")
