"""Extraction of zip and tar archives that may hold anything: nothing is written outside of the folder."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

from ocd_bench.errors import UsageError
from ocd_bench.printable import one_line

BROKEN = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, RuntimeError, ValueError)
"""What the standard library raises for archives that are damaged, encrypted, or compressed in a way that it does not know."""


def unpack(archive: Path, folder: Path) -> None:
    """Extract a zip or tar archive into ``folder``. Members outside of the folder, links and devices are refused.

    Raises:
        UsageError: if the archive is damaged, encrypted, or has such a member; the message names the archive.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder)
        else:
            with tarfile.open(archive) as file:
                members = file.getmembers()
                _need(folder, sum(member.size for member in members))
                file.extractall(folder, members, filter="data")
    except BROKEN as error:
        raise UsageError(f"{archive}: cannot be extracted ({type(error).__name__}: {one_line(str(error))[:200]})") from error


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            if not (folder / member.filename).resolve().is_relative_to(folder.resolve()):
                raise UsageError(f"{archive}: member {member.filename!r} points outside the folder; nothing was extracted")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UsageError(f"{archive}: member {member.filename!r} is a link; nothing was extracted")
        _need(folder, sum(member.file_size for member in file.infolist()))
        file.extractall(folder)


def _need(folder: Path, size: int) -> None:
    if size > shutil.disk_usage(folder).free:
        raise UsageError(f"{folder}: {size / 1e6:,.0f} MB are needed to extract the archive, more than is free")
