"""The evidence that a row's number changed between two runs. There are three designs, by what the runs have in common.

**Same base** (data, seeds and base models are the same): only fits and rounding differ. Test samples are paired within each
seed. A permutation test (:func:`ocd_bench.stats.swap_test`) swaps each sample between the runs in all seeds at once. It takes
every changed answer for a draw of its own. But a fit with other random numbers, or other rounding, may move many answers of one
seed the same way. So the loss must also be significant when the variance is multiplied by how much the seeds' changes vary,
compared with what single answers explain (``lean.py``).

**Same seeds** (data and seeds are the same, base models differ): one part of the variance is over seeds, the other over test
samples. Samples are paired. If each seed has data of its own, seeds are paired too, because the data are then most of what two
runs of a seed have in common. If all seeds have the same data, two trainings of one seed have no more in common than those of
two seeds. The part over seeds is then pooled over both runs, which has more degrees of freedom.

**Other seeds**: seeds are random on both sides. The part over seeds is pooled over both runs.

In the last two, the part over seeds is moderated by the other rows (``spread.py``), and the margin is Banerjee's
(:func:`ocd_bench.stats.two_part_p`). The change that is printed, its interval and its p are always of one quantity: candidate
minus baseline, means over the seeds that are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ocd_bench.comparison.lean import Lean, lean_of, leaning
from ocd_bench.comparison.pairing import Pair
from ocd_bench.comparison.sides import Numbers, common_groups, is_identical, numbers, sample_part
from ocd_bench.comparison.spread import Spread, moderate
from ocd_bench.results import Run, parts_of
from ocd_bench.stats import (
    LEVEL,
    Ids,
    pooled_variance,
    same_groups,
    sample_variance,
    student_p,
    swap_test,
    two_part_margin,
    two_part_p,
)

SAME_BASE, SAME_SEEDS, OTHER_SEEDS, NONE = "same base", "same seeds", "other seeds", "none"
REFIT_LEVEL = 0.02
"""Level, over all rows, of the second test of the design *same base*."""
Parts = tuple[tuple[float, float], ...]
"""Independent parts of a variance, with their degrees of freedom."""


@dataclass(frozen=True)
class Evidence:
    """The change of one row and metric, its interval and its p.

    Attributes:
        change: candidate minus baseline, means over the seeds that are compared.
        seeds: these seeds: of the baseline, and of the candidate.
        low, high: 95 % interval of ``change``; None where no variance can be estimated.
        p: one-sided, of a change this large in this direction; None where the row cannot be tested.
        p_refit: one-sided p of the second test of the design *same base*; None in others, and with one seed.
        least: the smallest p that the row could have; 1 if it cannot be significant.
        design: ``same base``, ``same seeds``, ``other seeds`` or ``none``.
        identical: whether every score is the same.
        base_differs: whether the base models of the common seeds differ.
        reason: why there is no test.
        parts: variance and degrees of freedom, for ``p``.
        refit: the same for ``p_refit``.
    """

    change: float
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_refit: float | None = None
    least: float = 0.0
    design: str = NONE
    identical: bool = False
    base_differs: bool = False
    reason: str = ""
    parts: Parts = field(default=(), repr=False)
    refit: Parts = field(default=(), repr=False)
    spread: Spread | None = field(default=None, repr=False)
    lean: Lean | None = field(default=None, repr=False)

    def seen_from(self, level: float, refit_level: float) -> float | None:
        """The smallest loss that would be significant at these one-sided levels; None if no loss would."""
        if not self.parts:
            return None
        found = two_part_margin(self.parts, 1 - 2 * level)
        return max(found, two_part_margin(self.refit, 1 - 2 * refit_level)) if self.refit else found


def weigh(pair: Pair, baseline: Run, candidate: Run, metric: str) -> Evidence:
    """The evidence on one row that both runs have numbers for, before :func:`steady`.

    Raises:
        UsageError: if a score archive is damaged.
    """
    design, one, two = pair.design(baseline, candidate)
    old, new = numbers(baseline, one, metric), numbers(candidate, two, metric)
    change = float(new.values.mean() - old.values.mean())
    found = Evidence(change, (old.seeds, new.seeds), design=design, base_differs=design == SAME_SEEDS)
    if design != OTHER_SEEDS and is_identical(old, new):
        return replace(found, low=0.0, high=0.0, p=1.0, least=1.0, identical=True)
    if problem := old.problem or new.problem:
        return replace(found, design=NONE, reason=problem)
    if design == SAME_BASE and old.pulls and new.pulls:
        return _same_base(found, old, new)
    per_seed = len({baseline.cells[key]["fingerprint"].get("data") for key in one}) > 1
    return _random_seeds(pair, found, old, new, per_seed)


def steady(found: Sequence[Evidence]) -> list[Evidence]:
    """The evidence of all rows, with what they tell about each other's variation over seeds."""
    moderated = iter(moderate([evidence.spread for evidence in found if evidence.spread is not None]))
    leans = iter(leaning([evidence.lean for evidence in found if evidence.lean is not None]))
    result = []
    for evidence in found:
        if evidence.spread is not None:
            ratio, freedom = next(moderated)
            samples = evidence.parts[1]
            result.append(_settled(evidence, ((ratio * samples[0], freedom), samples)))
        elif evidence.lean is not None:
            factor, freedom = next(leans)
            refit = ((factor * evidence.parts[0][0], freedom),)
            p_refit = student_p(evidence.change, *refit[0]) / 2
            margin = max(two_part_margin(evidence.parts), two_part_margin(refit))
            low, high = evidence.change - margin, evidence.change + margin
            result.append(replace(evidence, refit=refit, p_refit=p_refit, low=low, high=high))
        else:
            result.append(evidence)
    return result


def _settled(evidence: Evidence, parts: Parts) -> Evidence:
    """With interval and p from the parts of the variance."""
    margin = two_part_margin(parts, LEVEL)
    p = two_part_p(evidence.change, parts) / 2
    return replace(evidence, parts=parts, low=evidence.change - margin, high=evidence.change + margin, p=p)


def _same_base(found: Evidence, old: Numbers, new: Numbers) -> Evidence:
    pulls = [two - one for one, two in zip(old.pulls or (), new.pulls or (), strict=True)]
    groups = common_groups(old, new)
    part = sample_variance(pulls, groups)
    settled = _settled(found, (part,))
    if old.size is not None and old.size == new.size and same_groups(groups):
        one, two = np.stack(old.scores or []), np.stack(new.scores or [])
        p = swap_test(one, two, old.reduce, groups=groups[0])
        settled = replace(settled, p=p / 2, least=_least((one != two).any(axis=0), groups[0]))
    return replace(settled, lean=lean_of(new.values - old.values, pulls, groups) if len(pulls) > 1 else None)


def _least(changed: NDArray[np.bool_], groups: Ids | None) -> float:
    """The smallest one-sided p of a permutation test: all changed samples, or their groups, got worse."""
    if groups is None:
        return 0.5 ** int(changed.sum())
    ids = groups.reshape(len(changed), -1)
    return 0.5 ** len(np.unique(ids[changed])) if ids.shape[1] == 1 else 0.0


def _random_seeds(pair: Pair, found: Evidence, old: Numbers, new: Numbers, per_seed: bool) -> Evidence:
    """Evidence where base models differ.

    Args:
        per_seed: whether each seed has data of its own.
    """
    if old.seeds == new.seeds and len(old.values) < 2:
        return replace(found, design=NONE, reason="one seed, whose base models differ")
    if len(old.values) + len(new.values) < 3:
        return replace(found, design=NONE, reason="one seed in each run, and not the same")
    if old.seeds == new.seeds and per_seed:
        changes = new.values - old.values
        variance, freedom = float(changes.var(ddof=1)) / len(changes), len(changes) - 1
        residuals = {(0, seed): value for seed, value in zip(old.seeds, changes - changes.mean(), strict=True)}
    else:
        variance, freedom = pooled_variance(old.values.tolist(), new.values.tolist())
        sides = ((0, old), (1, new))
        residuals = {(n, s): v - side.values.mean() for n, side in sides for s, v in zip(side.seeds, side.values, strict=True)}
    samples = sample_part(old, new)
    if samples is None:
        if variance <= 0:
            return replace(found, design=NONE, reason="no spread over seeds, and no per-sample scores")
        return _settled(found, ((variance, freedom),))
    if samples[0] <= 0:
        return _settled(found, ((variance, freedom), samples))
    scale = samples[0]
    group = (pair.name.task, parts_of(pair.name.dataset)[0])  # variants of a test set share base models and fits
    scaled = {name: float(value) / float(np.sqrt(scale)) for name, value in residuals.items()}
    spread = Spread(group, variance / scale, freedom, scaled)
    return replace(found, parts=((variance, freedom), samples), spread=spread)
