"""Limits on the memory and work that one file can cause, checked before memory is allocated."""

from __future__ import annotations

import os
import re

from ocd_bench.errors import UsageError

VARIABLE = "OCD_BENCH_READ_LIMIT"
"""Environment variable: maximum bytes of one file, packed or unpacked (``8G``). If it is set, it is the only limit on size."""

FILE_BYTES = 4 * 2**30
"""Maximum bytes of one file, plain or unpacked, if the variable is not set."""
RATIO = 100
"""A compressed file may become this many times larger, and in any case ``SMALL`` bytes. Real tables and texts stay below 30."""
SMALL = 16 * 2**20
LINE_CHARACTERS = 2**24
"""Maximum number of characters of one line, or of one quoted cell."""
COLUMNS = 100_000
"""Maximum number of columns of a table."""
ENTRIES = 1_000_000
"""Maximum number of files in a folder, or of members in an archive."""
JSON_BYTES = 32 * 2**20
"""Maximum bytes of a JSON file. Parsed, it needs up to 30 times as much memory."""

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def size_limit() -> int:
    """Maximum bytes of one file.

    Raises:
        UsageError: if the environment variable holds no size.
    """
    text = os.environ.get(VARIABLE, "").strip().lower()
    if not text:
        return FILE_BYTES
    found = re.fullmatch(r"([0-9]{1,15})([kmgt]?)(i?b)?", text)
    if not found:
        raise UsageError(f"{VARIABLE}={text!r}: expected a size in bytes, such as 8G")
    return int(found[1]) * _UNITS[found[2]]


def unpacked_limit(packed: int) -> int:
    """Maximum bytes after decompression of ``packed`` compressed bytes."""
    limit = size_limit()
    return limit if os.environ.get(VARIABLE) else min(limit, max(SMALL, RATIO * packed))


def size(count: int) -> str:
    """A number of bytes in words: ``4 GiB``."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"


def check_size(place: object, count: int, limit: int | None = None) -> None:
    """Refuse ``count`` bytes beyond ``limit`` (default: :func:`size_limit`).

    Raises:
        UsageError: naming the place, both sizes and the variable.
    """
    limit = size_limit() if limit is None else limit
    if count > limit:
        raise UsageError(f"{place}: takes {size(count)}, the limit is {size(limit)}; {VARIABLE} sets another one")
