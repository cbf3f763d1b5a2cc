"""Statistics of a table: spread over seeds, bootstrap intervals over test samples, permutation tests, Holm.

Two kinds of variation are kept apart. *Seeds*: another initialisation, another draw of the training; its size is the SD that
follows a mean. *Test samples*: another test set of the same kind; its size is the bootstrap interval. Neither stands for the
other: a short interval says nothing about other seeds, a small SD nothing about other samples.

Every reduction (:data:`ocd_bench.metrics.REDUCTIONS`) is a function of sample means of a few features of the scores. That is
what makes thousands of resamples one matrix product, and leave-one-out values closed forms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from ocd_bench.metrics import matthews

Array = NDArray[np.float64]

LEVEL = 0.95
DRAWS = 10_000
"""Bootstrap resamples; fewer, but 2,000 at least, where a test set is larger than 3,000 (:func:`draws_for`)."""
MIN_SAMPLES = 8
"""Test samples below which no interval is given: with fewer, all differences share a sign too often by chance alone."""
_CHUNK = 1_000_000
"""Numbers drawn at a time: more would leave the processor's caches."""


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; ``low`` and ``high`` are None where there are too few test samples."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


# -- reductions as functions of feature means -----------------------------------------------------------------------------


def _matthews_from_shares(shares: Array) -> Array:
    # Shares that should be zero come out of a matrix product as 1e-17; such a product of margins is zero too.
    tn, fp, fn, tp = np.moveaxis(shares, -1, 0)
    return matthews(tn, fp, fn, tp, tiny=1e-12)


_FORMS: Mapping[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "mean": (lambda scores: scores[..., None], lambda means: means[..., 0]),
    "root_mean": (lambda scores: scores[..., None], lambda means: np.sqrt(np.maximum(means[..., 0], 0.0))),
    "matthews": (lambda scores: (scores[..., None] == np.arange(4)).astype(float), _matthews_from_shares),
}


def features(scores: Array, reduce: str) -> Array:
    """Scores ``(..., N)`` to features ``(..., N, K)``."""
    return _FORMS[reduce][0](np.asarray(scores, dtype=float))


def combine(means: Array, reduce: str) -> Array:
    """Means of features ``(..., K)`` to values ``(...)``."""
    return _FORMS[reduce][1](means)


def reduced(scores: Array, reduce: str) -> Array:
    """Scores ``(..., N)`` to values ``(...)``; equal to ``REDUCTIONS[reduce](scores)``."""
    return combine(features(scores, reduce).mean(axis=-2), reduce)


def influence(scores: Array, reduce: str) -> Array:
    """How much each sample pulls the value: jackknife pseudo-values ``(..., N)`` less their mean.

    For a mean these are the scores less their mean. Efron & Tibshirani, *An Introduction to the Bootstrap*, chapter 11.
    """
    values = features(scores, reduce)
    n = values.shape[-2]
    if n < 2:
        return np.zeros(values.shape[:-1])
    left_out = combine((values.sum(axis=-2, keepdims=True) - values) / (n - 1), reduce)
    return (n - 1) * (left_out.mean(axis=-1, keepdims=True) - left_out)


# -- spread over seeds ----------------------------------------------------------------------------------------------------


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1) over seeds; the latter is None for a single one."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


# -- intervals over test samples ------------------------------------------------------------------------------------------


def draws_for(n: int) -> int:
    """Resamples for n test samples: 30 million random numbers at most, which leaves 3 % of error in a half-width."""
    return max(2_000, min(DRAWS, 30_000_000 // max(1, n)))


def replicates(scores: Array, reduce: str, draws: int, seed: int = 0) -> Array:
    """Bootstrap replicates ``(draws, C)`` of the value of C score rows ``(C, N)``, the same resamples for every row.

    The resamples depend on N, ``draws`` and ``seed`` alone, so that rows handed in by separate calls stay paired.
    """
    values = features(scores, reduce)
    rows, n, width = values.shape
    flat = np.ascontiguousarray(values.transpose(1, 0, 2).reshape(n, rows * width))
    random = np.random.default_rng([seed, n])
    result = np.empty((draws, rows))
    step = max(1, _CHUNK // n)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        picks = random.integers(0, n, size=(count, n), dtype=np.int32)
        weights = np.stack([np.bincount(pick, minlength=n) for pick in picks]) / n
        result[start : start + count] = combine((weights @ flat).reshape(count, rows, width), reduce)
    return result


def bca_interval(value: float, draws: Array, pulls: Sequence[Array], level: float = LEVEL) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval, widened for small samples.

    Args:
        value: the statistic itself.
        draws: its replicates ``(B,)``.
        pulls: :func:`influence` of the statistic, one array per independent set of samples.
        level: coverage aimed at.

    BCa: Efron (1987). The widening replaces the normal by Student's quantile and undoes the bootstrap's factor
    sqrt((n - 1)/n): Hesterberg, *What teachers should know about the bootstrap* (2015), section 4.3.
    """
    if np.ptp(draws) <= 1e-12 * max(1.0, abs(value)):
        return value, value
    n, free = sum(len(pull) for pull in pulls), sum(len(pull) - 1 for pull in pulls)
    tail = np.sqrt(n / free) * stdtrit(free, (1 - level) / 2)
    below = float(((draws < value).mean() + (draws <= value).mean()) / 2)
    bias = ndtri(below) if 0 < below < 1 else 0.0
    cubes = sum(float((pull**3).sum()) / len(pull) ** 3 for pull in pulls)
    squares = sum(float((pull**2).sum()) / len(pull) ** 2 for pull in pulls)
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    ends = []
    for z in (tail, -tail):
        shifted = bias + z
        # Past the pole of the correction the plain percentile is the better answer.
        corrected = bias + shifted / (1 - acceleration * shifted) if acceleration * shifted < 1 else z
        ends.append(float(np.quantile(draws, ndtr(corrected))))
    return ends[0], ends[1]


class Resampled:
    """Values, differences and their intervals for the cells of one (task, dataset) and metric.

    Args:
        scores: per-sample scores ``(N,)`` by (name, seed).
        reduce: key of :data:`ocd_bench.metrics.REDUCTIONS`.
        draws: resamples; 0: :func:`draws_for` of the largest test set.

    Cells with equally many test samples share their resamples. Where seeds share one test set, as they do in most tasks, this
    is what keeps S seeds from passing for S times as many independent samples; where they do not, joining samples by position
    is arbitrary but harmless. Cells with different numbers of samples are resampled independently.
    """

    def __init__(
        self, scores: Mapping[tuple[str, int], Array], reduce: str, draws: int = 0, seed: int = 0, level: float = LEVEL
    ) -> None:
        self.level = level
        draws = draws or min((draws_for(len(row)) for row in scores.values()), default=DRAWS)
        self._values: dict[tuple[str, int], float] = {}
        self._draws: dict[tuple[str, int], Array] = {}
        self._pulls: dict[tuple[str, int], Array] = {}
        for n in sorted({len(row) for row in scores.values()}):
            keys = [key for key, row in scores.items() if len(row) == n]
            stack = np.stack([np.asarray(scores[key], dtype=float) for key in keys])
            drawn = replicates(stack, reduce, draws, seed) if n >= 2 else None
            for column, (key, value, pull) in enumerate(
                zip(keys, reduced(stack, reduce), influence(stack, reduce), strict=True)
            ):
                self._values[key], self._pulls[key] = float(value), pull
                if drawn is not None:
                    self._draws[key] = drawn[:, column]

    def seeds(self, name: str) -> list[int]:
        """Seeds with scores of ``name``."""
        return sorted(seed for other, seed in self._values if other == name)

    def value(self, name: str) -> Estimate | None:
        """Mean over seeds of the value of ``name``; None if it has no scores."""
        return self._estimate(self.terms(name))

    def difference(self, name: str, base: str) -> Estimate | None:
        """Mean over common seeds of value(name) - value(base), paired per sample; None without a common seed."""
        return self._estimate(self.terms(name, base))

    def terms(self, name: str, base: str | None = None) -> list[tuple[tuple[str, int], float]]:
        """Weights of the cells in the sum over seeds of value(name), or of value(name) - value(base) over common seeds."""
        if base is None:
            return [((name, seed), 1.0) for seed in self.seeds(name)]
        common = [seed for seed in self.seeds(name) if (base, seed) in self._values]
        return [((which, seed), sign) for seed in common for which, sign in ((name, 1.0), (base, -1.0))]

    def _estimate(self, terms: list[tuple[tuple[str, int], float]]) -> Estimate | None:
        if not terms:
            return None
        value, draws, pulls = self.parts(terms)
        return _bounded(value, draws, pulls, self.level)

    def parts(self, terms: list[tuple[tuple[str, int], float]]) -> tuple[float, Array | None, list[Array]]:
        """Mean over seeds of :meth:`terms`: its value, replicates (None for a single sample) and influence values."""
        share = len({seed for (_, seed), _ in terms})
        value = sum(weight * self._values[key] for key, weight in terms) / share
        sets: dict[int, Array] = {}
        for key, weight in terms:
            pull = self._pulls[key]
            sets[len(pull)] = sets.get(len(pull), 0.0) + weight * pull / share
        draws = None
        if min(sets) >= 2:
            draws = np.asarray(sum(weight * self._draws[key] for key, weight in terms) / share)
        return value, draws, list(sets.values())


def estimate_average(sets: Sequence[Resampled], name: str, base: str | None = None) -> Estimate | None:
    """Mean over independent test sets of the value of ``name``, or of its paired difference from ``base``.

    Args:
        sets: of equally many resamples, but drawn by another ``seed`` each.

    Returns:
        None if a set has no such scores.
    """
    terms = [part.terms(name, base) for part in sets]
    if not all(terms):
        return None
    values, draws, pulls = zip(*(part.parts(own) for part, own in zip(sets, terms, strict=True)), strict=True)
    together = None if any(drawn is None for drawn in draws) else np.mean(draws, axis=0)
    return _bounded(sum(values) / len(sets), together, [pull / len(sets) for own in pulls for pull in own], sets[0].level)


def _bounded(value: float, draws: Array | None, pulls: Sequence[Array], level: float) -> Estimate:
    """With its interval, where there are enough test samples."""
    if draws is None or sum(len(pull) for pull in pulls) < MIN_SAMPLES:
        return Estimate(value)
    return Estimate(value, *bca_interval(value, draws, pulls, level))


# -- tests ----------------------------------------------------------------------------------------------------------------


_ENOUGH = 500


def swap_test(first: Array, second: Array, reduce: str, draws: int = 9_999, seed: int = 0) -> float:
    """Two-sided p of "the labels of first and second may be swapped on any test sample", by random swaps.

    Args:
        first, second: scores ``(S, N)`` or ``(N,)``; a sample is swapped in all S seeds at once, since they share it.
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
    shift = shift[touched]
    if not len(shift):
        return 1.0
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
    pull = (influence(two, reduce) - influence(one, reduce)).mean(axis=0)
    return min(p, student_p(observed, float(pull.var(ddof=1)) / n, n - 1))


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
    """Holm's adjusted p-values, in the given order: they hold the chance of any false claim, whatever the dependence."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()
