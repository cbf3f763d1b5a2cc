"""Which rows of two runs can be compared, and why others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ocd_bench.errors import UsageError
from ocd_bench.report.numbers import seeds_text
from ocd_bench.results import Key, Run, config_differences, primary_of

SHOWN = 4


class RowName(NamedTuple):
    """The name of a row of the table, shared by all of its seeds."""

    task: str
    dataset: str
    method: str


@dataclass(frozen=True)
class Side:
    """The cells of a row in one run, by status. ``ok``: keys of cells with numbers, by ascending seed."""

    ok: tuple[Key, ...]
    other: tuple[Key, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with numbers."""
        return tuple(key.seed for key in self.ok)


@dataclass(frozen=True)
class Pair:
    """A row in the two runs. If a run does not have the row, its side has no cells."""

    name: RowName
    baseline: Side
    candidate: Side


def pair_rows(baseline: Run, candidate: Run) -> list[Pair]:
    """Every row of either run, the baseline's first. Each is checked to be the same experiment in both runs.

    Raises:
        UsageError: if the configuration, the data or the primary metric of a row differ; the message names them.
    """
    names = dict.fromkeys(RowName(key.task, key.dataset, key.method) for run in (baseline, candidate) for key in run.cells)
    pairs = [Pair(name, _side(baseline, name), _side(candidate, name)) for name in names]
    problems = [problem for pair in pairs if (problem := _difference(pair, baseline, candidate))]
    if problems:
        more = f"; and {len(problems) - SHOWN} more rows" if len(problems) > SHOWN else ""
        raise UsageError(f"{baseline.name} and {candidate.name} cannot be compared: {'; '.join(problems[:SHOWN])}{more}")
    return pairs


def _side(run: Run, name: RowName) -> Side:
    keys = [key for key in run.cells if key[:3] == name]
    return Side(
        tuple(key for key in keys if run.cells[key]["status"] == "ok"),
        tuple(key for key in keys if run.cells[key]["status"] != "ok"),
    )


def _difference(pair: Pair, baseline: Run, candidate: Run) -> str | None:
    """Why the row is not the same experiment in both runs; None if it is, or if one of them has no number."""
    if not pair.baseline.ok or not pair.candidate.ok:
        return None
    label = " ".join(pair.name)
    old = [baseline.cells[key] for key in pair.baseline.ok]
    new = [candidate.cells[key] for key in pair.candidate.ok]
    if _prints(old, "config") != _prints(new, "config"):
        return f"{label}: configuration differs{_which(pair.name.task, baseline, candidate)}"
    by_seed = {key.seed: cell["fingerprint"].get("data") for key, cell in zip(pair.baseline.ok, old, strict=True)}
    for key, cell in zip(pair.candidate.ok, new, strict=True):
        if key.seed in by_seed and by_seed[key.seed] != cell["fingerprint"].get("data"):
            return f"{label}: data differ ({seeds_text([key.seed])})"
    disjoint = not set(pair.baseline.seeds) & set(pair.candidate.seeds)
    both = (_prints(old, "data"), _prints(new, "data"))
    if disjoint and all(len(prints) == 1 for prints in both) and both[0] != both[1]:
        # Each seed may have its own data. Several seeds with equal data share one data set.
        if len(old) > 1 and len(new) > 1:
            return f"{label}: data differ"
        if old[0]["n_test"] != new[0]["n_test"]:
            return f"{label}: data differ ({old[0]['n_test']} and {new[0]['n_test']} test samples)"
    primaries = sorted({primary_of(cell) for cell in (*old, *new)})
    if len(primaries) > 1:
        return f"{label}: the primary metric is {' and '.join(primaries)}"
    for name, metric in old[0]["metrics"].items():
        for what in ("unit", "higher_is_better", "reduce"):
            if name in new[0]["metrics"] and metric.get(what) != new[0]["metrics"][name].get(what):
                return f"{label}: {what} of {name} differs"
    return None


def _prints(cells: Sequence[Any], what: str) -> set[Any]:
    return {cell["fingerprint"].get(what) for cell in cells}


def _which(task: str, baseline: Run, candidate: Run) -> str:
    """The settings that differ, from run.json."""
    if baseline.info.get("preset") != candidate.info.get("preset"):
        return f" (preset {baseline.info.get('preset')} and {candidate.info.get('preset')})"
    configs = [run.info.get("tasks", {}).get(task, {}).get("config", {}) for run in (baseline, candidate)]
    found = config_differences(configs[0], configs[1], common=True)
    if not found:
        return ""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f" ({', '.join(found[:SHOWN])}{more})"
