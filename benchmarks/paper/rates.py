"""A table of rates: each line is timed in rounds, and compared with what the card can do."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from speed_lines.timing import Skipped, clock
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

HEAD = "line", "batch", "per s, median (range)", "unit", "TFLOP/s", "of bf16", "nearest limit", "peak memory, GB"

ROUNDS = 5
"""Rounds of a line."""


@dataclass(frozen=True)
class Work:
    """What one call or one training step does: FLOPs, and bytes read and written (None: unknown)."""

    flops: float
    moved: float | None

    def times(self, count: int) -> Work:
        """Of so many."""
        return Work(count * self.flops, None if self.moved is None else count * self.moved)


class Traffic(TorchDispatchMode):
    """Adds up the bytes of the inputs and results of all operations that are no views."""

    moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


@contextmanager
def counted(found: list[Work]) -> Iterator[None]:
    """Appends the work of what runs inside."""
    with FlopCounterMode(display=False) as flops, Traffic() as traffic:
        yield
    found.append(Work(flops.get_total_flops(), traffic.moved))


def work_of(call: Callable[[], Any]) -> Work:
    """The work of a call."""
    found: list[Work] = []
    with counted(found):
        call()
    return found[0]


Measured = tuple[list[float], Work | None]
"""Seconds of a call or step, one number per round, and its work where it is known."""


class Table:
    """The lines, printed and stored one by one.

    Args:
        seconds: for all lines together.
        least: what a round takes at least, in seconds.
        gpu: whether there is peak memory to report.
        out: the file of the table; its JSON goes beside it. None: none.
        environment: what the table was measured on.

    Attributes:
        peaks: measured limits, in FLOP/s by precision, and ``copy`` in bytes/s.
        failed: how many lines had an error.
    """

    def __init__(self, seconds: float, least: float, gpu: bool, out: Path | None, environment: Mapping[str, str]) -> None:
        self.deadline, self.now = time.monotonic() + seconds, clock()
        self.least, self.gpu, self.out, self.environment = least, gpu, out, environment
        self.rows: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.peaks: dict[str, float] = {}
        self.failed = 0
        self._say(HEAD)
        self._say(["---"] * len(HEAD))

    def check(self, needed: float) -> None:
        """
        Raises:
            Skipped: if so many seconds are not left.
        """
        left = max(0.0, self.deadline - time.monotonic())
        if needed >= left:
            raise Skipped(f"would take {needed:.1f} s more, and {left:.1f} s of --seconds are left")

    def seconds(self, call: Callable[[], Any]) -> list[float]:
        """Seconds of a call, one number per round. The first call warms up.

        Raises:
            Skipped: if the rounds would not fit.
        """
        self.forget()
        once = self._time(call, 1)
        if once < 10 * self.least:  # else the warm-up is a small part of it
            once = self._time(call, 1)
        repeats = max(1, round(self.least / once))
        self.check(once * repeats * ROUNDS)
        return [self._time(call, repeats) / repeats for _ in range(ROUNDS)]

    def forget(self) -> None:
        """Free what is not used any more, and begin to take the peak memory anew."""
        if self.gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _time(self, call: Callable[[], Any], repeats: int) -> float:
        start = self.now()
        for _ in range(repeats):
            call()
        return max(self.now() - start, 1e-9)

    def line(
        self, name: str, batch: int, unit: str, count: float, measure: Callable[[], Measured], precision: str = "float32"
    ) -> float:
        """Measure a line. Returns its rate, 0 if there is none.

        Args:
            count: of ``unit`` in a call.
            precision: the limit of its arithmetic, a key of ``peaks``.
        """
        row: dict[str, Any] = {"line": name, "batch": batch, "unit": unit}
        try:
            self.check(0)
            self.forget()
            times, work = measure()
            rates = [count / value for value in times]
            row |= {"median": statistics.median(rates), "low": min(rates), "high": max(rates), "rounds": len(rates)}
            row |= self.compared(statistics.median(times), work, precision)
        except Skipped as reason:
            row["note"] = f"skipped: {reason}"
        except Exception as error:
            self.failed += 1
            row["note"] = f"error: {type(error).__name__}: {error}"
        self.add(row)
        return row.get("median", 0.0)

    def compared(self, seconds: float, work: Work | None, precision: str) -> dict[str, Any]:
        """Work per second, as shares of the limits, and peak memory."""
        found: dict[str, Any] = {"peak_gb": torch.cuda.max_memory_allocated() / 1e9} if self.gpu else {}
        if work is None:
            return found
        rate = work.flops / seconds
        shares = {f"arithmetic, {precision}": rate / self.peaks[precision]} if precision in self.peaks else {}
        if work.moved is not None and "copy" in self.peaks:
            shares["memory"] = work.moved / seconds / self.peaks["copy"]
        of_bf16 = {"of_bf16": rate / self.peaks["bf16"]} if "bf16" in self.peaks else {}
        return found | asdict(work) | of_bf16 | {"tflops": rate / 1e12, "shares": shares}

    def add(self, row: dict[str, Any]) -> None:
        """Print a row, and store the table."""
        self.rows.append(row)
        value = "{median:,.4g} ({low:,.4g} to {high:,.4g})".format_map(row) if "median" in row else row["note"]
        name, share = max(row.get("shares", {"–": 0.0}).items(), key=lambda item: item[1], default=("–", 0.0))
        cells = [row["line"], str(row["batch"]), " ".join(value.replace("|", "/").split())[:300], row["unit"]]
        cells += [
            f"{row['tflops']:.3g}" if "tflops" in row else "–",
            f"{100 * row['of_bf16']:.3g} %" if "of_bf16" in row else "–",
        ]
        cells += [f"{name}: {100 * share:.3g} %" if share else "–", f"{row['peak_gb']:.2f}" if "peak_gb" in row else "–"]
        self._say(cells)
        if self.out is not None:
            foot = [f"{key}: {text}" for key, text in self.environment.items()]
            self.out.write_text("\n".join([*self.texts, "", *foot]) + "\n", encoding="utf-8")
            text = json.dumps({**self.environment, "peaks": self.peaks, "lines": self.rows}, indent=1, ensure_ascii=False)
            self.out.with_suffix(".json").write_text(text + "\n", encoding="utf-8")

    def _say(self, cells: Any) -> None:
        self.texts.append(f"| {' | '.join(cells)} |")
        print(self.texts[-1], flush=True)
