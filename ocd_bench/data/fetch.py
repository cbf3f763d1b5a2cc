"""Download and verification of files. An interrupted download is resumed. A file is kept only if its SHA-256 is as recorded."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ocd_bench.errors import UsageError
from ocd_bench.task import Dataset, Source

CHUNK = 2**18
TIMEOUT = 30.0
Progress = Callable[[str, int, int], None]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state(folder: Path, source: Source) -> str:
    """``ok``, ``absent``, or ``corrupted`` for one file of a dataset."""
    path = folder / source.path
    if not path.exists():
        return "absent"
    return "ok" if path.stat().st_size == source.size and sha256(path) == source.sha256 else "corrupted"


def refuse_corrupted(dataset: Dataset, directories: Sequence[Path]) -> None:
    """Refuse a dataset if one of its files exists under its recorded name but has another SHA-256.

    Archives that were extracted are not checked again: only the extracted files are used.

    Raises:
        UsageError: naming the file.
    """
    places = (directory / (dataset.folder or dataset.name) for directory in directories)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        return
    for source in dataset.sources:
        if not source.unpack and state(folder, source) == "corrupted":
            raise UsageError(
                f"{folder / source.path}: not the file recorded for dataset {dataset.name!r}; delete it and run "
                f"'ocd-bench data fetch {dataset.name}', or put data of your own into a folder of another name"
            )


def fetch(folder: Path, source: Source, progress: Progress = lambda what, done, total: None) -> bool:
    """Download one file into ``folder`` unless it is there already, and unpack it where it is an archive.

    An interrupted download leaves ``NAME.part``; the next call resumes it.

    Returns:
        Whether anything was downloaded.

    Raises:
        UsageError: if the server cannot be reached, the folder cannot be written, or the SHA-256 of the download differs from
            the recorded one.
    """
    path = folder / source.path
    if state(folder, source) == "ok":
        return False
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(source, part, progress)
    except urllib.error.URLError as error:
        raise UsageError(
            f"{source.url}: cannot be reached ({error.reason}); try again later, the download is then resumed"
        ) from error
    except OSError as error:
        raise UsageError(f"{part}: download broke off ({error}); the same command resumes it") from error
    found = sha256(part)
    if found != source.sha256:
        part.unlink()
        raise UsageError(
            f"{source.url}: the download has sha256 {found[:12]}…, expected {source.sha256[:12]}…; the file was deleted"
        )
    if source.unpack:
        unpack(part, folder)  # before the archive gets its final name: an interrupted fetch is repeated
    part.replace(path)
    return True


def _download(source: Source, part: Path, progress: Progress) -> None:
    done = part.stat().st_size if part.exists() else 0
    if done >= source.size:
        if done == source.size:
            return
        part.unlink()
        done = 0
    headers = {"User-Agent": "ocd-bench"} | ({"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(urllib.request.Request(source.url, headers=headers), timeout=TIMEOUT) as answer:
        if done and answer.status != 206:  # the server cannot resume a download: start again
            done = 0
        with part.open("ab" if done else "wb") as file:
            while block := answer.read(CHUNK):
                file.write(block)
                done += len(block)
                progress(source.path, done, source.size)
    if done < source.size:
        raise OSError(f"{done} of {source.size} bytes")


def unpack(archive: Path, folder: Path) -> None:
    """Extract a zip or tar archive into ``folder``. Members outside of the folder, links and devices are refused.

    Raises:
        UsageError: if the archive is damaged or has such a member; the message names the archive.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for name in file.namelist():
                    if not (folder / name).resolve().is_relative_to(folder.resolve()):
                        raise UsageError(f"{archive}: member {name!r} points outside the folder; nothing was extracted")
                _need(folder, sum(member.file_size for member in file.infolist()))
                file.extractall(folder)
        else:
            with tarfile.open(archive) as file:
                members = file.getmembers()
                _need(folder, sum(member.size for member in members))
                file.extractall(folder, members, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{archive}: cannot be extracted ({error})") from error


def _need(folder: Path, size: int) -> None:
    if size > shutil.disk_usage(folder).free:
        raise UsageError(f"{folder}: {size / 1e6:,.0f} MB are needed to extract the archive, more than is free")
