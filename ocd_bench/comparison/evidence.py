"""The evidence that a row's number changed between two runs. There are two designs.

**Same seeds on the same machine.** Seeds, data, configuration, base models, CPU, threads and torch are the same, so only the
code differs. Samples are paired within each seed. A permutation test over test samples (:func:`ocd_bench.stats.swap_test`)
swaps each sample in all seeds at once.

A harmless change of code may still change the random numbers of a fit. So with two seeds or more, the change must also exceed
the effect of refitting, which is estimated from the spread over seeds. This is a second p-value, with Holm's adjustment over
the rows whose scores differ. A row with bit-identical scores had the same fit, and does not count in this adjustment. So if
only one row got worse, it is tested at the full level; if every fit changed, rows are tested at the level of the table.

**Anything else** (other seeds, a base model trained elsewhere, a GPU, whose sums have no fixed order). Seeds are random on
both sides. A test that only paired samples would report every difference between two seeds as a change of code. The variance
of the change has two parts. The part over seeds is pooled over both runs and moderated by the other rows (``spread.py``); the
other part is over test samples. The margin is Banerjee's (:func:`ocd_bench.stats.two_part_p`).

A seed affects a method and its base in much the same way. So the base's own change, times a slope fitted over test samples,
is subtracted first. This is a control variate: its mean is zero if nothing changed, so the level of the test is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ocd_bench.comparison.pairing import Pair
from ocd_bench.comparison.spread import Spread, moderate
from ocd_bench.report.table import BASE
from ocd_bench.results import Key, Run, parts_of
from ocd_bench.stats import (
    Array,
    Dependence,
    Ids,
    dependence,
    influence,
    pooled_variance,
    same_groups,
    sample_variance,
    swap_test,
    two_part_margin,
    two_part_p,
)

SAME_MACHINE = ("device", "cpu", "threads", "torch")
SAME_SEEDS = "same seeds"


@dataclass(frozen=True)
class Evidence:
    """The change of one row and metric, its interval and its p-values.

    Attributes:
        change: candidate minus baseline, means over seeds.
        adjusted: the change with the base's share taken out; equal to ``change`` for base itself and for paired seeds.
        low, high: 95 % interval of ``adjusted``; None where no variance can be estimated.
        p: two-sided; None where the row cannot be tested.
        design: ``same seeds``, ``seeds and samples``, ``seeds`` (no per-sample scores), or ``none``.
        p_refit: two-sided p of "the fits differ only in their random numbers". None if the scores are the same, with one seed,
            and in designs whose ``p`` includes the variance over seeds.
        reason: why there is no test.
        parts: variance and degrees of freedom of ``adjusted``, over seeds and over samples.
        spread: the row's variance over seeds, where other rows may moderate it.
    """

    change: float
    adjusted: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    design: str = "none"
    p_refit: float | None = None
    reason: str = ""
    parts: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    spread: Spread | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Side:
    """One run's numbers of one row.

    Attributes:
        values: one per seed.
        pulls: for each seed the influence of each test sample on the value, ``(N,)``; None without per-sample scores.
        groups: for each seed the groups of its test samples; None where the run has none.
    """

    seeds: tuple[int, ...]
    values: Array
    pulls: list[Array] | None
    groups: list[Ids | None]

    @property
    def sizes(self) -> set[int]:
        """Numbers of test samples."""
        return {len(pull) for pull in self.pulls or ()}

    @property
    def problem(self) -> str:
        """Why there is no test over its test samples; empty if there is one."""
        if not self.pulls:
            return ""
        return dependence([len(pull) for pull in self.pulls], self.groups)[0].problem

    def mean_pull(self) -> Array:
        """Mean over seeds, where all have equally many samples."""
        return np.mean(self.pulls or [], axis=0)

    def less(self, other: _Side, slope: float) -> _Side:
        """With ``slope`` times ``other``, of the same seeds, subtracted."""
        pulls = [one - slope * two for one, two in zip(self.pulls or (), other.pulls or (), strict=True)]
        return _Side(self.seeds, self.values - slope * other.values, pulls, self.groups)


def weigh(pair: Pair, base: Pair | None, baseline: Run, candidate: Run, metric: str) -> Evidence:
    """The evidence on one row that both runs have numbers for, before :func:`steady`.

    Args:
        base: the pair of the base row of the same task and dataset.
    """
    old, new = _side(baseline, pair.baseline.ok, metric), _side(candidate, pair.candidate.ok, metric)
    change = float(new.values.mean() - old.values.mean())
    problem = old.problem or new.problem
    if problem:
        return Evidence(change, change, reason=problem)
    bases = _bases(pair, base, baseline, candidate, metric)
    if old.pulls and new.pulls and _same_seeds(pair, baseline, candidate):
        return _paired(pair, baseline, candidate, metric, bases)
    if len(old.values) + len(new.values) < 3:
        return Evidence(change, change, reason="one seed in each run, which are not comparable sample by sample")
    slope = _slope(old, new, *bases) if bases else 0.0
    if bases and slope:
        old, new = old.less(bases[0], slope), new.less(bases[1], slope)
    adjusted = float(new.values.mean() - old.values.mean())
    variance, freedom = pooled_variance(old.values.tolist(), new.values.tolist())
    samples = _sample_part(old, new)
    if samples is None or samples[0] <= 0:
        if samples is None and variance <= 0 and adjusted != 0:
            return Evidence(change, adjusted, reason="no spread over seeds, and no per-sample scores")
        known = ((variance, float(freedom)),) if samples is None else ((variance, float(freedom)), samples)
        return settle(Evidence(change, adjusted, design="seeds" if samples is None else "seeds and samples", parts=known))
    parts = ((variance, freedom), samples)
    return Evidence(change, adjusted, design="seeds and samples", parts=parts, spread=_spread(pair, old, new, parts))


def _spread(pair: Pair, old: _Side, new: _Side, parts: tuple[tuple[float, float], tuple[float, float]]) -> Spread:
    """The row's variance over seeds, for :func:`moderate`. Corrupted variants of a dataset share its base models and fits."""
    (variance, freedom), (scale, _) = parts
    residuals = {
        (number, seed): float(value - side.values.mean()) / float(np.sqrt(scale))
        for number, side in enumerate((old, new))
        for seed, value in zip(side.seeds, side.values, strict=True)
    }
    return Spread((pair.name.task, parts_of(pair.name.dataset)[0]), variance / scale, int(freedom), residuals)


def settle(evidence: Evidence) -> Evidence:
    """The same evidence with interval and p computed from its parts."""
    margin = two_part_margin(evidence.parts)
    low, high = evidence.adjusted - margin, evidence.adjusted + margin
    return replace(evidence, low=low, high=high, p=two_part_p(evidence.adjusted, evidence.parts))


def steady(found: Sequence[Evidence]) -> list[Evidence]:
    """The evidence of all rows, with the variances over seeds moderated where a row has both parts."""
    spreads = [evidence.spread for evidence in found if evidence.spread is not None]
    moderated = iter(moderate(spreads))
    result = []
    for evidence in found:
        if evidence.spread is None:
            result.append(evidence)
            continue
        ratio, freedom = next(moderated)
        samples = evidence.parts[1]
        if evidence.design == SAME_SEEDS:
            # The variance is at least the part that comes from the seeds' differences on single samples.
            seeds = max(ratio, 1.0) * samples[0], freedom
            if evidence.p_refit is not None:
                evidence = replace(evidence, p_refit=min(evidence.p_refit, two_part_p(evidence.change, [seeds])))
            result.append(evidence)
        else:
            result.append(settle(replace(evidence, parts=((ratio * samples[0], freedom), samples))))
    return result


def _side(run: Run, keys: Sequence[Key], metric: str) -> _Side:
    entries = [run.cells[key]["metrics"][metric] for key in keys]
    values = np.array([entry["value"] for entry in entries], dtype=float)
    scores = [run.scores(key, metric) for key in keys]
    arrays = [array for array in scores if array is not None and len(array) > 1]
    reduce = entries[0].get("reduce", "mean")
    pulls = [influence(array, reduce) for array in arrays] if len(arrays) == len(keys) else None
    return _Side(tuple(key.seed for key in keys), values, pulls, [run.groups(key) for key in keys])


# -- the same seeds -----------------------------------------------------------------------------------------------------


def _same_seeds(pair: Pair, baseline: Run, candidate: Run) -> bool:
    """Whether one run's seeds include the other's, with the same data and base models, computed on the same kind of machine."""
    seeds = set(pair.baseline.seeds), set(pair.candidate.seeds)
    if not (seeds[0] <= seeds[1] or seeds[1] <= seeds[0]):
        return False
    machines = [run.info.get("environment", {}) for run in (baseline, candidate)]
    if "environments" in baseline.info or "environments" in candidate.info or machines[0].get("device") != "cpu":
        return False
    if any(machines[0].get(what) != machines[1].get(what) or machines[0].get(what) is None for what in SAME_MACHINE):
        return False
    new = {key.seed: candidate.cells[key] for key in pair.candidate.ok}
    for key in pair.baseline.ok:
        if key.seed in new:
            one, two = baseline.cells[key], new[key.seed]
            if one["n_test"] != two["n_test"]:
                return False
            for what in ("config", "data", "base"):
                fingerprint = one["fingerprint"].get(what)
                if fingerprint is None or fingerprint != two["fingerprint"].get(what):
                    return False
    return True


def _paired(pair: Pair, baseline: Run, candidate: Run, metric: str, bases: tuple[_Side, _Side] | None) -> Evidence:
    """Only the seeds that both runs have."""
    common = set(pair.baseline.seeds) & set(pair.candidate.seeds)
    keys = [key for key in pair.baseline.ok if key.seed in common]
    old, new = _side(baseline, keys, metric), _side(candidate, keys, metric)
    change = float(new.values.mean() - old.values.mean())
    pulls = [two - one for one, two in zip(old.pulls or (), new.pulls or (), strict=True)]
    groups = [one if one is not None else two for one, two in zip(old.groups, new.groups, strict=True)]  # the same data
    part = sample_variance(pulls, groups)
    if len(old.sizes) == 1 and same_groups(groups):
        scores = [np.stack([run.scores(key, metric) for key in keys]) for run in (baseline, candidate)]  # type: ignore[misc]
        reduce = baseline.cells[keys[0]]["metrics"][metric].get("reduce", "mean")
        p = swap_test(scores[0], scores[1], reduce, groups=groups[0])
    else:
        p = two_part_p(change, [part])
    margin = two_part_margin([part])
    found = Evidence(change, change, change - margin, change + margin, p, SAME_SEEDS)
    if len(keys) < 2 or not (change or any(pull.any() for pull in pulls)):
        return found
    # There are two estimates of the variance that refitting causes; it is enough that the change is significant under one
    # of them. The first is of the change itself over seeds: it is small if the change is similar in every seed. The second
    # is of the row's gain over the base, which both runs share, over seeds; steady() moderates it by the other rows.
    # Neither may be less than the part that comes from the seeds' differences on single samples, because two seeds may have
    # equal accuracies, or equal changes, by coincidence.
    p_refit = two_part_p(change, [_over_seeds(new.values - old.values, pulls, groups)])
    if bases is not None and bases[0].seeds == bases[1].seeds == old.seeds and _sizes(old, new, *bases) is not None:
        old, new = old.less(bases[0], 1.0), new.less(bases[0], 1.0)
    scale = _refitting(old, new, groups)
    if scale <= 0:
        return replace(found, p_refit=p_refit)
    parts = (pooled_variance(old.values.tolist(), new.values.tolist()), (scale, 1.0))
    return replace(found, p_refit=p_refit, parts=parts, spread=_spread(pair, old, new, parts))


def _over_seeds(changes: Array, pulls: Sequence[Array], groups: Sequence[Ids | None]) -> tuple[float, float]:
    """Variance over seeds of a mean change, and its degrees of freedom."""
    variance = float(changes.var(ddof=1)) / len(changes)
    if len({len(pull) for pull in pulls}) == 1:
        variance = max(variance, _own_variance(np.stack(pulls), groups[0]) / len(pulls))
    return variance, len(changes) - 1


def _refitting(old: _Side, new: _Side, groups: Sequence[Ids | None]) -> float:
    """The part of a change's variance that comes from the seeds' differences on single samples; 0 if the sizes differ."""
    if _sizes(old, new) is None:
        return 0.0
    stacks = [np.stack(side.pulls or []) for side in (old, new)]
    free = [len(stack) - 1 for stack in stacks]
    own = sum(_own_variance(stack, groups[0]) * one for stack, one in zip(stacks, free, strict=True)) / sum(free)
    return own * sum(1 / len(stack) for stack in stacks)


def _own_variance(pulls: Array, groups: Ids | None) -> float:
    """Variance over seeds of a mean over test samples, as far as it comes from samples on which the seeds differ.

    Args:
        pulls: ``(S, N)``.
    """
    seeds, n = pulls.shape
    if seeds < 2:
        return 0.0
    own = (pulls - pulls.mean(axis=0)) / n
    depends = Dependence(np.full(n, 1 / n), groups)
    return sum(depends.variance(row) for row in own) / (seeds - 1)


def _sizes(*sides: _Side) -> int | None:
    """The number of test samples, if it is the same everywhere; else None."""
    sizes = set().union(*(side.sizes for side in sides))
    return sizes.pop() if len(sizes) == 1 and all(side.pulls for side in sides) else None


# -- other seeds --------------------------------------------------------------------------------------------------------


def _bases(pair: Pair, base: Pair | None, baseline: Run, candidate: Run, metric: str) -> tuple[_Side, _Side] | None:
    """The base's numbers under exactly the row's seeds, in both runs; None if some are missing."""
    if base is None or pair.name.method == BASE:
        return None
    sides = []
    for run, mine, theirs in ((baseline, pair.baseline, base.baseline), (candidate, pair.candidate, base.candidate)):
        keys = [key for key in theirs.ok if key.seed in mine.seeds and metric in run.cells[key]["metrics"]]
        if tuple(key.seed for key in keys) != mine.seeds:
            return None
        sides.append(_side(run, keys, metric))
    return sides[0], sides[1]


def _slope(old: _Side, new: _Side, old_base: _Side, new_base: _Side) -> float:
    """Slope in [0, 1] of the row's per-sample changes on the base's; 0 without scores of one common size."""
    if _sizes(old, new, old_base, new_base) is None:
        return 0.0
    row, base = new.mean_pull() - old.mean_pull(), new_base.mean_pull() - old_base.mean_pull()
    spread = float((base**2).sum())
    return float(np.clip((row * base).sum() / spread, 0.0, 1.0)) if spread > 0 else 0.0


def _sample_part(old: _Side, new: _Side) -> tuple[float, float] | None:
    """Variance over test samples: of paired pulls where all test sets have one size, else each run's own.

    None without scores.
    """
    if old.pulls is None or new.pulls is None:
        return None
    known = next((one for one in (*old.groups, *new.groups) if one is not None), None)
    if _sizes(old, new) is not None and same_groups([known if one is None else one for one in (*old.groups, *new.groups)]):
        return sample_variance([new.mean_pull() - old.mean_pull()], [known])
    one, two = sample_variance(old.pulls, old.groups), sample_variance(new.pulls, new.groups)
    return one[0] + two[0], one[1] + two[1]
