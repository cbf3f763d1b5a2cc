"""Text files as bounded lines: any compression, byte order marks, an encoding where the user names one."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from ocd_bench.errors import UsageError
from ocd_bench.reading.guard import reading
from ocd_bench.reading.limits import LINE_CHARACTERS
from ocd_bench.reading.unpack import open_unpacked

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def check_encoding(setting: str, name: str) -> None:
    """Refuse an encoding that Python does not know; ``auto`` is none, and fine.

    Raises:
        UsageError: naming the setting.
    """
    try:
        if name != "auto":
            "".encode(name)
    except (LookupError, ValueError):
        raise UsageError(f"setting {setting}={name!r}: no known encoding; for example utf-8, latin-1, cp1252, utf-16") from None


def read_lines(path: Path, encoding: str = "auto", setting: str = "") -> Iterator[str]:
    r"""The lines of a text file with their line ends (``\n``, ``\r\n`` or ``\r``), unpacked where it is compressed.

    Args:
        encoding: ``auto`` is the encoding of the byte order mark, else UTF-8.
        setting: the name of the setting that chooses the encoding, for messages.

    Raises:
        UsageError: if it cannot be read, is not text of that encoding (naming the line), or has a line beyond
            ``LINE_CHARACTERS``.
    """
    cure = f"; set {setting}, for example latin-1, cp1252 or utf-16" if setting else ""
    number = 0
    with open_unpacked(path) as stream:
        buffered = cast(io.BufferedReader, stream)
        with reading(path):
            head = buffered.peek(4)[:4]
        chosen = encoding
        if encoding == "auto":
            chosen = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
        elif codecs.lookup(encoding).name == "utf-8":
            chosen = "utf-8-sig"
        text = io.TextIOWrapper(buffered, encoding=chosen, newline="")
        while True:
            with reading(path):
                try:
                    line = text.readline(LINE_CHARACTERS + 1)
                except UnicodeError as error:
                    where = _first_bad_line(path, chosen)
                    raise UsageError(f"{path}, line {where or number + 1}: not {chosen} text{cure}") from error
            if not line:
                return
            number += 1
            if len(line) > LINE_CHARACTERS:
                raise UsageError(f"{path}, line {number}: longer than {LINE_CHARACTERS:,} characters: no text file")
            if "\0" in line:
                raise UsageError(f"{path}, line {number}: holds NUL characters: no text file, or UTF-16 without its mark{cure}")
            yield line


def _first_bad_line(path: Path, encoding: str) -> int:
    """The number of the line with the first invalid byte. The reader decodes ahead of the returned lines. 0: not found."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    with open_unpacked(path) as stream:
        while block := stream.read(2**12):
            try:
                lines += decoder.decode(block).count("\n")
            except UnicodeDecodeError as error:
                return lines + error.object[: error.start].count(b"\n")
    return 0
