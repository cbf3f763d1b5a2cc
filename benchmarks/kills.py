"""Kills runs with SIGKILL at random times, continues them, and checks that nothing is lost.

    python benchmarks/kills.py --kills 50 > table.md

Runs of each task at the quick preset are killed and started again until they end. Each must end with the same numbers, bit for
bit, as a run that nobody killed. States are kept every second here (``OCD_BENCH_KEEP_EVERY=1``), since quick runs are short;
``--every 20`` kills as often as a user's run keeps them.
Exit code 1: a number differs, or something is left over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a run of one thread can be forked

import_module("torch._dynamo")  # every optimizer imports it
from ocd_bench.cli import main as ocd_bench  # noqa: E402

TASKS = {"images": "digits", "tabular": "wine"}
"""Tasks and their datasets."""
METHODS = "base,ocd,ocd-x5"
EVERY = 1.0
"""Seconds between two states of a loop, if ``--every`` does not say otherwise."""


@dataclass
class Record:
    """What the kills of one task did.

    Attributes:
        lost: for each kill, seconds since the killed process had kept something, or since it began.
        inside: kills that hit a loop whose state was kept.
        cells: finished cells that were measured again.
        differing: values and score files that differ from those of the unbroken run.
        left: temporary files and processes that were left.
    """

    task: str
    lost: list[float] = field(default_factory=list)
    inside: int = 0
    cells: int = 0
    runs: int = 0
    differing: int = 0
    left: int = 0
    compared: int = 0


def start(task: str, folder: Path, extra: Sequence[str], every: float = EVERY) -> int:
    """Start a quick run of a task in a session of its own, with a run folder and a cache in ``folder``; returns its process.

    It is forked from this process, which has imported everything, so that no kill is spent on imports.
    """
    words = ["--task", task, "--dataset", TASKS[task], "--preset", "quick", "--methods", METHODS, "--seeds", "1", "--offline"]
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.environ.update(OCD_BENCH_CACHE=str(folder / "cache"), OCD_BENCH_KEEP_EVERY=str(every))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = ocd_bench(["run", *words, "--quiet", "--out", str(folder / "out"), *extra])
    finally:
        os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    """The exit code of a process; None if it has not ended after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def numbers(out: Path) -> dict[str, Any]:
    """Everything of a run folder that must be bit-identical: values of cells, and the bytes of score files."""
    found: dict[str, Any] = {}
    for path in sorted((out / "cells").glob("*.json")):
        cell = json.loads(path.read_text())
        for name in ("status", "metrics", "detail", "layer", "n_test", "fingerprint", "made_by"):
            found[f"{path.stem} {name}"] = cell[name]
        found[f"{path.stem} scores"] = (out / "scores" / f"{path.stem}.npz").read_bytes()
    return found


def kept_at(folder: Path) -> float:
    """When something was last kept in this folder: a cell, a base or a state of unfinished work."""
    times = [0.0]
    for pattern in ("out/cells/*.json", "cache/bases/*.ocdcache", "cache/stages/*.ocdcache"):
        for path in folder.glob(pattern):
            try:
                times.append(path.stat().st_mtime)
            except FileNotFoundError:
                continue  # it has been replaced
    return max(times)


def processes(session: int) -> int:
    """Processes of a session that still run."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            count += int(own) == session and state != "Z"
    return count


def kill_once(task: str, folder: Path, delay: float, record: Record, extra: Sequence[str], every: float = EVERY) -> bool:
    """Start the run, kill it after ``delay`` seconds; False if it had ended before."""
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "cells").glob("*.json")}
    begin, pid = time.time(), start(task, folder, extra, every)
    code = wait(pid, delay)
    if code is None:
        os.kill(pid, signal.SIGKILL)
        end = time.time()
        os.waitpid(pid, 0)
        record.lost.append(end - max(begin, kept_at(folder)))
        record.inside += any((folder / "cache" / "stages").glob("*.ocdcache"))
        gone = time.monotonic() + 10
        while processes(pid) and time.monotonic() < gone:
            time.sleep(0.05)
        record.left += processes(pid)
        print(f"{task}: kill {len(record.lost)} after {delay:.1f} s, {record.lost[-1]:.1f} s lost", file=sys.stderr)
    elif code:
        raise SystemExit(f"the run of {task} ended with exit code {code}")
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "cells").glob("*.json")}
    record.cells += sum(after.get(name) != stamp for name, stamp in before.items())
    return code is None


def break_runs(task: str, kills: int, place: Path, seed: int = 0, extra: Sequence[str] = (), every: float = EVERY) -> Record:
    """Kill runs of a task so many times. After the last kill, and whenever a run ends before it is killed, compare."""
    record, draw = Record(task), random.Random(f"{task} {seed}")
    begin = time.monotonic()
    if kill_once(task, place / "whole", 3600.0, record, extra, every):
        raise SystemExit(f"the run of {task} did not end")
    duration = time.monotonic() - begin
    expected = numbers(place / "whole" / "out")
    while len(record.lost) < kills:
        folder = place / f"broken-{record.runs}"
        while kill_once(task, folder, draw.uniform(0.0, 0.5 * duration), record, extra, every):
            if len(record.lost) == kills:
                if kill_once(task, folder, 3600.0, record, extra, every):
                    raise SystemExit(f"the run of {task} did not end")
                break
        found = numbers(folder / "out")
        record.runs, record.compared = record.runs + 1, record.compared + len(expected)
        record.differing += sum(found.get(name) != value for name, value in expected.items()) + len(found.keys() - expected)
        record.left += len([*folder.rglob("*.tmp"), *(folder / "cache" / "stages").glob("*"), *folder.rglob("*.lease")])
    return record


def table(records: Sequence[Record]) -> str:
    """The records as Markdown."""
    head = "| task | kills | inside of a kept loop | runs | seconds lost by a kill: median, largest | finished cells lost "
    lines = [head + "| values and files compared | different | left over |", "|" + " --- |" * 9]
    for r in records:
        lost = f"{statistics.median(r.lost):.1f}, {max(r.lost):.1f}"
        values = (r.task, len(r.lost), r.inside, r.runs, lost, r.cells, r.compared, r.differing, r.left)
        lines.append(f"| {' | '.join(map(str, values))} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Kill, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kills in all (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the times (default: 0)")
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between two states of a loop (default: 1)")
    options = parser.parse_args(words)
    records = []
    for place, task in enumerate(TASKS):
        share = options.kills // len(TASKS) + (place < options.kills % len(TASKS))
        with tempfile.TemporaryDirectory() as folder:
            records.append(break_runs(task, share, Path(folder), options.seed, every=options.every))
    print(table(records))
    sys.exit(any(record.differing or record.left or record.cells for record in records))


if __name__ == "__main__":
    main()
