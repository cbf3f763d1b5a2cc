"""How sure is it that a row's number changed? Two designs, by what the two runs have in common.

**Same seeds on the same machine.** Seeds, data, configuration, base models and what computes (CPU, threads, torch) are the
same: nothing but code differs, and samples are paired within each seed. Permutation test over test samples
(:func:`ocd_bench.stats.swap_test`), each sample swapped in all seeds at once. A harmless change of code may still redraw the
randomness of a fit, so the change must also stand out from the spread over seeds at 5 %, unadjusted, where there are seeds
enough to see one.

**Anything else** (other seeds, a base model trained elsewhere, a GPU, whose sums come in no fixed order): seeds are random on
both sides. A test that only paired samples would take every difference between two draws of a seed for a change of code. The
variance of the change is a part over seeds, pooled over both runs, plus a part over test samples, and the margin is
Banerjee's (:func:`ocd_bench.stats.two_part_p`). What seeds do to a method they largely do to the base beside it, so the
base's own change, times a slope fitted over test samples, is subtracted first: a control variate, which under "nothing
changed" has mean zero and leaves the level of the test as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocd_bench.compare.pairing import Pair
from ocd_bench.report.table import BASE
from ocd_bench.results import Key, Run
from ocd_bench.stats import Array, influence, pooled_variance, swap_test, two_part_margin, two_part_p

SAME_MACHINE = ("device", "cpu", "threads", "torch")
SPREAD_LEVEL = 0.05


@dataclass(frozen=True)
class Evidence:
    """What the samples and seeds say about one row and metric.

    Attributes:
        change: candidate minus baseline, means over seeds.
        adjusted: the change with the base's share taken out; equal to ``change`` for base itself and for paired seeds.
        low, high: 95 % interval of ``adjusted``; None where no variance can be estimated.
        p: two-sided; None where the row cannot be tested.
        design: ``same seeds``, ``seeds and samples``, ``seeds`` (no per-sample scores), or ``none``.
        stands_out: False if the change lies within what refitting under other seeds does.
        reason: why there is no test.
    """

    change: float
    adjusted: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    design: str = "none"
    stands_out: bool = True
    reason: str = ""


@dataclass(frozen=True)
class _Sample:
    """One side of one row: a value per seed, and per seed the pull of every test sample (None without scores)."""

    values: Array
    pulls: list[Array] | None
    scores: list[Array] | None


def weigh(pair: Pair, base: Pair | None, baseline: Run, candidate: Run, metric: str) -> Evidence:
    """The evidence on one row that both runs have numbers for.

    Args:
        base: the pair of the base row of the same task and dataset.
    """
    old, new = _sample(baseline, pair.baseline.ok, metric), _sample(candidate, pair.candidate.ok, metric)
    change = float(new.values.mean() - old.values.mean())
    if _same_seeds(pair, baseline, candidate) and old.scores and new.scores:
        return _paired(pair, baseline, candidate, metric)
    if len(old.values) + len(new.values) < 3:
        return Evidence(change, change, reason="one seed in each run, which are not comparable sample by sample")
    control = _control(pair, base, baseline, candidate, metric)
    slope = _slope(old, new, *control) if control else 0.0
    if control and slope:
        old, new = _minus(old, control[0], slope), _minus(new, control[1], slope)
    adjusted = float(new.values.mean() - old.values.mean())
    variance, freedom = pooled_variance(old.values.tolist(), new.values.tolist())
    parts: list[tuple[float, float]] = [(variance, freedom)]
    samples = _sample_parts(old, new)
    if not samples and variance <= 0:
        reason = "" if adjusted == 0 else "no per-sample scores, and no spread over seeds to judge by"
        return Evidence(change, adjusted, adjusted, adjusted, None if reason else 1.0, "seeds", reason=reason)
    parts += samples
    margin = two_part_margin(parts)
    design = "seeds and samples" if samples else "seeds"
    return Evidence(change, adjusted, adjusted - margin, adjusted + margin, two_part_p(adjusted, parts), design)


def _sample(run: Run, keys: Sequence[Key], metric: str) -> _Sample:
    entries = [run.cells[key]["metrics"][metric] for key in keys]
    values = np.array([entry["value"] for entry in entries])
    scores = [run.scores(key, metric) for key in keys]
    if any(array is None or len(array) < 2 for array in scores):
        return _Sample(values, None, None)
    arrays = [array for array in scores if array is not None]
    reduce = entries[0].get("reduce", "mean")
    return _Sample(values, [influence(array, reduce) for array in arrays], arrays)


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


def _paired(pair: Pair, baseline: Run, candidate: Run, metric: str) -> Evidence:
    """The first design: only the seeds that both runs have."""
    common = sorted(set(pair.baseline.seeds) & set(pair.candidate.seeds))
    old = _sample(baseline, [key for key in pair.baseline.ok if key.seed in common], metric)
    new = _sample(candidate, [key for key in pair.candidate.ok if key.seed in common], metric)
    reduce = baseline.cells[pair.baseline.ok[0]]["metrics"][metric].get("reduce", "mean")
    assert old.scores is not None
    assert new.scores is not None
    by_seed = new.values - old.values
    change = float(by_seed.mean())
    sizes = {len(array) for array in old.scores}
    if len(sizes) > 1:
        # Test sets of different sizes share no sample: seeds are independent strata, and the variances add up.
        pulls = _differences(old, new)
        parts = [(sum(float(p.var(ddof=1)) / len(p) for p in pulls) / len(pulls) ** 2, sum(len(p) - 1 for p in pulls))]
        p = two_part_p(change, parts)
    else:
        p = swap_test(np.stack(old.scores), np.stack(new.scores), reduce)
        pull = np.mean(_differences(old, new), axis=0)
        parts = [(float(pull.var(ddof=1)) / len(pull), len(pull) - 1)]
    margin = two_part_margin(parts)
    return Evidence(
        change, change, change - margin, change + margin, p, "same seeds", stands_out=_stands_out(old.values, new.values)
    )


def _differences(old: _Sample, new: _Sample) -> list[Array]:
    assert old.pulls is not None
    assert new.pulls is not None
    return [two - one for one, two in zip(old.pulls, new.pulls, strict=True)]


def _stands_out(old: Array, new: Array) -> bool:
    """Whether the change exceeds the spread over seeds at 5 %, by the paired or by the unpaired t-test.

    Paired where the change is much the same in every seed; unpaired where the runs are stable but the change is not.
    """
    if len(old) < 2:
        return True
    by_seed = new - old
    paired = [(float(by_seed.var(ddof=1)) / len(by_seed), len(by_seed) - 1)]
    change = float(by_seed.mean())
    return min(two_part_p(change, paired), two_part_p(change, [pooled_variance(old.tolist(), new.tolist())])) < SPREAD_LEVEL


# -- the second design --------------------------------------------------------------------------------------------------


def _control(pair: Pair, base: Pair | None, baseline: Run, candidate: Run, metric: str) -> tuple[_Sample, _Sample] | None:
    """The base's cells of exactly the row's seeds, in both runs; None if they are not all there."""
    if base is None or pair.name.method == BASE:
        return None
    sides = []
    for run, mine, theirs in ((baseline, pair.baseline, base.baseline), (candidate, pair.candidate, base.candidate)):
        keys = [key for key in theirs.ok if key.seed in mine.seeds and metric in run.cells[key]["metrics"]]
        if tuple(key.seed for key in keys) != mine.seeds:
            return None
        sides.append(_sample(run, keys, metric))
    return sides[0], sides[1]


def _slope(old: _Sample, new: _Sample, old_base: _Sample, new_base: _Sample) -> float:
    """Slope in [0, 1] of the row's per-sample changes on the base's; 0 without scores of one common size."""
    samples = (old, new, old_base, new_base)
    if any(sample.pulls is None for sample in samples):
        return 0.0
    if len({len(pull) for sample in samples for pull in sample.pulls or []}) != 1:
        return 0.0
    row = np.mean(new.pulls, axis=0) - np.mean(old.pulls, axis=0)  # type: ignore[arg-type]
    base = np.mean(new_base.pulls, axis=0) - np.mean(old_base.pulls, axis=0)  # type: ignore[arg-type]
    spread = float((base**2).sum())
    return float(np.clip((row * base).sum() / spread, 0.0, 1.0)) if spread > 0 else 0.0


def _minus(sample: _Sample, control: _Sample, slope: float) -> _Sample:
    assert sample.pulls is not None
    assert control.pulls is not None
    pulls = [one - slope * two for one, two in zip(sample.pulls, control.pulls, strict=True)]
    return _Sample(sample.values - slope * control.values, pulls, None)


def _sample_parts(old: _Sample, new: _Sample) -> list[tuple[float, float]]:
    """Variance over test samples: of the paired pulls where all test sets have one size, else each run's own.

    Nothing where scores are missing.
    """
    if old.pulls is None or new.pulls is None:
        return []
    if len({len(pull) for pull in (*old.pulls, *new.pulls)}) == 1:
        pull = np.mean(new.pulls, axis=0) - np.mean(old.pulls, axis=0)
        return [(float(pull.var(ddof=1)) / len(pull), len(pull) - 1)]
    pulls = (*old.pulls, *new.pulls)
    variance = sum(float(np.var(pull, ddof=1)) / len(pull) / len(side) ** 2 for side in (old.pulls, new.pulls) for pull in side)
    return [(variance, sum(len(pull) - 1 for pull in pulls))]
