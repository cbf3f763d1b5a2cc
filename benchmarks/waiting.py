"""What a user waits for: seconds of the commands that must answer at once, and of the preset ``quick`` for every embedded set.

    python benchmarks/waiting.py
    python benchmarks/waiting.py --only help,list,speech

Each command runs in a process of its own. The cache is empty at the beginning. CPU seconds include those of all its processes;
on an idle machine a run takes hardly longer than them. Exit code 1: a limit was passed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ocd_bench.plugin.manager import load_plugins

LIMITS = {"help": 0.3, "list": 1.0, "again": 2.0}
"""Seconds of a command; ``again`` is a finished run of one task that is run once more."""
QUICK = 45.0
"""Seconds of the preset ``quick``, one task and dataset."""


def measured(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds and CPU seconds of ``ocd-bench``; ends the script with its message if it fails."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ocd_bench", *words], env=environment, capture_output=True, text=True, check=False
    )
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr.strip() or f"ocd-bench {' '.join(words)} ended with {done.returncode}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def lines(chosen: set[str], folder: Path) -> Iterator[tuple[str, float, float, float]]:
    """Name, seconds, CPU seconds and the limit of each command."""
    environment = {**os.environ, "OCD_BENCH_CACHE": str(folder / "cache")}
    for name, words in (("help", ["--help"]), ("list", ["list"])):
        if not chosen or name in chosen:
            measured(words, environment)  # once, so that its files are in memory
            yield name, *measured(words, environment), LIMITS[name]
    for task in load_plugins(()).tasks.values():
        if not chosen or task.name in chosen:
            for dataset in (dataset.name for dataset in task.datasets() if dataset.embedded):
                out = str(folder / f"{task.name}-{dataset}")
                words = ["run", "--quiet", "--offline", "--preset", "quick", "--task", task.name, "--dataset", dataset]
                yield f"quick, {task.name}, {dataset}", *measured([*words, "--out", out], environment), QUICK
    if not chosen or "again" in chosen:
        words = ["run", "--quiet", "--offline", "--preset", "quick", "--task", "tabular", "--methods", "base,ocd-nn", "--out"]
        measured([*words, str(folder / "again")], environment)
        yield "again", *measured([*words, str(folder / "again")], environment), LIMITS["again"]


def main() -> int:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="help, list, again, or tasks")
    chosen = {name for name in parser.parse_args().only.split(",") if name}
    known = {"help", "list", "again", *load_plugins(()).tasks}
    if unknown := chosen - known:
        parser.error(f"--only {', '.join(sorted(unknown))}: expected some of {', '.join(sorted(known))}")
    late = 0
    print("| command | s | CPU s | limit, s |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for name, seconds, cpu, limit in lines(chosen, Path(folder)):
            late += seconds > limit
            print(f"| {name} | {seconds:.2f} | {cpu:.2f} | {limit:g} |", flush=True)
    return int(late > 0)


if __name__ == "__main__":
    sys.exit(main())
