"""How long the steps of a run take: expected from earlier runs, measured in this one, and the time left.

A group of cells has the steps ``data``, ``base model`` and one per method (all its test variants). The seconds of a finished
step are kept in the cache folder, under everything that sets them apart except the seed. A step that was never measured has a
rough figure, which depends on the preset alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ocd_bench.cache import find, keep
from ocd_bench.config import fingerprint
from ocd_bench.runner.cells import Group

KIND = "times"
DATA, BASE = "data", "base model"
"""Names of the steps that come before the methods."""

ROUGH = {"quick": 2.0, "default": 60.0, "paper": 1200.0}
"""Seconds of one method that was never measured here, on two idle cores, by preset."""

Place = tuple[str, str, int]
"""Task, dataset and seed of a group."""


def place_of(group: Group) -> Place:
    """What identifies a group in a run."""
    return group.task, group.dataset, group.seed


@dataclass(frozen=True)
class Times:
    """Seconds of steps in earlier runs with the same preset, settings and kind of device.

    Args:
        settings: what the user has set, by dotted key.
        device: as the user named it.
    """

    preset: str
    settings: Mapping[str, object] = field(default_factory=dict)
    device: str = "auto"

    def expected(self, group: Group, step: str) -> float | None:
        """Seconds of a step when it was last measured; None if it never was."""
        entry = find(KIND, self._name(group, step), self._key(group, step), _ignore)
        seconds = entry.record.get("seconds") if entry is not None else None
        return float(seconds) if isinstance(seconds, int | float) else None

    def rough(self, step: str) -> float:
        """Seconds of a step that was never measured: the same for every method, twice as much for a base model."""
        return ROUGH.get(self.preset, ROUGH["default"]) * {DATA: 0.5, BASE: 2.0}.get(step, 1.0)

    def remember(self, group: Group, step: str, seconds: float) -> None:
        """Keep the seconds of a step. If the cache cannot be written, they are not kept. A base model that came from the cache
        took no time, which says nothing about its training: there the longest time counts."""
        if step == BASE:
            seconds = max(seconds, self.expected(group, step) or 0.0)
        keep(KIND, self._name(group, step), self._key(group, step), {"seconds": round(seconds, 2)}, b"", _ignore)

    def _name(self, group: Group, step: str) -> str:
        return f"{group.task}-{group.dataset}-{self.preset}-{step.replace(' ', '_')}"

    def _key(self, group: Group, step: str) -> str:
        variants = [variant.label("") for variant in group.variants]
        parts = [group.task, group.dataset, variants, step, self.preset, dict(self.settings), self.device]
        return fingerprint({"step": parts})


def _ignore(line: str) -> None:
    """A time that cannot be read or kept is no problem of the user's."""


@dataclass
class Step:
    """One step of a group that runs now."""

    group: Group
    name: str
    began: float
    fraction: float = 0.0


class Clock:
    """Follows the steps of a run.

    Args:
        groups: the groups of the run.
        times: earlier times.
        jobs: number of groups that run at a time.
        now: seconds since some moment.
    """

    def __init__(self, groups: Sequence[Group], times: Times, jobs: int = 1, now: Callable[[], float] = time.monotonic) -> None:
        self.times, self.jobs, self.now = times, max(1, jobs), now
        self.rough = False
        """Whether a part of the expected time is a rough figure."""
        self.left: dict[tuple[Place, str], float] = {}
        """Expected seconds of steps that have not begun."""
        self.running: dict[Place, Step] = {}
        for group in groups:
            for name in (DATA, BASE, *group.methods):
                seconds = times.expected(group, name)
                self.rough = self.rough or seconds is None
                self.left[place_of(group), name] = times.rough(name) if seconds is None else seconds

    def begin(self, group: Group, name: str) -> None:
        """A step begins; the one before it in the same group has ended, and its seconds are kept."""
        self._end(group, kept=True)
        self.running[place_of(group)] = Step(group, name, self.now())

    def skip(self, group: Group, name: str) -> None:
        """A step that need not be done."""
        self.left.pop((place_of(group), name), None)

    def progress(self, group: Group, fraction: float) -> None:
        """The step of a group has come so far, from 0 to 1."""
        if place_of(group) in self.running:
            self.running[place_of(group)].fraction = fraction

    def end(self, group: Group, kept: bool = True) -> None:
        """A group has ended. Its seconds are not kept if it was cut short."""
        self._end(group, kept)
        for key in [key for key in self.left if key[0] == place_of(group)]:
            del self.left[key]

    def seconds_left(self) -> float:
        """Expected seconds until the run ends."""
        total = sum(self.left.get((place, step.name), 0.0) - self._used(place, step) for place, step in self.running.items())
        started = {(place, step.name) for place, step in self.running.items()}
        total += sum(seconds for key, seconds in self.left.items() if key not in started)
        open_groups = len({place for place, _ in self.left})
        return max(0.0, total) / max(1, min(self.jobs, open_groups))

    def _used(self, place: Place, step: Step) -> float:
        """The part of the running step's expected seconds that is over. A step that takes longer than expected is judged by
        its progress."""
        expected, elapsed = self.left.get((place, step.name), 0.0), self.now() - step.began
        if elapsed > expected / 2 and step.fraction > 0.05:
            return expected - elapsed * (1 / step.fraction - 1)
        return min(elapsed, expected)

    def _end(self, group: Group, kept: bool) -> None:
        step = self.running.pop(place_of(group), None)
        if step is not None:
            self.left.pop((place_of(group), step.name), None)
            if kept:
                self.times.remember(step.group, step.name, self.now() - step.began)


def in_words(seconds: float) -> str:
    """``8 s``, ``3 min``, ``2 h 10 min``: to one or two digits, because it is an estimate."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s" if seconds < 10 else f"{round(seconds / 5) * 5} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(round(minutes / 10) * 10, 60)
    return f"{hours} h {rest} min" if rest and hours < 10 else f"{hours} h"
