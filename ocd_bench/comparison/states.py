"""Rows before any test: those that have no number on one side, and the numbers, costs and missing seeds of the others."""

from __future__ import annotations

from dataclasses import replace

from ocd_bench.comparison.pairing import Pair, Side
from ocd_bench.comparison.verdicts import RowResult, Summary
from ocd_bench.report.numbers import seeds_text
from ocd_bench.results import Key, Run
from ocd_bench.shapes import STATUSES
from ocd_bench.stats import mean_sd

ADVISORY = {"fit_s": 0.5, "adapt_s": 0.5, "peak_memory_mb": 50.0}
"""Costs whose ratio is reported, with the smallest difference for which it is: less is chance."""
SAME_MACHINE = ("device", "cpu", "threads", "torch")


def state(pair: Pair, baseline: Run, candidate: Run) -> RowResult | None:
    """The result of a row that cannot be compared: it has a number in one run at most, or is another experiment. None for any
    other row."""
    empty = RowResult(pair.name)
    if pair.problem:
        return replace(empty, verdict="incomparable", note=pair.problem)
    if pair.baseline.ok and pair.candidate.ok:
        return None
    if pair.candidate.other and pair.baseline.ok:
        return replace(empty, verdict="broken", note=why(candidate, pair.candidate.other[0]))
    if pair.candidate.ok and pair.baseline.other:
        return replace(empty, verdict="repaired", note=f"in the baseline {why(baseline, pair.baseline.other[0])}")
    if pair.baseline.ok:
        return replace(empty, verdict="vanished", note="not in the candidate")
    if pair.candidate.ok:
        return replace(empty, verdict="new", note="not in the baseline")
    side, run = (pair.candidate, candidate) if pair.candidate.other else (pair.baseline, baseline)
    return replace(empty, note=why(run, side.other[0]))


def why(run: Run, key: Key) -> str:
    """Status and reason of a cell without a number."""
    cell = run.cells[key]
    return f"{STATUSES[cell['status']]}: {cell.get('reason')}"


def lost_seeds(pair: Pair, candidate: Run) -> tuple[list[str], bool]:
    """Lines about seeds of the baseline without a number in the candidate, and whether they are merely absent.

    Runs without a common seed are meant to be compared over other seeds: then none is missing.
    """
    if not pair.common[0]:
        return [], False
    failed = [key for key in pair.candidate.other if key.seed in pair.baseline.seeds]
    has = {key.seed for key in (*pair.candidate.ok, *failed)}
    absent = [seed for seed in pair.baseline.seeds if seed not in has]
    lines = [f"{seeds_text([key.seed])} {why(candidate, key)}" for key in failed]
    if absent:
        lines.append(f"{seeds_text(absent)} missing in the candidate")
    return lines, bool(absent) and not failed


def summary(run: Run, side: Side, seeds: tuple[int, ...], metric: str) -> Summary:
    """Mean and SD over the seeds that are compared."""
    keys = [key for key in side.ok if key.seed in seeds]
    mean, sd = mean_sd([run.cells[key]["metrics"][metric]["value"] for key in keys])
    return Summary(mean, sd, seeds, run.cells[keys[0]]["n_test"])


def cost_ratio(pair: Pair, baseline: Run, candidate: Run) -> tuple[tuple[str, float], ...]:
    """Candidate's cost over the baseline's, where both were measured on the same machine with as many threads."""
    machines = [run.info.get("environment", {}) for run in (baseline, candidate)]
    if "environments" in baseline.info or "environments" in candidate.info:
        return ()
    if any(machines[0].get(what) is None or machines[0].get(what) != machines[1].get(what) for what in SAME_MACHINE):
        return ()
    ratios = []
    for name, least in ADVISORY.items():
        old, new = (
            [run.cells[key]["cost"][name] for key in side.ok if run.cells[key]["cost"].get(name)]
            for run, side in ((baseline, pair.baseline), (candidate, pair.candidate))
        )
        if old and new:
            means = sum(old) / len(old), sum(new) / len(new)
            if abs(means[1] - means[0]) >= least:
                ratios.append((name, means[1] / means[0]))
    return tuple(ratios)
