"""The cache: things that take long to make, kept by the fingerprint of what they were made of.

An entry is one file: the SHA-256 of the rest, a line of JSON that names it, and its content. So an entry is there as a whole
or not at all, says what it is, and shows when it was damaged. A damaged entry is named, and made anew.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocd_bench.config import fingerprint
from ocd_bench.files import remove_leftovers, sha256, write_atomic
from ocd_bench.folders import cache_folder

if TYPE_CHECKING:
    import torch

SUFFIX = ".ocdcache"
KINDS = ("bases", "embeddings", "stages")
"""Sub-folders of the cache folder that hold entries. Downloads (``data``) are no entries: they are not made here."""
OLD_SUFFIXES = (".pt", ".json")
"""Of files that earlier versions kept in the same folders; nothing reads them any more."""

Warn = Callable[[str], None]


def to_stderr(line: str) -> None:
    """The default way to say that an entry is damaged or cannot be written."""
    print(f"ocd-bench: warning: {line}", file=sys.stderr)


class Damaged(Exception):
    """A file of the cache is not what was written; the message says how that shows."""


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        key: fingerprint of everything the content depends on.
        record: plain values beside the content, such as the seconds it took to make.
        content: the bytes kept.
    """

    key: str
    record: Mapping[str, Any]
    content: bytes


def entry_path(kind: str, name: str, key: str) -> Path:
    """Where an entry lies.

    Args:
        kind: one of :data:`KINDS`.
        name: first part of the file's name, for people.
        key: hexadecimal fingerprint.
    """
    safe = "".join(sign if sign.isalnum() or sign in "-_.+" else "_" for sign in name)[:120]
    return cache_folder() / kind / f"{safe}-{key[:16]}{SUFFIX}"


def read_entry(path: Path) -> Entry | None:
    """The entry in ``path``; None if there is none.

    Raises:
        Damaged: if the file cannot be read, or is not what was written.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(f"cannot be read: {error.strerror or error}") from error
    digest, _, rest = data.partition(b"\n")
    if len(digest) != 64 or digest.decode("ascii", "replace") != sha256(rest):
        raise Damaged("its content does not match its sha256")
    head, _, content = rest.partition(b"\n")
    try:
        about = json.loads(head)
        return Entry(about["key"], about["record"], content)
    except (ValueError, KeyError, TypeError) as error:  # a file with a right sha256 that this module never wrote
        raise Damaged("it is not an entry of this cache") from error


def find(kind: str, name: str, key: str, warn: Warn = to_stderr) -> Entry | None:
    """The entry of that key. None where there is none, and, after a warning, where it is damaged."""
    path = entry_path(kind, name, key)
    try:
        entry = read_entry(path)
    except Damaged as damage:
        warn(f"{path}: {damage}; made anew")
        return None
    return entry if entry is not None and entry.key == key else None


def keep(kind: str, name: str, key: str, record: Mapping[str, Any], content: bytes, warn: Warn = to_stderr) -> bool:
    """Write an entry. A cache that cannot be written costs a warning, and never what was just made; returns whether it was."""
    path = entry_path(kind, name, key)
    rest = json.dumps({"kind": kind, "key": key, "record": record}).encode() + b"\n" + content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, sha256(rest).encode() + b"\n" + rest)
    except OSError as error:
        warn(f"cannot write the cache {path.parent}: {error.strerror or error}; nothing is kept there (set OCD_BENCH_CACHE)")
        return False
    return True


# -- tensors --------------------------------------------------------------------------------------------------------------
def pack(value: Any) -> bytes:
    """Tensors, in plain containers, as bytes."""
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def unpack(content: bytes) -> Any:
    """What :func:`pack` made bytes of, on the CPU; nothing in it is run.

    Raises:
        Damaged: if the bytes are no such thing.
    """
    import torch

    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # zip and pickle readers each raise their own
        raise Damaged(f"it holds no tensors ({type(error).__name__})") from error


def remembered(
    kind: str,
    name: str,
    parts: Mapping[str, Any],
    build: Callable[[], Sequence[torch.Tensor]],
    warn: Warn = to_stderr,
) -> list[torch.Tensor]:
    """The tensors that ``build`` gives, from the cache where they were built before from the same ``parts``.

    Args:
        kind, name: as for :func:`entry_path`.
        parts: plain values, everything that the tensors depend on; the versions of torch and numpy are added here.
        warn: takes a line about an entry that is damaged or cannot be written.
    """
    import numpy
    import torch

    key = fingerprint({**parts, "torch": torch.__version__, "numpy": numpy.__version__})
    entry = find(kind, name, key, warn)
    if entry is not None:
        try:
            found = unpack(entry.content)
            if isinstance(found, list) and all(isinstance(tensor, torch.Tensor) for tensor in found):
                return found
            raise Damaged("it is not a list of tensors")
        except Damaged as damage:
            warn(f"{entry_path(kind, name, key)}: {damage}; made anew")
    tensors = [tensor.detach().cpu().clone() for tensor in build()]
    keep(kind, name, key, {}, pack(tensors), warn)
    return tensors


# -- for ocd-bench cache --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Listed:
    """One file of the cache, for ``ocd-bench cache list``.

    Attributes:
        age_s: seconds since it was written.
        problem: what is wrong with it; empty if nothing is, or if that was not looked at.
    """

    kind: str
    path: Path
    size: int
    age_s: float
    problem: str = ""


def listed(kinds: Sequence[str] = KINDS, verify: bool = False) -> Iterator[Listed]:
    """Every file of the cache, by kind and name.

    Args:
        verify: whether to read each file and compare it with its sha256.
    """
    for kind in kinds:
        folder = cache_folder() / kind
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix not in (SUFFIX, *OLD_SUFFIXES) or path.name.startswith("."):
                continue
            try:
                status = path.stat()
            except OSError:
                continue  # another process has removed it
            problem = "written by an earlier version, never read" if path.suffix != SUFFIX else ""
            if verify and not problem:
                try:
                    read_entry(path)
                except Damaged as damage:
                    problem = str(damage)
            yield Listed(kind, path, status.st_size, max(0.0, time.time() - status.st_mtime), problem)


def clear(kinds: Sequence[str] = KINDS, older_than_s: float = 0.0) -> tuple[int, int]:
    """Remove the entries that were written at least ``older_than_s`` seconds ago; returns their number and bytes.

    Raises:
        OSError: if one cannot be removed.
    """
    count = size = 0
    for entry in list(listed(kinds)):
        if entry.age_s >= older_than_s:
            entry.path.unlink(missing_ok=True)
            count, size = count + 1, size + entry.size
    remove_leftovers(cache_folder() / kind for kind in kinds)
    return count, size
