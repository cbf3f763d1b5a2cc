"""Which rows of two runs can be compared, in which design, and why others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ocd_bench.report.numbers import seeds_text
from ocd_bench.report.table import BASE
from ocd_bench.results import Key, Run, config_differences, primary_of

SHOWN = 4
ANEW = "base-anew"
"""The base that a run with stored bases trained itself. It is compared with the base row of a run that trained all bases."""


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
    """A row in the two runs. If a run does not have the row, its side has no cells.

    Attributes:
        problem: why the two are not the same experiment; empty if they are, or if one of them has no number.
        settings: the settings that differ and are compared across, each as ``section.key 3 and 5``.
    """

    name: RowName
    baseline: Side
    candidate: Side
    problem: str = ""
    settings: tuple[str, ...] = ()

    @property
    def common(self) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
        """The cells of the seeds that both runs have."""
        shared = set(self.baseline.seeds) & set(self.candidate.seeds)
        old, new = (tuple(key for key in side.ok if key.seed in shared) for side in (self.baseline, self.candidate))
        return old, new

    def design(self, baseline: Run, candidate: Run) -> tuple[str, tuple[Key, ...], tuple[Key, ...]]:
        """The design (see :mod:`ocd_bench.comparison.evidence`), and the cells of each run that are compared."""
        old, new = self.common
        if not old:
            return "other seeds", self.baseline.ok, self.candidate.ok
        return ("same base" if self.has_same_base(baseline, candidate) else "same seeds"), old, new

    def has_same_base(self, baseline: Run, candidate: Run) -> bool:
        """Whether the base models of all common seeds are bit-identical."""
        old, new = self.common
        for one, two in zip(old, new, strict=True):
            base = baseline.cells[one]["fingerprint"].get("base")
            if base is None or base != candidate.cells[two]["fingerprint"].get("base"):
                return False
        return bool(old)


def pair_rows(baseline: Run, candidate: Run, across_settings: bool = False) -> list[Pair]:
    """Every row of either run, the baseline's first.

    Args:
        across_settings: whether rows with different settings are compared.
    """
    names = list(dict.fromkeys(RowName(*key[:3]) for run in (baseline, candidate) for key in run.cells))
    both = [{RowName(*key[:3]) for key in run.cells} for run in (baseline, candidate)]
    pairs = []
    for name in names:
        partner = name
        if name.method == ANEW and not (name in both[0] and name in both[1]):
            partner = RowName(name.task, name.dataset, BASE)
        old, new = (_side(run, name if name in has else partner) for run, has in zip((baseline, candidate), both, strict=True))
        pairs.append(_checked(Pair(name, old, new), baseline, candidate, across_settings))
    return pairs


def _side(run: Run, name: RowName) -> Side:
    keys = [key for key in run.cells if key[:3] == name]
    return Side(
        tuple(key for key in keys if run.cells[key]["status"] == "ok"),
        tuple(key for key in keys if run.cells[key]["status"] != "ok"),
    )


def _checked(pair: Pair, baseline: Run, candidate: Run, across_settings: bool) -> Pair:
    """The pair with what makes it another experiment in the two runs."""
    if not pair.baseline.ok or not pair.candidate.ok:
        return pair
    old = [baseline.cells[key] for key in pair.baseline.ok]
    new = [candidate.cells[key] for key in pair.candidate.ok]
    settings: tuple[str, ...] = ()
    if _prints(old, "config") != _prints(new, "config"):
        settings = _which(pair.name.task, baseline, candidate)
        if not across_settings:
            more = f" and {len(settings) - SHOWN} more" if len(settings) > SHOWN else ""
            return _with(pair, f"settings differ: {', '.join(settings[:SHOWN])}{more}")
    problem = _other_data(pair, old, new) or _other_metric(old, new)
    return _with(pair, problem, settings)


def _with(pair: Pair, problem: str, settings: tuple[str, ...] = ()) -> Pair:
    return Pair(pair.name, pair.baseline, pair.candidate, problem, settings)


def _other_data(pair: Pair, old: Sequence[Any], new: Sequence[Any]) -> str:
    by_seed = dict(zip(pair.baseline.seeds, old, strict=True))
    for seed, cell in zip(pair.candidate.seeds, new, strict=True):
        if seed in by_seed:
            before = by_seed[seed]
            if before["n_test"] != cell["n_test"]:
                return f"data differ: {before['n_test']} and {cell['n_test']} test samples ({seeds_text([seed])})"
            if before["fingerprint"].get("data") != cell["fingerprint"].get("data"):
                return f"data differ ({seeds_text([seed])})"
    disjoint = not set(pair.baseline.seeds) & set(pair.candidate.seeds)
    both = (_prints(old, "data"), _prints(new, "data"))
    if disjoint and all(len(prints) == 1 for prints in both) and both[0] != both[1]:
        # Each seed may have its own data. Several seeds with equal data share one data set.
        if len(old) > 1 and len(new) > 1:
            return "data differ"
        if old[0]["n_test"] != new[0]["n_test"]:
            return f"data differ: {old[0]['n_test']} and {new[0]['n_test']} test samples"
    return ""


def _other_metric(old: Sequence[Any], new: Sequence[Any]) -> str:
    primaries = sorted({primary_of(cell) for cell in (*old, *new)})
    if len(primaries) > 1:
        return f"the primary metric is {' and '.join(primaries)}"
    for name, metric in old[0]["metrics"].items():
        for what in ("unit", "higher_is_better", "reduce"):
            if name in new[0]["metrics"] and metric.get(what) != new[0]["metrics"][name].get(what):
                return f"{what} of {name} differs"
    return ""


def _prints(cells: Sequence[Any], what: str) -> set[Any]:
    return {cell["fingerprint"].get(what) for cell in cells}


def _which(task: str, baseline: Run, candidate: Run) -> tuple[str, ...]:
    """The settings that differ, from run.json."""
    presets = baseline.info.get("preset"), candidate.info.get("preset")
    first = (f"preset {presets[0]} and {presets[1]}",) if presets[0] != presets[1] else ()
    configs = [run.info.get("tasks", {}).get(task, {}).get("config", {}) for run in (baseline, candidate)]
    return (*first, *config_differences(configs[0], configs[1], common=True)) or ("run.json does not say which",)
