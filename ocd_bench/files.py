"""Files that survive a crash, and whose damage is detected: atomic writes, removal of temporary files, JSON with its sha256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"
"""Key of a sealed object's digest of all its other keys."""

_TEMPORARY = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp")
_OLD_TEMPORARY = re.compile(r"\..*\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp")
DAY = 86_400.0
OWN = "ocd-bench"
"""Name of temporary folders, which are among the files of other programs."""


def host_name() -> str:
    """Eight hexadecimal digits that identify this machine since its last boot. Process numbers are valid on one machine."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    return hashlib.sha256(f"{socket.gethostname()}{boot}".encode()).hexdigest()[:8]


def is_alive(pid: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def process_start(pid: int) -> str:
    """Start time of a process in the kernel's ticks, which distinguishes it from a later process of the same number. Empty if
    unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: a reader, also after a crash, sees the old content or the new, never a part.

    Raises:
        OSError: if the folder cannot be written; nothing is left behind.
    """
    temporary = path.with_name(_temporary_name(path.name))
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def temporary_folder() -> Path:
    """A new folder among the system's temporary files. If this process is killed, :func:`remove_leftovers` finds it."""
    path = Path(tempfile.gettempdir(), _temporary_name(OWN))
    path.mkdir(mode=0o700)
    return path


def _temporary_name(name: str) -> str:
    return f".{name}.{host_name()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


def remove_leftovers(folders: Iterable[Path], name: str = "") -> int:
    """Delete temporary files and folders of processes that were killed; returns their number.

    A file of another machine is kept for a day, because this machine cannot see whether its process still runs.

    Args:
        folders: where to look.
        name: only of this name; empty: all.
    """
    here, count = host_name(), 0
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in list(folder.iterdir()):
                if path.suffix == ".tmp" and path.name.startswith(f".{name}") and _is_leftover(path, here):
                    with contextlib.suppress(OSError):
                        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                        count += 1
    return count


def _is_leftover(path: Path, here: str) -> bool:
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        old = _OLD_TEMPORARY.fullmatch(path.name)
        return old is not None and not is_alive(int(old["pid"]))
    if match["host"] == here:
        return not is_alive(int(match["pid"]))
    try:
        return time.time() - path.stat().st_mtime > DAY
    except OSError:
        return False


# -- seals ----------------------------------------------------------------------------------------------------------------
def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a JSON object with the digest of its content under :data:`SEAL`."""
    content = {key: item for key, item in value.items() if key != SEAL}
    return {**content, SEAL: _digest(content)}


def is_intact(value: Mapping[str, Any]) -> bool:
    """Whether an object matches its seal. An object without a seal (written by an older version) is accepted."""
    if SEAL not in value:
        return True
    return value[SEAL] == _digest({key: item for key, item in value.items() if key != SEAL})


def _digest(content: Mapping[str, Any]) -> str:
    # ASCII, so that invalid Unicode text has a digest too. The json module reads back exactly the floats that it writes.
    return sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode())
