"""How long 10,000 cells take on 1 to 1,000 workers: a simulation from measured costs.

The groups of a finished run, with the seconds that their base models, fits and tests took, are repeated with more seeds until
there are enough cells. They are divided by the code that divides them for a cluster (``runner/executors/parts.py``), and are
given to workers by its rules: the first worker of a seed trains the base, and the others of that seed wait until it has
arrived. The first machine handles what arrives one thing at a time; how long a cell takes there is measured now, on this
machine. Start of a worker and loading of samples are parameters.

``python benchmarks/many_machines.py [RUN] [--cells 10000] [--workers 1,10,100,1000]`` prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocd_bench.plugin.manager import load_plugins
from ocd_bench.results import read_run
from ocd_bench.runner.cells import Group
from ocd_bench.runner.executors.parts import parts_of
from ocd_bench.runner.messages import Decoder, Message, encode
from ocd_bench.runner.store import RunFolder

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Costs:
    """Seconds of the pieces of a group.

    Attributes:
        base: training of the base model.
        fits: by family of methods that share fits (a section of settings).
        tests: by method, of all its cells.
        cells: by method, their number.
    """

    base: float
    fits: Mapping[str, float]
    tests: Mapping[str, float]
    cells: Mapping[str, int]

    def seconds(self, methods: Sequence[str], family: Mapping[str, str]) -> float:
        """A part of the group, without the base."""
        return sum(self.fits[name] for name in {family[m] for m in methods}) + sum(self.tests[m] for m in methods)


def measured_costs(path: Path, family: Mapping[str, str]) -> dict[tuple[str, str], Costs]:
    """Costs by task and dataset, of the first seed. A dataset and its corruptions are one group.

    ``fit_s`` of a method includes the seconds of a fit that it shares. So what a family fits is at least its longest ``fit_s``,
    and at most the sum. It is taken to be the longest, and for methods without a section, which share nothing, the sum.
    """
    cells: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    run = read_run(path)
    first = min(key.seed for key in run.cells)
    for key, cell in run.cells.items():
        if cell["status"] == "ok" and key.seed == first:
            cells[key.task, key.dataset.partition("+")[0]].append(cell)
    return {place: _costs(found, family) for place, found in cells.items()}


def _costs(cells: Sequence[Mapping[str, Any]], family: Mapping[str, str]) -> Costs:
    fits: dict[str, dict[str, float]] = defaultdict(dict)
    tests: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for cell in cells:
        method, cost = cell["method"], cell["cost"]
        fits[family[method]][method] = cost["fit_s"]
        tests[method] += cost["adapt_s"]
        count[method] += 1
    shared = {name: max(own.values()) if name else sum(own.values()) for name, own in fits.items()}
    return Costs(max(cell["cost"].get("base_fit_s", 0.0) for cell in cells), shared, tests, count)


def driver_seconds(path: Path, count: int = 60) -> float:
    """Seconds that the first machine needs for a cell, to decode it and write it with its scores to a disk; the median."""
    run = read_run(path)
    keys = [key for key in run.cells if key in run.sources][:count]
    sent = [
        encode(Message("cell", {"cell": dict(run.cells[key]), "reused": False}, {"scores": run.sources[key].read_bytes()}))
        for key in keys
    ]
    with tempfile.TemporaryDirectory() as place:
        folder, decoder = RunFolder(Path(place)), Decoder()
        seconds = []
        for data in sent:
            start = time.perf_counter()
            decoder.feed(data)
            for message in decoder.messages():
                folder.write_cell(message.values["cell"], message.blobs["scores"])
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@dataclass(frozen=True)
class Outcome:
    """A simulated run.

    Attributes:
        makespan: seconds from start to end.
        driver: share of the time that the first machine is busy.
        work: seconds of work of all workers, and that of them which is start and loading.
    """

    makespan: float
    driver: float
    work: float
    overhead: float


def simulate(
    parts: Sequence[Group],
    costs: Mapping[tuple[str, str], Costs],
    family: Mapping[str, str],
    workers: int,
    start: float,
    load: float,
    handle: float,
) -> Outcome:
    """Give the parts to workers, first come first served.

    Args:
        start: seconds until a new worker's interpreter is ready; once for each worker.
        load: seconds that each part loads samples and checks the task.
        handle: seconds that the first machine needs for a cell, or to send an order.
    """
    waiting = list(parts)
    free = list(range(workers))
    started: set[int] = set()
    events: list[tuple[float, int, str, Any]] = []
    number = itertools.count()
    busy: dict[tuple[str, str, int], int] = defaultdict(int)
    based: set[tuple[str, str, int]] = set()
    now = driver_free = driver_busy = work = overhead = 0.0

    def at_driver(moment: float, things: int) -> float:
        nonlocal driver_free, driver_busy
        driver_free = max(driver_free, moment) + things * handle
        driver_busy += things * handle
        return driver_free

    while waiting or events:
        held: list[Group] = []
        for part in waiting:
            place = (part.task, part.dataset, part.seed)
            if not free or (place not in based and busy[place]):
                held.append(part)
                continue
            worker = free.pop()
            busy[place] += 1
            cost = costs[part.task, part.dataset]
            extra = load + (0.0 if worker in started else start)
            started.add(worker)
            ready = at_driver(now, 1) + extra
            if place not in based:
                ready += cost.base
                work += cost.base
                heapq.heappush(events, (ready, next(number), "base", place))
            own = cost.seconds(part.methods, family)
            work, overhead = work + own + extra, overhead + extra
            heapq.heappush(events, (ready + own, next(number), "end", (part, worker)))
        waiting = held
        now, _, what, about = heapq.heappop(events)
        if what == "base":
            now = max(now, at_driver(now, 1))
            based.add(about)
        else:
            part, worker = about
            cells = sum(costs[part.task, part.dataset].cells[name] for name in part.methods)
            at_driver(now, cells)
            busy[part.task, part.dataset, part.seed] -= 1
            free.append(worker)
    makespan = max(now, driver_free)
    return Outcome(makespan, driver_busy / makespan, work, overhead)


def lower_bound(
    groups: Sequence[Group], costs: Mapping[tuple[str, str], Costs], family: Mapping[str, str], workers: int, handle: float
) -> tuple[float, str]:
    """What no schedule can beat, and why: all work spread evenly; the longest chain of a base and a fit; the first machine."""
    work = chain = cells = 0.0
    for group in groups:
        cost = costs[group.task, group.dataset]
        work += cost.base + cost.seconds(group.methods, family)
        families = {family[name] for name in group.methods}
        longest = max(cost.fits[name] + min(cost.tests[m] for m in group.methods if family[m] == name) for name in families)
        chain = max(chain, cost.base + longest)
        cells += sum(cost.cells.values())
    bounds = {"the work": work / workers, "base, then fit": chain, "the first machine": cells * handle}
    reason = max(bounds, key=lambda name: bounds[name])
    return bounds[reason], reason


class Declared:
    """Tasks and methods of the simulated groups, as ``parts_of`` asks for them. No task draws figures."""

    def __init__(self, manager: Any) -> None:
        from ocd_bench.task import Task

        self._task, self.method = Task(), manager.method

    def task(self, name: str) -> Any:
        """Any task."""
        return self._task


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=ROOT / "results" / "quick", help="a finished run folder")
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--workers", default="1,10,100,1000")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all measured costs, as for a larger preset")
    parser.add_argument("--start", type=float, default=5.0, help="seconds until a worker's interpreter is ready")
    parser.add_argument("--load", type=float, default=1.5, help="seconds that each part loads samples and checks the task")
    parser.add_argument("--handle", type=float, help="seconds that the first machine needs for a cell (default: measured now)")
    args = parser.parse_args()

    manager = load_plugins()
    family = {name: method.section or "" for name, method in manager.methods.items()}
    costs = {place: _scaled(cost, args.scale) for place, cost in measured_costs(args.run, family).items()}
    per_seed = sum(sum(cost.cells.values()) for cost in costs.values())
    seeds = -(-args.cells // per_seed)
    groups = [Group(*place, seed, tuple(cost.cells)) for place, cost in costs.items() for seed in range(seeds)]
    handle = args.handle or driver_seconds(args.run)
    print(f"{per_seed * seeds:,} cells in {len(groups):,} groups; the first machine needs {handle * 1e3:.1f} ms a cell.\n")
    print("| workers | lower bound | set by | whole groups | divided groups | of it start and loading | first machine busy |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for workers in map(int, args.workers.split(",")):
        bound, reason = lower_bound(groups, costs, family, workers, handle)
        given = (costs, family, workers, args.start, args.load, handle)
        whole = simulate(groups, *given)
        divided = simulate(parts_of(groups, Declared(manager), workers), *given)
        print(
            f"| {workers:,} | {bound:,.0f} s | {reason} | {whole.makespan:,.0f} s | {divided.makespan:,.0f} s "
            f"| {divided.overhead / divided.work:.0%} | {divided.driver:.0%} |"
        )


def _scaled(cost: Costs, factor: float) -> Costs:
    fits = {name: seconds * factor for name, seconds in cost.fits.items()}
    tests = {name: seconds * factor for name, seconds in cost.tests.items()}
    return Costs(cost.base * factor, fits, tests, cost.cells)


if __name__ == "__main__":
    main()
