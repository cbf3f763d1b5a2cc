"""What a process per method costs: quick runs with it and without (``OCD_BENCH_IN_PROCESS=1``), in turn.

    python benchmarks/isolation.py
    python benchmarks/isolation.py --task tabular --rounds 5

Each run has a new folder and a new cache. Seconds are those of the CPU, of all processes of a run, so that other work on the
machine disturbs less. Exit code 1: the two forms gave different numbers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocd_bench import load


def once(task: str, in_process: bool) -> tuple[float, dict[Any, Any]]:
    """CPU seconds of a quick run, and the metrics of its cells."""
    command = [
        sys.executable,
        "-m",
        "ocd_bench",
        "run",
        "--task",
        task,
        "--preset",
        "quick",
        "--seeds",
        "1",
        "--offline",
        "--quiet",
    ]
    with tempfile.TemporaryDirectory() as place:
        own = {"OMP_NUM_THREADS": "1", "OCD_BENCH_CACHE": f"{place}/cache", "OCD_BENCH_IN_PROCESS": str(int(in_process))}
        with open(Path(place) / "said", "wb") as said:
            child = subprocess.Popen(
                [*command, "--out", f"{place}/out"], env={**os.environ, **own}, stdout=said, stderr=subprocess.STDOUT
            )
            _, status, used = os.wait4(child.pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            sys.exit(f"the run ended with exit code {code}: {(Path(place) / 'said').read_text()[-400:]}")
        numbers = {
            key: {name: m["value"] for name, m in cell["metrics"].items()} for key, cell in load(f"{place}/out").cells.items()
        }
    return used.ru_utime + used.ru_stime, numbers


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="images")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(words)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(options.rounds):
        found = {}
        for in_process in seconds:
            used, found[in_process] = once(options.task, in_process)
            seconds[in_process].append(used)
        if found[True] != found[False]:
            sys.exit("a process per method gives other numbers than one process")
    inside, apart = (statistics.median(seconds[key]) for key in (True, False))
    ratios = [b / a for a, b in zip(seconds[True], seconds[False], strict=True)]
    print("| task | cells | one process, CPU s | a process per method, CPU s | ratio: median (range) |")
    print("|" + " --- |" * 5)
    print(
        f"| {options.task} | {len(found[True])} | {inside:.1f} | {apart:.1f} "
        f"| {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |"
    )


if __name__ == "__main__":
    main()
