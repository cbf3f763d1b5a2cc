"""Repeats quick runs in one process and checks that nothing grows: memory, descriptors, threads, processes, files.

    python benchmarks/soak.py --minutes 30 > table.md
    python benchmarks/soak.py --minutes 1 --task tabular --methods base,ocd

Every run has a new run folder and a new cache. Exit code 1: something grew, or a run failed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

WARM = 2
"""First runs that only load modules and fill caches."""
GROWTH_MB = 20.0
"""Megabytes by which memory may differ between the first runs and the last."""


@dataclass(frozen=True)
class Reading:
    """The state after a run."""

    run: int
    seconds: float
    exit_code: int
    resident_mb: float
    descriptors: int
    threads: int
    children: int
    leftovers: int
    warnings: int


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def children() -> int:
    """Processes that this one has started and that still exist."""
    return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def leftovers(folder: Path) -> int:
    """Temporary files, leases and states of unfinished work."""
    found = [*folder.rglob("*.tmp"), *folder.rglob("*.lease"), *folder.rglob("*.part"), *folder.rglob("stages/*")]
    return len(found)


def once(number: int, words: Sequence[str]) -> Reading:
    """One run, and what it leaves."""
    from ocd_bench.cli import main as ocd_bench

    begin, said = time.monotonic(), io.StringIO()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        folder = Path(place)
        os.environ["OCD_BENCH_CACHE"] = str(folder / "cache")
        with contextlib.redirect_stdout(said):
            code = ocd_bench(["run", *words, "--preset", "quick", "--offline", "--quiet", "--out", str(folder / "out")])
        left = leftovers(folder)
    gc.collect()
    seconds = round(time.monotonic() - begin, 1)
    open_files = len(os.listdir("/proc/self/fd")) - 1  # without the one that lists them
    return Reading(number, seconds, code, resident_mb(), open_files, threading.active_count(), children(), left, len(caught))


def table(readings: Sequence[Reading]) -> str:
    """The readings as Markdown."""
    names = [field.name.replace("_", " ") for field in fields(Reading)]
    rows = [f"| {' | '.join(map(str, astuple(reading)))} |" for reading in readings]
    return "\n".join([f"| {' | '.join(names)} |", "|" + " --- |" * len(names), *rows])


def problems(readings: Sequence[Reading]) -> list[str]:
    """What grew or failed, after the first runs."""
    steady = list(readings[WARM:]) or list(readings)
    first, last = steady[0], steady[-1]
    found = [f"run {r.run} ended with exit code {r.exit_code}" for r in readings if r.exit_code]
    found += [f"run {r.run} left {r.leftovers} files" for r in readings if r.leftovers]
    found += [f"run {r.run} gave {r.warnings} warnings" for r in readings if r.warnings]
    for name in ("descriptors", "threads", "children"):
        if getattr(last, name) > getattr(first, name):
            found.append(f"{name}: {getattr(first, name)} and later {getattr(last, name)}")
    if last.resident_mb > first.resident_mb + GROWTH_MB:
        found.append(f"memory: {first.resident_mb} MB and later {last.resident_mb} MB")
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Repeat, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--task", default="all")
    parser.add_argument("--methods", default=None)
    parser.add_argument("--seeds", default="3")
    options = parser.parse_args(words)
    asked = ["--task", options.task, "--seeds", options.seeds, *(["--methods", options.methods] if options.methods else [])]
    begin, readings = time.monotonic(), list[Reading]()
    while len(readings) <= WARM or time.monotonic() - begin < 60 * options.minutes:
        readings.append(once(len(readings) + 1, asked))
    print(table(readings))
    found = problems(readings)
    print("\n".join(found) or "nothing grew", file=sys.stderr)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
