"""States of unfinished work, kept in the cache, so that a killed run continues where it was.

A loop that trains a base model, overfits targets, trains a hypernetwork or chooses a gain offers its state after every step
(:class:`ocd_bench.progress.Progress`). About every :data:`EVERY` seconds one is written, as an entry of the cache (kind
``stages``). The entry's key is a fingerprint of everything that the work depends on, so another run never takes it by mistake.
Entries are removed when the work that needed them is finished, and after :data:`STALE` if it never was.

Writing costs at most :data:`SHARE` of the time: a large state is written less often, and work of a few seconds is not kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import PurePath
from typing import Any

import torch

from ocd_bench.cache import Damaged, discard, entry_path, find, keep, pack, unpack
from ocd_bench.config import fingerprint
from ocd_bench.progress import Progress
from ocd_bench.runner.blame import message_of

KIND = "stages"
EVERY = 20.0
"""Seconds of work between two states. ``OCD_BENCH_KEEP_EVERY`` sets another number; 0: every state, whatever it costs."""
LEAST = 3.0
"""Seconds of work after which the last state of a loop is written."""
SHARE = 0.01
"""Part of the time that writing may take."""
RATE = 2e8
"""Bytes per second that are digested and written, assumed for the first state of a loop. Then its time is measured."""

Note = Callable[[str], None]


def seconds_between() -> float:
    """:data:`EVERY`, or what the user has set instead."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(os.environ.get("OCD_BENCH_KEEP_EVERY", "")))
    return EVERY


class Stage(Progress):
    """A loop whose state is kept in the cache.

    Args:
        show: function of (steps done, steps in total).
        name: of the entry, for human readers.
        key: fingerprint of everything that the loop's result depends on.
        note: takes a line about a damaged entry.
        resumed: called with the seconds of work that an earlier process did, if its state is used.
    """

    def __init__(
        self,
        show: Callable[[int, int], None],
        name: str,
        key: str,
        note: Note,
        resumed: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        super().__init__(show)
        self.name, self.key, self.note, self._resumed = name, key, note, resumed
        self._every = seconds_between()
        self._affordable = 0.0
        self._began = self._saved = time.monotonic()
        self._random = random_state()

    def resume(self) -> Mapping[str, Any] | None:
        entry = find(KIND, self.name, self.key, self.note)
        if entry is None:
            return None
        try:
            content = unpack(entry.content)
            state, random = content["state"], content["random"]
            self.earlier = float(entry.record["seconds"])
        except (Damaged, KeyError, TypeError, ValueError) as error:
            self.note(f"{entry_path(KIND, self.name, self.key)}: {message_of(error)}; computed again")
            return None
        if random is not None:
            set_random_state(random)
        self._resumed(self.earlier)
        return state

    def save(self, state: Callable[[], Mapping[str, Any]], finished: bool = False) -> None:
        now = time.monotonic()
        due = min(LEAST, self._every) if finished else self._every
        if now - self._saved < max(due, self._affordable):
            return
        random = random_state()
        # A loop that draws nothing from torch's global generator must not change it when it continues.
        drawn = random if any(not torch.equal(one, two) for one, two in zip(random, self._random, strict=True)) else None
        content = pack({"state": dict(state()), "random": drawn})
        self._costs(len(content) / RATE)
        if now - self._saved < self._affordable:
            return
        seconds = round(self.earlier + now - self._began, 3)
        keep(KIND, self.name, self.key, {"seconds": seconds}, content, self.note)
        self._saved = time.monotonic()
        self._costs(self._saved - now)

    def _costs(self, seconds: float) -> None:
        """Note that keeping a state takes so long: after how much work it is worth it."""
        if self._every:
            self._affordable = max(self._affordable, seconds / SHARE)


class Stages:
    """The kept states of one piece of work, such as the fits of a group of cells.

    Args:
        name: first part of the entries' names.
        work: fingerprint of everything that all of its loops depend on.
        note: takes a line about a damaged entry.
    """

    def __init__(self, name: str, work: str, note: Note) -> None:
        self.work, self.note = work, note
        self.name = f"{name[:80]}-{work[:8]}"

    def loop(
        self,
        what: str,
        key: Hashable,
        show: Callable[[int, int], None],
        resumed: Callable[[float], None] = lambda seconds: None,
    ) -> Stage:
        """The loop named ``what``; ``key`` is what it depends on beside the rest of the work.

        Raises:
            TypeError: see :func:`plain`.
        """
        return Stage(show, f"{self.name}-{what}", fingerprint([self.work, what, plain(key)]), self.note, resumed)

    def discard(self) -> None:
        """Remove all states: the work is finished."""
        discard(KIND, self.name)


def plain(key: object) -> Any:
    """A key as plain values, the same in every process.

    Raises:
        TypeError: if a part of it is something else than a plain value, tuple, dataclass, class or function of a module.
    """
    if key is None or isinstance(key, bool | int | float | str):
        return key
    if isinstance(key, PurePath):
        return str(key)
    if isinstance(key, tuple | list):
        return [plain(part) for part in key]
    if dataclasses.is_dataclass(key) and not isinstance(key, type):
        values = {field.name: plain(getattr(key, field.name)) for field in dataclasses.fields(key)}
        return [f"{type(key).__module__}.{type(key).__qualname__}", values]
    name = getattr(key, "__qualname__", "<")
    if "<" in name:  # a lambda, or a function inside of another: its name does not say what it does
        raise TypeError(f"the key of a stage holds {key!r}; use plain values, dataclasses and functions of a module")
    return f"{getattr(key, '__module__', '')}.{name}"


# -- torch's global generators ----------------------------------------------------------------------------------------------
def random_state() -> list[torch.Tensor]:
    """The state of torch's global generators: of the CPU, and of each GPU in use."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *devices]


def set_random_state(state: list[torch.Tensor]) -> None:
    """Put back what :func:`random_state` gave."""
    torch.set_rng_state(state[0])
    if state[1:]:
        torch.cuda.set_rng_state_all(state[1:])
