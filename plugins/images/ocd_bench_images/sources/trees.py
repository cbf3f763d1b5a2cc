"""A folder or a zip file as a list of file names that can be read. Zip files are never unpacked to disk."""

from __future__ import annotations

import os
import zipfile
import zlib
from functools import cached_property
from pathlib import Path

from ocd_bench import UsageError

FILE_LIMIT = 64 * 2**20
"""Maximum size in bytes of one picture file, packed or unpacked."""
DEPTH = 4
"""Levels of folders below the top that are looked into: train/CLASS/images/NAME; bounds links that run in a circle."""


class FolderTree:
    """Files below ``path``, named with forward slashes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def names(self) -> list[str]:
        found: list[str] = []
        for folder, children, files in os.walk(self.path, followlinks=True):
            relative = Path(folder).relative_to(self.path)
            if len(relative.parts) >= DEPTH:
                children.clear()
            found.extend((relative / file).as_posix() for file in files)
        return sorted(found)

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            UsageError: if it cannot be read or is too large.
        """
        try:
            with open(self.path / name, "rb") as file:
                data = file.read(FILE_LIMIT + 1)
        except OSError as error:
            raise UsageError(f"{self.where(name)}: cannot be read ({error.strerror or error})") from error
        return _bounded(data, self.where(name))

    def where(self, name: str) -> str:
        """The file's name in messages."""
        return str(self.path / name)


class ZipTree:
    """Members of a zip file; the file stays open as long as this object lives.

    Raises:
        UsageError: if it is not a zip file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UsageError(f"{path}: not a readable zip file ({error}); get it again") from error

    @cached_property
    def names(self) -> list[str]:
        return sorted(info.filename for info in self._zip.infolist() if not info.is_dir())

    def read(self, name: str) -> bytes:
        """Content of a member.

        Raises:
            UsageError: if it is damaged, encrypted, packed by an unknown method or too large.
        """
        try:
            with self._zip.open(name) as file:
                data = file.read(FILE_LIMIT + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise UsageError(f"{self.where(name)}: cannot be unpacked ({error}); get the zip file again") from error
        return _bounded(data, self.where(name))

    def where(self, name: str) -> str:
        """The member's name in messages."""
        return f"{self.path}: {name}"


Tree = FolderTree | ZipTree


def _bounded(data: bytes, where: str) -> bytes:
    if len(data) > FILE_LIMIT:
        raise UsageError(f"{where}: more than {FILE_LIMIT // 2**20} MiB; this is no small picture, take it away")
    return data
