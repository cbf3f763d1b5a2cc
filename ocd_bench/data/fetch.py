"""Download and verification of files. An interrupted download is resumed. A file is kept only if its SHA-256 is as recorded.

A server is not trusted: a body that is longer than recorded is cut off as soon as it is, and one that is too slow after a time
(:func:`time_limit`). Several processes that want one file wait for the one that downloads it.
"""

from __future__ import annotations

import hashlib
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from ocd_bench.data.archives import unpack
from ocd_bench.errors import UsageError
from ocd_bench.printable import one_line
from ocd_bench.runner.lease import Lease
from ocd_bench.task import Dataset, Source

CHUNK = 2**18
TIMEOUT = 30.0
"""Seconds without a byte after which a server counts as silent."""
SLOWEST = 20_000.0
"""Bytes per second that a server must send on average."""
WAIT = 0.2
"""Seconds between two looks at a download of another process."""
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


def time_limit(size: int) -> float:
    """Seconds that the download of so many bytes may take before it is cut off, to be resumed."""
    return 120.0 + size / SLOWEST


def to_stderr(line: str) -> None:
    """The default for a line to the user."""
    print(f"ocd-bench: {line}", file=sys.stderr)


def fetch(
    folder: Path,
    source: Source,
    progress: Progress = lambda what, done, total: None,
    note: Callable[[str], None] = to_stderr,
) -> bool:
    """Download one file into ``folder`` unless it is there already, and unpack it where it is an archive.

    An interrupted download leaves ``NAME.part``; the next call resumes it.

    Args:
        progress: called with the path, the bytes that are there, and the recorded size.
        note: takes a line if another process downloads the file.

    Returns:
        Whether anything was downloaded.

    Raises:
        UsageError: if the server cannot be reached or sends something else than recorded, or the folder cannot be written.
    """
    path = folder / source.path
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{source.path!r}: the recorded path leads out of the dataset's folder; nothing was downloaded")
    if state(folder, source) == "ok":
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.parent}: cannot be written ({error.strerror or error}); choose another folder") from error
    lease = Lease(path.with_name(f".{path.name}.lease"))
    if not lease.acquire():
        note(f"waiting for {lease.owner()}, which downloads {path}")
        while not lease.acquire():
            time.sleep(WAIT)
    try:
        if state(folder, source) == "ok":
            return False
        _fetch(path, folder, source, progress, lease)
    finally:
        lease.release()
    return True


def _fetch(path: Path, folder: Path, source: Source, progress: Progress, lease: Lease) -> None:
    part = path.with_name(path.name + ".part")
    try:
        _download(source, part, progress, lease)
    except urllib.error.HTTPError as error:
        raise UsageError(f"{source.url}: the server answers {error.code} {_line(error.reason)}") from error
    except urllib.error.URLError as error:
        raise UsageError(
            f"{source.url}: cannot be reached ({_line(error.reason)}); try again later, the download is then resumed"
        ) from error
    except (http.client.HTTPException, ValueError) as error:
        raise UsageError(f"{source.url}: not an answer of a web server ({type(error).__name__}: {_line(error)})") from error
    except OSError as error:
        raise UsageError(f"{part}: download broke off ({_line(error)}); the same command resumes it") from error
    found = sha256(part)
    if found != source.sha256:
        part.unlink()
        raise UsageError(
            f"{source.url}: the download has sha256 {found[:12]}…, expected {source.sha256[:12]}…; the file was deleted"
        )
    if source.unpack:
        unpack(part, folder)  # before the archive gets its final name: an interrupted fetch is repeated
    part.replace(path)


def _download(source: Source, part: Path, progress: Progress, lease: Lease) -> None:
    done = part.stat().st_size if part.exists() else 0
    if done >= source.size:
        if done == source.size:
            return
        part.unlink()
        done = 0
    if not source.url.startswith(("http://", "https://")):
        raise ValueError("the address must begin with http:// or https://")
    headers = {"User-Agent": "ocd-bench"} | ({"Range": f"bytes={done}-"} if done else {})
    begin, limit = time.monotonic(), time_limit(source.size)
    with urllib.request.urlopen(urllib.request.Request(source.url, headers=headers), timeout=TIMEOUT) as answer:
        if done and answer.status != 206:  # the server cannot resume a download: start again
            done = 0
        with part.open("ab" if done else "wb") as file:
            while block := answer.read1(CHUNK):  # what has arrived, at most so much
                done += len(block)
                if done > source.size:
                    break
                file.write(block)
                progress(source.path, done, source.size)
                lease.renew()
                if time.monotonic() - begin > limit:
                    raise OSError(f"slower than {SLOWEST / 1000:g} kB/s: {done} of {source.size} bytes after {limit:.0f} s")
    if done > source.size:
        part.unlink()
        raise UsageError(f"{source.url}: sends more than the recorded {source.size} bytes; the file was deleted")
    if done < source.size:
        raise OSError(f"{done} of {source.size} bytes")


def _line(error: object) -> str:
    """An error in one printable line."""
    return one_line(str(error))[:200]
