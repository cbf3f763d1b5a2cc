"""Entries of the cache that travel between machines: what one has computed, another need not compute again.

An entry of a (task, dataset, seed) is known by the beginning of its file's name, so that any kind of entry travels (a base
model, a stage of a fit, embeddings) and nothing here has to know what it is. An entry carries its own SHA-256 and the
fingerprint of everything that it depends on (see :mod:`ocd_bench.cache`), so a wrong or damaged one is never used.

States of unfinished work (kind ``stages``) change every few seconds and are removed when the work is finished. They travel less
often, and so does the news that they are gone: a fit whose machine is lost continues elsewhere.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ocd_bench.cache import KINDS, SUFFIX, entry_path
from ocd_bench.files import write_atomic
from ocd_bench.folders import cache_folder
from ocd_bench.runner.cells import Group

STATES = "stages/"
"""Beginning of the names of states of unfinished work (:mod:`ocd_bench.runner.stages`, which imports torch)."""
PAUSE = 60.0
"""Seconds of work between two travels of one state."""


def entries_of(group: Group) -> dict[str, Path]:
    """Entries of this machine's cache that belong to the group's task, dataset and seed: ``kind/file`` to path."""
    names = (f"{group.task}-{group.dataset}-s{group.seed}", f"{group.dataset.rpartition('/')[2]}-s{group.seed}")
    starts = tuple(f"{_stem(name)}-" for name in names)
    found = {}
    for kind in KINDS:
        with contextlib.suppress(OSError):  # no such folder: there are none
            for path in sorted((cache_folder() / kind).iterdir()):
                if path.suffix == SUFFIX and path.name.startswith(starts):
                    found[f"{kind}/{path.name}"] = path
    return found


def _stem(name: str) -> str:
    """A name as the cache writes it at the beginning of its files' names."""
    return entry_path(KINDS[0], name, "").name.removesuffix(f"-{SUFFIX}")


def add_entries(entries: Mapping[str, bytes]) -> None:
    """Write entries of another machine into the cache, unless they are there; a state is replaced by the newer one. What cannot
    be written is computed again.

    Raises:
        ValueError: for a name that is not of an entry.
    """
    for name, content in entries.items():
        path = _path(name)
        if name.startswith(STATES) or not path.exists():
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, content)


def remove_state(name: str) -> None:
    """Remove a state whose work another machine has finished.

    Raises:
        ValueError: for a name that is not of a state.
    """
    path = _path(name)
    if not name.startswith(STATES):
        raise ValueError(f"not a state of unfinished work: {name!r}")
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _path(name: str) -> Path:
    kind, _, file = name.partition("/")
    if kind not in KINDS or not file.endswith(SUFFIX) or Path(file).name != file or file.startswith("."):
        raise ValueError(f"not an entry of the cache: {name!r}")
    return cache_folder() / kind / file


class Changes:
    """Watches the cache for entries of a group that appear, change or are removed while it is measured.

    Args:
        clock: monotonic clock in seconds.
    """

    def __init__(self, group: Group, clock: Callable[[], float] = time.monotonic) -> None:
        self.group, self.clock = group, clock
        self._seen = {name: _stamp(path) for name, path in entries_of(group).items()}
        self._sent: dict[str, float] = {}
        self._began = clock()

    def __iter__(self) -> Iterator[tuple[str, bytes | None]]:
        """Name and content of those that are new since the last look; None as the content of a state that is gone."""
        found = entries_of(self.group)
        for name, path in found.items():
            stamp = _stamp(path)
            if self._seen.get(name) == stamp:
                continue
            if name.startswith(STATES):
                if self.clock() - self._sent.get(name, self._began) < PAUSE:
                    continue
                self._sent[name] = self.clock()
            self._seen[name] = stamp
            with contextlib.suppress(OSError):  # it is gone already
                yield name, path.read_bytes()
        for name in [name for name in self._seen if name not in found]:
            del self._seen[name]
            if name.startswith(STATES):
                yield name, None


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size
