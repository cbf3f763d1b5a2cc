"""A folder or a zip file as a list of file names that can be read. Zip files are never unpacked to disk."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from ocd_bench import UsageError
from ocd_bench.reading import Zip, is_paper, is_stray, list_folder, open_unpacked, read_bounded, split_name
from ocd_bench.reading.pictures import SUFFIXES

FILE_LIMIT = 64 * 2**20
"""Maximum size in bytes of one picture file, packed or unpacked."""
DEPTH = 8
"""Depth of folders that are searched."""


class FolderTree:
    """Files below ``path``, named with forward slashes, without those that hold no data (hidden ones, README)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def names(self) -> list[str]:
        listing = list_folder(self.path, SUFFIXES, DEPTH)
        return sorted((*listing.files, *listing.left_out))

    def is_picture(self, name: str) -> bool:
        """Whether the name has the ending of a picture, compressed or not."""
        return split_name(name).ending in SUFFIXES

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            UsageError: if it cannot be read or is too large.
        """
        with open_unpacked(self.path / name) as file:
            return read_bounded(file, self.where(name), FILE_LIMIT)

    def where(self, name: str) -> str:
        """The file's name in messages."""
        return str(self.path / name)


class ZipTree:
    """Members of a zip file, named with forward slashes whatever system packed it; the file stays open as long as this lives.

    Raises:
        UsageError: if it is not a zip file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = Zip(path)
        self._members = {_plain(name): name for name in self._zip.names}
        if "" in self._members or len(self._members) < len(self._zip.names):
            raise UsageError(f"{path}: a member without a name, or two of one name; pack it again")

    @cached_property
    def names(self) -> list[str]:
        return sorted(
            name
            for name in self._members
            if not any(is_stray(part) for part in name.split("/")) and not is_paper(name.rpartition("/")[2])
        )

    def is_picture(self, name: str) -> bool:
        """Whether the name has the ending of a picture."""
        parts = split_name(name)
        return parts.ending in SUFFIXES and not parts.packed

    def read(self, name: str) -> bytes:
        """Content of a member.

        Raises:
            UsageError: if it is damaged, encrypted, packed by an unknown method or too large.
        """
        return self._zip.read(self._members[name], FILE_LIMIT)

    def where(self, name: str) -> str:
        """The member's name in messages."""
        return f"{self.path}: {name}"


def _plain(name: str) -> str:
    """A member's path as this package writes paths: some tools begin it with ``./`` or ``/``, some separate by backslashes."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


Tree = FolderTree | ZipTree
