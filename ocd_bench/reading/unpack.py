"""Compressed files: gzip, bzip2, xz and zip, recognised by their first bytes, read as streams of limited size."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ocd_bench.errors import UsageError
from ocd_bench.reading.files import open_file, read_bounded
from ocd_bench.reading.guard import reading
from ocd_bench.reading.limits import ENTRIES, VARIABLE, check_size, size, unpacked_limit
from ocd_bench.reading.names import is_paper, is_stray

XZ_MEMORY = 2**27
"""Most bytes that the xz decoder may take: its dictionary's size stands in the file (``xz -9``: 64 MiB)."""
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)


@contextmanager
def open_unpacked(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where it is gzip, bzip2, xz or a zip of one file, whatever its name.

    Raises:
        UsageError: if it is damaged, or becomes larger than the limit allows.
    """
    with open_file(path) as file:
        head = file.read(6)
        file.seek(0, io.SEEK_END)
        packed = file.tell()
        file.seek(0)
        if head.startswith(b"PK\x03\x04"):
            with Zip(path) as archive:
                name = archive.only()
                with archive.open(name) as member:
                    yield _bounded(member, archive.where(name), packed)
            return
        decoder = _decoder(head, file)
        yield file if decoder is None else _bounded(decoder, path, packed)


def _decoder(head: bytes, file: BinaryIO) -> BinaryIO | None:
    if head.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(file))
    if head.startswith(b"\xfd7zXZ\x00"):
        return cast(BinaryIO, io.BufferedReader(_Xz(file)))
    return None


def _bounded(stream: BinaryIO, place: object, packed: int) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Bounded(stream, place, unpacked_limit(packed))))


class _Bounded(io.RawIOBase):
    """A decoder's stream that returns at most ``limit`` bytes, and whose errors name the file."""

    def __init__(self, stream: BinaryIO, place: object, limit: int) -> None:
        self._stream, self._place, self._limit, self._total = stream, place, limit, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        with reading(self._place):
            block = self._stream.read(len(buffer))
        self._total += len(block)
        if self._total > self._limit:
            raise UsageError(
                f"{self._place}: becomes more than {size(self._limit)} when unpacked; {VARIABLE} sets another limit"
            )
        buffer[: len(block)] = block
        return len(block)


class _Xz(io.RawIOBase):
    """An xz file (one or more streams) with a bound on the decoder's memory, which ``lzma.LZMAFile`` does not offer."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rest = file, b""
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while True:
            if self._decoder.eof:
                self._rest = (self._decoder.unused_data or self._file.read(2**16)).lstrip(b"\0")
                if not self._rest:
                    return 0
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
            if self._decoder.needs_input and not self._rest:
                self._rest = self._file.read(2**16)
                if not self._rest:
                    raise EOFError
            block = self._decoder.decompress(self._rest, max_length=len(buffer))
            self._rest = b""
            if block:
                buffer[: len(block)] = block
                return len(block)


class Zip:
    """The members of a zip file, never unpacked to disk. Close it, or use it in a ``with`` statement.

    Attributes:
        names: of the files in it, sorted; folders are left out.

    Raises:
        UsageError: if it is no zip file, or has more members than ``ENTRIES``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_file(path)
        try:
            with reading(path, "get the zip file again"):
                self._zip = zipfile.ZipFile(self._file)
                members = self._zip.infolist()
            if len(members) > ENTRIES:
                raise UsageError(f"{path}: {len(members):,} members, at most {ENTRIES:,} are read")
        except BaseException:
            self._file.close()
            raise
        self._members = {member.filename: member for member in members if not member.filename.endswith("/")}
        self.names = sorted(self._members)

    def __enter__(self) -> Zip:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()

    def where(self, name: str) -> str:
        """The member's name in messages."""
        return f"{self.path}: {name}"

    def only(self) -> str:
        """The name of the one file in it that holds data.

        Raises:
            UsageError: if there are none or several.
        """
        names = [name for name in self.names if not any(is_stray(part) or is_paper(part) for part in name.split("/"))]
        if len(names) != 1:
            raise UsageError(f"{self.path}: a zip of {len(names)} files, expected one; unpack it")
        return names[0]

    def size(self, name: str) -> int:
        """Bytes of a member, unpacked, as the archive states them."""
        return self._members[name].file_size

    def open(self, name: str) -> BinaryIO:
        """A member as a stream; what it gives is not bounded here.

        Raises:
            UsageError: if it is encrypted, packed by an unusual method, or damaged.
        """
        member = self._members[name]
        if member.flag_bits & 1:
            raise UsageError(f"{self.where(name)}: encrypted; unpack it and pack it without a password")
        if member.compress_type not in ZIP_METHODS:
            raise UsageError(f"{self.where(name)}: packed by zip method {member.compress_type}, which is not read; use deflate")
        with reading(self.where(name), "get the zip file again"):
            return cast(BinaryIO, self._zip.open(member))

    def read(self, name: str, most: int | None = None) -> bytes:
        """The content of a member, at most ``most`` bytes (default: what the size of the zip allows).

        Raises:
            UsageError: as :meth:`open`, or if it is larger.
        """
        limit = unpacked_limit(self._members[name].compress_size) if most is None else most
        check_size(self.where(name), self.size(name), limit)
        with self.open(name) as file, reading(self.where(name), "get the zip file again"):
            return read_bounded(file, self.where(name), limit)
