"""Opens files: only regular ones within the size limit. Links are followed if their target exists."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from ocd_bench.errors import UsageError
from ocd_bench.reading.guard import guarded
from ocd_bench.reading.limits import JSON_BYTES, check_size, size_limit

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: Path) -> BinaryIO:
    """A regular file, opened for reading. It never blocks, because named pipes and devices are refused.

    Raises:
        UsageError: for anything else, a broken or circular link, or a file beyond the size limit.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {_why_not(path, error)}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: {_KINDS.get(stat.S_IFMT(status.st_mode), 'not a file')}, expected a regular file")
        check_size(path, status.st_size)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _why_not(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):  # a NUL in the name
        return "not a possible file name"
    if error.errno == errno.ELOOP:
        return "a link that leads in a circle"
    if error.errno == errno.ENOENT and path.is_symlink():
        return f"a link to {os.readlink(path)!r}, which is not there"
    return f"cannot be read: {error.strerror or error}"


@guarded
def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        most: maximum number of bytes; default: the size limit.

    Raises:
        UsageError: as :func:`open_file`, or if the file is larger.
    """
    with open_file(path) as file:
        return read_bounded(file, path, most)


def read_bounded(file: BinaryIO | io.RawIOBase, place: object, most: int | None = None) -> bytes:
    """The rest of a stream, at most ``most`` bytes (default: the size limit).

    Raises:
        UsageError: if there is more.
    """
    limit = size_limit() if most is None else most
    blocks, total = [], 0
    while block := file.read(min(2**20, limit - total + 1)):
        total += len(block)
        check_size(place, total, limit)
        blocks.append(block)
    return b"".join(blocks)


@guarded
def read_json(path: Path, numbers_as_text: bool = False) -> Any:
    """The value of a JSON file in UTF-8 (a byte order mark is allowed).

    Args:
        numbers_as_text: whether to return numbers as their text in the file, so that none is rounded.

    Raises:
        UsageError: if it is not a JSON file, larger than ``JSON_BYTES``, or nested too deeply.
    """
    text = read_bytes(path, JSON_BYTES).decode("utf-8-sig")
    return json.loads(text, parse_int=str, parse_float=str) if numbers_as_text else json.loads(text)
