"""Intervals of a value or of a paired difference: over new test samples, and over new seeds as well.

All of them are closed forms, chosen by simulation (``benchmarks/coverage.py`` prints the table). The deviation of a mean is the
sum of the influence values of the test samples; its variance and degrees of freedom come from
:mod:`ocd_bench.stats.dependence`.

* *Right or wrong* (scores of 0 and 1): for a difference one sample that got better and one that got worse are added (Bonett &
  Price, *J. Educ. Behav. Stat.* 37, 2012); for a value two right and two wrong answers (Agresti & Coull, *Am. Stat.* 52, 1998).
  Groups and several seeds enter by the effective number of answers: their number divided by the design effect. Where nothing
  changed among n answers, this bounds the change at about 3 / n.
* *Matthews correlation*: Student's interval of the jackknife, with the variance of two added answers.
* *Any other score*: the wider, at each end, of Student's interval and of Hall's (*J. R. Stat. Soc. B* 54, 1992), whose cubic
  transformation undoes the skewness.

For new seeds as well, the variance has a part over seeds: the variance of the seeds' values, minus the contribution of their
differences on single test samples, which the part over samples already contains. The margin is the wider of Student's with
Satterthwaite's degrees of freedom and Banerjee's (:func:`ocd_bench.stats.two_part_margin`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from ocd_bench.stats.dependence import Dependence, Ids, dependence, mean_parts
from ocd_bench.stats.reductions import Array, influence, is_binary, one_answer, reduced
from ocd_bench.stats.significance import LEVEL, two_part_margin

MIN_SAMPLES = 8
"""Test samples below which no interval is given: with fewer, all differences too often have one sign by accident."""
SURE_SAMPLES = 100
"""Test samples below which an interval of squared errors may cover less than it says (benchmarks/coverage.py)."""
SURE_GROUPS = 20
"""The same for effective groups; five for each id of a sample where those are more."""
SURE_ANSWERS = 10
"""The same for test samples of a class, and answers of a class, of a Matthews correlation."""
UNCHANGED = "no score differs"
"""Why there is no interval where every sample's score is the same."""
SEEDS = 3
"""Seeds below which no interval over seeds is given."""


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % intervals.

    Attributes:
        value: the estimate itself.
        low, high: its interval over new test samples, with these trained models; None where there are too few.
        wide: its interval over new seeds and new test samples; None with fewer than three seeds.
        doubt: why the coverage of the intervals may be less than 95 %, or why there is no interval; empty otherwise.
    """

    value: float
    low: float | None = None
    high: float | None = None
    wide: tuple[float, float] | None = None
    doubt: str = ""

    @property
    def widest(self) -> Estimate:
        """With the interval over seeds and samples, where there is one, in place of that over samples."""
        return replace(self, low=self.wide[0], high=self.wide[1]) if self.wide else self

    @property
    def sign(self) -> int:
        """1 or -1 where the interval over seeds and samples excludes zero and there is no doubt about it, else 0."""
        if self.wide is None or self.doubt:
            return 0
        return int(self.wide[0] > 0) - int(self.wide[1] < 0)


@dataclass(frozen=True)
class Part:
    """The ingredients of the intervals of a value or a difference, from one test set.

    Attributes:
        by_seed: values by seed; their mean is the estimate.
        centre: centre of the interval (the estimate, or drawn a little towards zero where answers were added).
        variance, freedom: of the centre, over test samples, and its degrees of freedom.
        third: third cumulant of the centre; 0 for a symmetric interval.
        mixed: how much of the variance of the mean of ``by_seed`` comes from single test samples on which seeds differ.
        samples: number of test samples.
        limits: the smallest and the largest possible value.
        missing: why there is no interval.
        doubt: why its coverage may be less than its level.
    """

    by_seed: tuple[float, ...]
    centre: float = 0.0
    variance: float = 0.0
    freedom: float = 0.0
    third: float = 0.0
    mixed: float = 0.0
    samples: int = 0
    limits: tuple[float, float] = (-np.inf, np.inf)
    missing: str = ""
    doubt: str = ""


class Paired:
    """Values, differences and their intervals for the cells of one (task, dataset) and metric.

    Args:
        scores: by (name, seed), scores ``(N,)`` of every test sample, or ``(C, N)`` of C variants of the same samples (kinds of
            corruption), whose values are averaged.
        reduce: key of :data:`ocd_bench.metrics.REDUCTIONS`.
        groups: by seed, :attr:`ocd_bench.Samples.groups` ``(N,)`` or ``(N, K)``; a seed without is one of independent samples.
        level: coverage aimed at.

    Seeds with as many test samples, of the same groups, share their test set, as in most tasks: then the samples' mean scores
    over seeds count. Seeds whose groups differ have test sets of their own, drawn from one pool of groups.
    """

    def __init__(
        self,
        scores: Mapping[tuple[str, int], Array],
        reduce: str,
        groups: Mapping[int, Ids | None] | None = None,
        level: float = LEVEL,
    ) -> None:
        self.level, self.reduce = level, reduce
        self._scores = {key: np.atleast_2d(np.asarray(rows, dtype=float)) for key, rows in scores.items()}
        self._groups = groups or {}
        self._values = {key: float(reduced(rows, reduce).mean()) for key, rows in self._scores.items()}
        self._pulls = {key: influence(rows, reduce).mean(axis=0) for key, rows in self._scores.items()}
        self._binary = all(is_binary(rows, reduce) for rows in self._scores.values())
        self._known: dict[tuple[int, ...], tuple[Dependence, bool]] = {}

    def seeds(self, name: str) -> list[int]:
        """Seeds with scores of ``name``."""
        return sorted(seed for other, seed in self._values if other == name)

    def value(self, name: str) -> Estimate | None:
        """Mean over seeds of the value of ``name``; None if it has no scores."""
        part = self.part(name)
        return estimate([part], self.level) if part else None

    def difference(self, name: str, base: str) -> Estimate | None:
        """Mean over common seeds of value(name) - value(base), paired by test sample; None without a common seed."""
        part = self.part(name, base)
        return estimate([part], self.level) if part else None

    def part(self, name: str, base: str | None = None) -> Part | None:
        """The value of ``name``, or its difference from ``base`` over common seeds; None where there is no seed."""
        seeds = [
            seed
            for seed in self.seeds(name)
            if base is None
            or ((base, seed) in self._scores and self._scores[base, seed].shape == self._scores[name, seed].shape)
        ]
        if not seeds:
            return None
        by_seed = tuple(self._values[name, seed] - (self._values[base, seed] if base else 0.0) for seed in seeds)
        pulls = [self._pulls[name, seed] - (self._pulls[base, seed] if base else 0.0) for seed in seeds]
        depends, same = self._dependence(tuple(seeds), [len(pull) for pull in pulls])
        missing = _too_few(depends)
        if missing:
            return Part(by_seed, samples=depends.samples, missing=missing)
        parts = mean_parts(pulls, same)
        variance = depends.variance(parts)
        mixed = self._mixed(seeds, pulls, depends, same)
        doubt = _few_groups(depends)
        plain = Part(by_seed, float(np.mean(by_seed)), variance, depends.freedom, 0.0, mixed, depends.samples, doubt=doubt)
        if self._binary:
            answers = [self._scores[name, seed] - (self._scores[base, seed] if base else 0.0) for seed in seeds]
            return _of_answers(plain, answers, depends, paired=base is not None)
        if self.reduce == "matthews":
            codes = [self._scores[key, seed] for seed in seeds for key in (name, base) if key is not None]
            return _of_codes(plain, codes, parts, depends)
        if not variance > 0:
            return replace(plain, missing=UNCHANGED)
        return replace(plain, third=depends.third(parts))

    def _dependence(self, seeds: tuple[int, ...], sizes: Sequence[int]) -> tuple[Dependence, bool]:
        if seeds not in self._known:
            groups = [self._groups.get(seed) for seed in seeds]
            fitting = [one if one is not None and len(one) == size else None for one, size in zip(groups, sizes, strict=True)]
            self._known[seeds] = dependence(sizes, fitting)
        return self._known[seeds]

    def _mixed(self, seeds: Sequence[int], pulls: Sequence[Array], depends: Dependence, same: bool) -> float:
        """See :attr:`Part.mixed`: of each seed's own samples, or of what is a seed's own of the samples that all share."""
        count = len(seeds)
        if count < 2:
            return 0.0
        if same:
            own = np.stack(pulls) - np.mean(pulls, axis=0)
            return sum(depends.variance(row / len(row)) for row in own) / count / (count - 1)
        alone = [self._dependence((seed,), [len(pull)])[0] for seed, pull in zip(seeds, pulls, strict=True)]
        if any(one.share >= 1 for one in alone):
            return 0.0
        return sum(one.variance(pull / len(pull)) for one, pull in zip(alone, pulls, strict=True)) / count**2


def _too_few(depends: Dependence) -> str:
    """Why no interval can be given."""
    if depends.samples < MIN_SAMPLES:
        return f"fewer than {MIN_SAMPLES} test samples"
    return depends.problem


def _few_groups(depends: Dependence) -> str:
    needed = max(SURE_GROUPS, 5 * depends.columns)
    # Groups of about one size are never of exactly one size.
    if depends.count < depends.samples and (depends.count < needed or depends.freedom + 1 < 0.9 * needed):
        few = (
            depends.count
            if depends.count < needed
            else f"{depends.count} groups of unequal size, effectively {depends.freedom + 1:.0f}"
        )
        return f"fewer than {needed} groups of test samples ({few})"
    return ""


def _effective(spread: float, answers: int, variance: float, depends: Dependence) -> float:
    """Effective number of answers: as many independent ones would give this variance.

    Args:
        spread: variance of a single answer.
        answers: their number.

    Returns:
        At most ``answers``. Where none differs from another nothing is known of how they depend, and the effective number of
        independent groups of samples is returned.
    """
    alone = spread / answers / (1 - depends.squares)
    if alone <= 0 or variance <= 0:
        return 1 / depends.share
    return answers * alone / max(variance, alone)


def _of_answers(part: Part, answers: Sequence[Array], depends: Dependence, paired: bool) -> Part:
    """Of differences -1, 0 and 1, or of answers 0 and 1, ``(C, N)`` per seed."""
    mean, squares = part.centre, float(np.mean([(rows**2).mean() for rows in answers]))
    count = sum(rows.size for rows in answers)
    n = _effective(squares - mean**2, count, part.variance, depends)
    if paired:
        centre = mean * n / (n + 2)
        return replace(part, centre=centre, variance=((squares * n + 2) / (n + 2) - centre**2) / (n + 2), limits=(-1.0, 1.0))
    centre = (mean * n + 2) / (n + 4)
    return replace(part, centre=centre, variance=centre * (1 - centre) / (n + 4), limits=(0.0, 1.0))


def _of_codes(part: Part, codes: Sequence[Array], parts: Array, depends: Dependence) -> Part:
    """Of a Matthews correlation, or of a difference of two, from all its scores ``(C, N)``."""
    alone = depends.independent(parts)
    if alone > 0:
        n = depends.samples * alone / part.variance
        size = float((parts**4).sum() / (parts**2).sum()) * depends.samples**2
    else:
        n = 1 / depends.share
        size = max(one_answer(row) for rows in codes for row in rows) ** 2
    rarest = min(
        int(np.bincount(half.astype(int), minlength=2).min()) for rows in codes for row in rows for half in (row // 2, row % 2)
    )
    doubt = part.doubt
    if rarest < SURE_ANSWERS:
        doubt = f"fewer than {SURE_ANSWERS} test samples or answers of a class"
    variance = part.variance + 2 * size / (n + 2) ** 2
    return replace(part, variance=variance, doubt=doubt, missing="" if variance > 0 else UNCHANGED)


def estimate(parts: Sequence[Part], level: float = LEVEL) -> Estimate:
    """The mean of independent parts, with its intervals.

    Args:
        parts: one per test set, over the same seeds.
    """
    count = len(parts)
    by_seed = np.mean([part.by_seed for part in parts], axis=0)
    value = float(by_seed.mean())
    samples = sum(part.samples for part in parts)
    # A test set on which nothing changes adds nothing to the variance; unless it is the only one.
    missing = next((part.missing for part in parts if part.missing and part.missing != UNCHANGED), "")
    if missing or all(part.missing for part in parts):
        return Estimate(value, doubt=missing or UNCHANGED)
    doubt = next((part.doubt for part in parts if part.doubt), "")
    if samples < SURE_SAMPLES:
        doubt = f"fewer than {SURE_SAMPLES} test samples"
    centre = sum(part.centre for part in parts) / count
    variance = sum(part.variance for part in parts) / count**2
    freedom = variance**2 / sum((part.variance / count**2) ** 2 / part.freedom for part in parts if part.variance)
    limits = tuple(sum(part.limits[end] for part in parts) / count for end in (0, 1))
    low, high = _skewed(centre, variance, freedom, sum(part.third for part in parts) / count**3, level)
    wide = None
    if len(by_seed) >= SEEDS:
        mixed = sum(part.mixed for part in parts) / count**2
        margin = _two_way_margin(by_seed, mixed, variance, freedom, level)
        wide = _within((min(low, centre - margin), max(high, centre + margin)), limits)
    return Estimate(value, *_within((low, high), limits), wide, doubt)


def _within(interval: tuple[float, float], limits: Sequence[float]) -> tuple[float, float]:
    return max(interval[0], limits[0]), min(interval[1], limits[1])


def _skewed(centre: float, variance: float, freedom: float, third: float, level: float) -> tuple[float, float]:
    """The wider, at each end, of Student's interval and of Hall's (1992, his third transformation), with Student's quantile."""
    error, quantile = float(np.sqrt(variance)), -float(stdtrit(freedom, (1 - level) / 2))
    skewness = third / variance**1.5
    ends = [centre - quantile * error, centre + quantile * error]
    if abs(skewness) > 1e-9:
        # T + g T^2 / 3 + g^2 T^3 / 27 + g / 6 is nearly normal, T the studentised mean and g its skewness; solved for T.
        undone = [float(np.cbrt(1 + skewness * (z - skewness / 6)) - 1) * 3 / skewness for z in (quantile, -quantile)]
        ends = [min(ends[0], centre - undone[0] * error), max(ends[1], centre - undone[1] * error)]
    return ends[0], ends[1]


def _two_way_margin(by_seed: Array, mixed: float, variance: float, freedom: float, level: float) -> float:
    """Half-width of the interval over new seeds and samples.

    Args:
        by_seed: values ``(S,)``.
        mixed: see :attr:`Part.mixed`.
        variance, freedom: over test samples.
    """
    free = len(by_seed) - 1
    spread = float(by_seed.var(ddof=1)) / len(by_seed)
    seeds = max(0.0, spread - mixed)
    if seeds <= 0:
        return float(np.sqrt(variance) * -stdtrit(freedom, (1 - level) / 2))
    both = seeds + variance
    satterthwaite = both**2 / (spread**2 / free + variance**2 / freedom)
    satterthwaite = min(max(satterthwaite, min(free, freedom)), max(free, freedom))
    student = float(np.sqrt(both) * -stdtrit(satterthwaite, (1 - level) / 2))
    return max(student, two_part_margin([(seeds, free), (variance, freedom)], level))
