"""File names: names of files without data, and suffixes regardless of case and compression."""

from __future__ import annotations

import re
from typing import NamedTuple

PACKED = (".gz", ".bz2", ".xz", ".zip")
"""Endings of compressed files; :func:`ocd_bench.reading.open_unpacked` reads each."""

_STRAY = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "$recycle.bin", "system volume information",
    "lost+found",
})  # fmt: skip
_LEFTOVER = ("~", ".bak", ".swp", ".swo", ".tmp", ".part", ".partial", ".crdownload", ".download")
_PAPERS = ("readme", "license", "licence", "copying", "citation", "changelog", "sha256sum", "md5sum", "checksum")


def is_stray(name: str) -> bool:
    """Whether a file or folder of this name (no slashes) is none of the user's data: hidden, AppleDouble (``._x``), made by a
    file manager (``.DS_Store``, ``Thumbs.db``, ``__MACOSX``), or left by an editor or a broken download."""
    low = name.lower()
    return low.startswith((".", "~$")) or low in _STRAY or low.endswith(_LEFTOVER) or (low[:1] == "#" == low[-1:])


def is_paper(name: str) -> bool:
    """Whether a file is about the data and has none: README, LICENSE, checksums."""
    return name.lower().startswith(_PAPERS)


class Name(NamedTuple):
    """A file name in three parts, the last two in lower case: ``Train.CSV.gz`` is ``("Train", ".csv", ".gz")``."""

    stem: str
    ending: str
    packed: str


def split_name(name: str) -> Name:
    """The parts of a file name; ``packed`` is empty for a plain file, ``ending`` for a name without one."""
    packed = next((mark for mark in PACKED if name.lower().endswith(mark)), "")
    plain = name[: len(name) - len(packed)]
    stem, dot, ending = plain.rpartition(".")
    return Name(stem, f".{ending.lower()}", packed) if dot and stem else Name(plain, "", packed)


PARTS = {
    "train": "train", "training": "train", "val": "val", "vali": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Words in the names of files and folders, in any case, and the part of a dataset that each stands for."""
_PART = re.compile(rf"(?:^|(?<=[-_. ]))({'|'.join(PARTS)})(?=$|[-_. ])")


def part_of(name: str) -> str | None:
    """The part that the name of a file or folder contains: ``train``, ``val`` or ``test`` (``adult-Test.csv`` is ``test``).
    None if it contains none, or two."""
    found = {PARTS[word] for word in _PART.findall(split_name(name).stem.lower())}
    return found.pop() if len(found) == 1 else None
