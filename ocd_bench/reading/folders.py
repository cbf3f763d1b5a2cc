"""The files of a folder. Stray files are skipped, files with other suffixes counted, links followed unless circular."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ocd_bench.errors import UsageError
from ocd_bench.reading.guard import guarded
from ocd_bench.reading.limits import ENTRIES
from ocd_bench.reading.names import is_paper, is_stray, split_name


@dataclass(frozen=True)
class Listing:
    """Names of files below a folder, with forward slashes, sorted.

    Attributes:
        files: those of a wanted ending.
        left_out: the others, without stray files and papers (README, LICENSE, checksums).
    """

    files: tuple[str, ...]
    left_out: tuple[str, ...]


@guarded
def list_folder(folder: Path, endings: Collection[str], depth: int = 1) -> Listing:
    """The files of ``folder`` and, with a ``depth`` above 1, of the folders below it.

    Args:
        endings: wanted ones in lower case with their dot, such as ``.csv``; files of any compression of them are wanted too.
            A file whose compression is an ending of its own (``.zip``) is wanted if that is named.

    Raises:
        UsageError: if it cannot be read, holds more than ``ENTRIES`` files, or a link leads back into a folder that holds it.
    """
    wanted: list[str] = []
    others: list[str] = []

    def walk(place: Path, prefix: str, above: tuple[tuple[int, int], ...], left: int) -> None:
        status = place.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise UsageError(f"{place}: a link that leads in a circle; remove it")
        with os.scandir(place) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if is_stray(entry.name):
                continue
            if is_folder(entry):
                if left > 1:
                    walk(place / entry.name, f"{prefix}{entry.name}/", (*above, identity), left - 1)
                continue
            _, ending, packed = split_name(entry.name)
            if ending in endings or (packed and packed in endings):
                wanted.append(prefix + entry.name)
            elif not is_paper(entry.name):
                others.append(prefix + entry.name)
            if len(wanted) + len(others) > ENTRIES:
                raise UsageError(f"{folder}: more than {ENTRIES:,} files")

    walk(folder, "", (), depth)
    return Listing(tuple(wanted), tuple(others))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one.

    Raises:
        UsageError: for a link that leads in a circle.
    """
    try:
        return entry.is_dir()
    except OSError as error:
        raise UsageError(f"{entry.path}: a link that leads in a circle, or cannot be followed ({error.strerror})") from error
