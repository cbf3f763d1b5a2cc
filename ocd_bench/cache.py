"""The cache: results that take long to compute, stored under the fingerprint of everything they depend on.

An entry is one file: the SHA-256 of the rest, a line of JSON that describes the entry, and its content. An entry is either
complete or absent, and damage is detected. A warning names a damaged entry, and the entry is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocd_bench.config import fingerprint
from ocd_bench.files import OWN, remove_leftovers, sha256, write_atomic
from ocd_bench.folders import cache_folder

if TYPE_CHECKING:
    import torch

SUFFIX = ".ocdcache"
KINDS = ("bases", "embeddings", "stages", "finished", "times")
"""Sub-folders of the cache folder that hold entries. Downloads (``data``) are not entries: they are not computed here."""
NOTES = ("finished", "times")
"""Kinds of entries without content: what a run noted for the next one. ``ocd-bench cache list`` shows them only by name."""
OLD_SUFFIXES = (".pt", ".json")
"""Suffixes of files that earlier versions stored in the same folders. They are no longer read."""
STALE = 14 * 86_400.0
"""Seconds after which the state of a run that was never continued is removed."""

Warn = Callable[[str], None]


def to_stderr(line: str) -> None:
    """The default warning that an entry is damaged or cannot be written."""
    print(f"ocd-bench: warning: {line}", file=sys.stderr)


class Damaged(Exception):
    """The content of a cache file is not what was written; the message gives the evidence."""


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        key: fingerprint of everything the content depends on.
        record: plain values beside the content, such as the seconds it took to make.
        content: the stored bytes.
    """

    key: str
    record: Mapping[str, Any]
    content: bytes


def tensor_sha256(*tensors: torch.Tensor) -> str:
    """SHA-256 of dtype, shape and bytes of the tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def model_sha256(model: torch.nn.Module) -> str:
    """SHA-256 of the state dict, including names."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor_sha256(tensor).encode())
    return digest.hexdigest()


def entry_path(kind: str, name: str, key: str) -> Path:
    """The path of an entry.

    Args:
        kind: one of :data:`KINDS`.
        name: first part of the file's name, for human readers.
        key: hexadecimal fingerprint.
    """
    return cache_folder() / kind / f"{_safe(name)[:120]}-{key[:16]}{SUFFIX}"


def _safe(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "-_.+" else "_" for sign in name)


def read_entry(path: Path) -> Entry | None:
    """The entry in ``path``; None if there is none.

    Raises:
        Damaged: if the file cannot be read, or is not what was written.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):  # the latter: the cache folder is a file, which writing will say
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
    except (ValueError, KeyError, TypeError) as error:  # the sha256 is right, but this module did not write the file
        raise Damaged("it is not an entry of this cache") from error


def find(kind: str, name: str, key: str, warn: Warn = to_stderr) -> Entry | None:
    """The entry of that key. None if there is none, or, after a warning, if it is damaged."""
    path = entry_path(kind, name, key)
    try:
        entry = read_entry(path)
    except Damaged as damage:
        warn(f"{path}: {damage}; computed again")
        return None
    return entry if entry is not None and entry.key == key else None


def entries(kind: str, name: str) -> Iterator[Entry]:
    """The undamaged entries of a kind whose file's name begins with ``name``, whatever their key."""
    pattern = entry_path(kind, name, "*").name
    for path in sorted(entry_path(kind, name, "").parent.glob(pattern)):
        try:
            entry = read_entry(path)
        except Damaged:
            continue
        if entry is not None:
            yield entry


def keep(kind: str, name: str, key: str, record: Mapping[str, Any], content: bytes, warn: Warn = to_stderr) -> bool:
    """Write an entry; returns whether it was written. If the cache cannot be written, this warns and does not raise."""
    path = entry_path(kind, name, key)
    rest = json.dumps({"kind": kind, "key": key, "record": record}).encode() + b"\n" + content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, sha256(rest).encode() + b"\n" + rest)
    except OSError as error:
        warn(f"cannot write the cache {path.parent}: {error.strerror or error}; nothing is kept there (set OCD_BENCH_CACHE)")
        return False
    return True


def discard(kind: str, name: str) -> None:
    """Remove all entries whose name begins with ``name``."""
    folder = cache_folder() / kind
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if path.name.startswith(f"{_safe(name)}-") and path.suffix == SUFFIX:
                path.unlink(missing_ok=True)


def tidy() -> None:
    """Remove temporary files and folders of dead processes, and states of runs that nobody has continued for :data:`STALE`."""
    remove_leftovers(cache_folder() / kind for kind in KINDS)
    remove_leftovers([Path(tempfile.gettempdir())], OWN)
    with contextlib.suppress(OSError):
        clear(("stages",), STALE)


# -- tensors --------------------------------------------------------------------------------------------------------------
def pack(value: Any) -> bytes:
    """Tensors, in plain containers, as bytes."""
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def unpack(content: bytes) -> Any:
    """The tensors that :func:`pack` turned into bytes, on the CPU. No code from the bytes is executed.

    Raises:
        Damaged: if the bytes were not made by :func:`pack`.
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
    modules: Sequence[str] = (),
    warn: Warn = to_stderr,
) -> list[torch.Tensor]:
    """The tensors that ``build`` gives, from the cache if they were built before from the same ``parts`` by the same code.

    A damaged file is named on stderr and computed again. If the cache cannot be written, a warning names it.

    Args:
        kind: sub-folder of the cache folder, such as ``"embeddings"``.
        name: first part of the file's name.
        parts: plain values, everything that the tensors depend on; the versions of torch and numpy are added here.
        build: computes the tensors; they come back on the CPU.
        modules: names of the modules whose code computes them, imports within their package included.
        warn: takes a line about an entry that is damaged or cannot be written.
    """
    import numpy
    import torch

    from ocd_bench.runner.code import code_of

    key = fingerprint({**parts, "code": code_of(modules).sha256, "torch": torch.__version__, "numpy": numpy.__version__})
    entry = find(kind, name, key, warn)
    if entry is not None:
        try:
            found = unpack(entry.content)
            if isinstance(found, list) and all(isinstance(tensor, torch.Tensor) for tensor in found):
                return found
            raise Damaged("it is not a list of tensors")
        except Damaged as damage:
            warn(f"{entry_path(kind, name, key)}: {damage}; computed again")
    tensors = [tensor.detach().cpu().clone() for tensor in build()]
    keep(kind, name, key, {}, pack(tensors), warn)
    return tensors


# -- for ocd-bench cache --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Listed:
    """One file of the cache, for ``ocd-bench cache list``.

    Attributes:
        age_s: seconds since it was written.
        problem: what is wrong with it; empty if nothing is wrong, or if it was not checked.
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
