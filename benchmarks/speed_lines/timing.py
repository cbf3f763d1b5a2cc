"""Two computations timed in turn in one process: medians, spread and ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


class Skipped(Exception):
    """A line that cannot be measured here; the message says what is missing."""


class Wrong(Exception):
    """The two sides of a line do not agree; the message says how far they are apart."""


@dataclass(frozen=True)
class Side:
    """One side of a line.

    Attributes:
        what: in a few words.
        call: the computation.
        count: samples that a call handles.
        before: prepares each call; not timed.
    """

    what: str
    call: Callable[[], Any]
    count: int
    before: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Pair:
    """What a line compares.

    Attributes:
        check: called once before the rounds; raises :class:`Wrong` if the sides do not compute the same thing. It returns what
            was compared, in a few words.
    """

    ours: Side
    other: Side
    check: Callable[[], str]


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        build: makes the pair from the options of the script.
        aim: the ratio that is aimed at, in words; empty for none.
    """

    name: str
    build: Callable[[Any], Pair]
    aim: str = ""


@dataclass
class Result:
    """Rates in samples per second and ratios ours / other, one per round."""

    name: str
    pair: Pair
    compared: str
    aim: str
    ours: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As plain values, for the stored table."""
        ratios = [a / b for a, b in zip(self.ours, self.other, strict=True)]
        return {
            "ours": self.pair.ours.what, "other": self.pair.other.what, "compared": self.compared, "aim": self.aim,
            "rounds": len(ratios), "ours_per_s": _short(statistics.median(self.ours)),
            "other_per_s": _short(statistics.median(self.other)), "ratio": _short(statistics.median(ratios)),
            "ratio_low": _short(min(ratios)), "ratio_high": _short(max(ratios)),
        }  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def clock() -> Callable[[], float]:
    """Seconds of CPU time where torch computes in this thread alone, so that other processes disturb less; else wall time,
    after the GPU has finished."""
    if torch.cuda.is_available():

        def wall() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return wall
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def measure(line: Line, options: Any) -> Result:
    """The pair of a line in turn, ``options.rounds`` times.

    A side is repeated until a round of it takes ``options.seconds``. Which side comes first alternates.
    """
    pair, now = line.build(options), clock()
    result = Result(line.name, pair, pair.check(), line.aim)
    sides: Sequence[tuple[Side, list[float]]] = [(pair.ours, result.ours), (pair.other, result.other)]
    repeats = {}
    for side, _ in sides:
        once = _seconds(side, 1, now)  # the first call also warms up
        repeats[side.what] = max(1, round(options.seconds / max(once, 1e-6)))
    for number in range(options.rounds):
        for side, rates in sides if number % 2 else reversed(sides):
            rates.append(side.count * repeats[side.what] / _seconds(side, repeats[side.what], now))
    return result


def _seconds(side: Side, times: int, now: Callable[[], float]) -> float:
    total = 0.0
    for _ in range(times):
        side.before()
        start = now()
        side.call()
        total += now() - start
    return max(total, 1e-9)


def same(ours: torch.Tensor, other: torch.Tensor, what: str, tolerance: float = 1e-4) -> str:
    """What was compared, with the largest difference relative to the largest value.

    Raises:
        Wrong: if it exceeds the tolerance, or the shapes differ.
    """
    if ours.shape != other.shape:
        raise Wrong(f"{what}: shapes {tuple(ours.shape)} and {tuple(other.shape)}")
    difference = float((ours - other).abs().max() / other.abs().max().clamp(min=1e-12))
    if not difference <= tolerance:
        raise Wrong(f"{what}: relative difference {difference:.2g}, at most {tolerance:g} is allowed")
    return f"{what}: {difference:.0e}" if difference else f"{what}: equal"
