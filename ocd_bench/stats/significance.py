"""Tests: random swaps, Student's, a variance of two parts, Holm's adjustment; and the spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr, stdtrit

from ocd_bench.stats.dependence import Ids, sample_variance
from ocd_bench.stats.reductions import Array, combine, features, influence

LEVEL = 0.95
_CHUNK = 1_000_000
"""Numbers drawn at a time: more would leave the processor's caches."""


_ENOUGH = 500
"""Swaps as extreme as the observed difference after which no more are drawn."""


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1) over seeds; the latter is None for a single one."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def swap_test(first: Array, second: Array, reduce: str, draws: int = 9_999, seed: int = 0, groups: Ids | None = None) -> float:
    """Two-sided p of "the labels of first and second may be swapped on any test sample", by random swaps.

    Args:
        first, second: scores ``(S, N)`` or ``(N,)``; a sample is swapped in all S seeds at once, since they share it.
        groups: ids ``(N,)``; samples of one group are swapped together. Samples of several groups each (``(N, K)``) cannot be
            swapped so, and Student's test with the dyadic-robust variance is made.
        reduce: the statistic is the mean over seeds of ``reduce(second) - reduce(first)``. For means, swaps are sign flips.

    p = (1 + number of swaps at least as far from zero) / (1 + draws), Phipson & Smyth (2010); drawing stops early once 500
    swaps are (Besag & Clifford, 1991). Where ten swaps or fewer reach the observed difference this has run out of resolution,
    and Student's tail of the paired influence values is used if it is smaller: with so few, ten samples at least must differ,
    all much the same way.
    """
    one, two = (np.atleast_2d(np.asarray(scores, dtype=float)) for scores in (first, second))
    features_one, features_two = features(one, reduce), features(two, reduce)  # (S, N, K)
    seeds, n, width = features_one.shape
    shift = (features_two - features_one).transpose(1, 0, 2).reshape(n, seeds * width) / n
    mean_one, mean_two = features_one.mean(axis=1), features_two.mean(axis=1)
    observed = float((combine(mean_two, reduce) - combine(mean_one, reduce)).mean())
    touched = np.abs(shift).max(axis=1) > 0  # swapping equal scores changes nothing
    if not touched.any():
        return 1.0
    pulls = list(influence(two, reduce) - influence(one, reduce))
    if groups is not None and groups.ndim > 1 and groups.shape[1] > 1:
        return student_p(observed, *sample_variance(pulls, [groups] * seeds))
    if groups is None:
        shift = shift[touched]
    else:
        labels = np.unique(groups.reshape(-1), return_inverse=True)[1].reshape(-1)
        together = np.zeros((int(labels.max()) + 1, shift.shape[1]))
        np.add.at(together, labels, shift)
        shift = together[np.unique(labels[touched])]
    random = np.random.default_rng([seed, n])
    reached = done = 0
    while done < draws and reached < _ENOUGH:
        count = max(1, min(_CHUNK // len(shift), draws - done))
        moved = (random.integers(0, 2, size=(count, len(shift))).astype(float) @ shift).reshape(count, seeds, width)
        statistic = (combine(mean_two - moved, reduce) - combine(mean_one + moved, reduce)).mean(axis=-1)
        reached += int((np.abs(statistic) >= abs(observed) * (1 - 1e-9)).sum())
        done += count
    p = (1 + reached) / (1 + done)
    if reached > 10:
        return p
    return min(p, student_p(observed, *sample_variance(pulls, [groups] * seeds)))


def student_p(change: float, variance: float, freedom: float) -> float:
    """Two-sided p of ``change`` whose estimated variance has ``freedom`` degrees of freedom."""
    if variance <= 0:
        return 1.0 if change == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(change) / np.sqrt(variance)))


def pooled_variance(first: Sequence[float], second: Sequence[float]) -> tuple[float, int]:
    """Variance of mean(second) - mean(first), spread pooled over both, and its degrees of freedom (0: cannot be estimated).

    Pooled, not Welch's: under "same code, other seeds" both runs spread alike, a run of one seed can still be compared with one
    of several, and no degree of freedom is lost.
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    freedom = len(one) + len(two) - 2
    if freedom < 1:
        return 0.0, 0
    squares = float(((one - one.mean()) ** 2).sum() + ((two - two.mean()) ** 2).sum())
    if squares <= (1e-12 * float(np.abs(np.concatenate([one, two])).max())) ** 2:
        squares = 0.0  # equal values, but for the rounding of their mean
    return squares / freedom * (1 / len(one) + 1 / len(two)), freedom


def two_part_p(change: float, parts: Sequence[tuple[float, float]]) -> float:
    """Two-sided p of ``change`` whose variance is a sum of independently estimated parts, each ``(variance, freedom)``.

    The margin at level p is sqrt(sum of variance * t(p, freedom)^2): Banerjee, *Sankhya* 22 (1960), which never rejects more
    often than p, whatever the true proportions. Satterthwaite's approximation does, by far, when the larger part has few
    degrees of freedom and happens to be underestimated (benchmarks/compare_error_rates.py).
    """
    parts = [(variance, freedom) for variance, freedom in parts if variance > 0]
    if not parts:
        return 1.0 if change == 0 else 0.0
    if change == 0:
        return 1.0
    low, high = -700.0, 0.0  # log p; the margin falls as p grows
    for _ in range(45):
        middle = (low + high) / 2
        margin = sum(variance * stdtrit(freedom, np.exp(middle) / 2) ** 2 for variance, freedom in parts)
        low, high = (middle, high) if margin > change**2 else (low, middle)
    return float(np.exp(high))


def two_part_margin(parts: Sequence[tuple[float, float]], level: float = LEVEL) -> float:
    """Half-width of the interval that belongs to :func:`two_part_p`."""
    return float(np.sqrt(sum(variance * stdtrit(freedom, (1 - level) / 2) ** 2 for variance, freedom in parts)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order. They control the family-wise error rate under any dependence."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()
