"""Dependent test samples, and the variance of a mean over them.

Samples of one speaker, query, scene or day are not independent draws: another test set would have other speakers, and other
samples of all of them. A task declares such origins as ``Samples.groups``. The variance of a mean then sums the products of all
pairs of samples that share an origin (cluster-robust variance). A sample may have several origins from one pool, such as the
speakers of a mixture. Then all pairs that share an origin count (dyadic-robust variance: Aronow, Samii & Assenova, *Political
Analysis* 23, 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocd_bench.stats.reductions import Array

Ids = NDArray[np.integer[Any]]
MIN_GROUPS = 5
"""Minimum number of groups for an estimate of the variance."""
MOST_SHARED = 0.75
"""Largest share of dependent pairs for an estimate of the variance: beyond it, too few pairs are independent."""


class Dependence:
    """The pairs of M samples that are dependent.

    Args:
        weights: ``(M,)``, what each sample counts for in the mean; they sum to 1.
        groups: integers ``(M,)`` or ``(M, K)``: samples that share an id in any column are dependent. An id may stand in a row
            twice (a mixture of two speakers beside mixtures of three). None: every sample is independent of all others.

    Attributes:
        samples: M.
        count: number of different ids; M without groups.
        columns: K.
        squares: the sum of squared weights: 1 / M if they are equal.
        share: the share of all pairs (by weight, each sample with itself included) that are dependent.
        freedom: degrees of freedom of :meth:`variance`: the effective number of ids, one divided by the sum of their squared
            shares, minus 1. Equal shares give the number of ids minus 1.
    """

    def __init__(self, weights: Array, groups: Ids | None = None) -> None:
        self.samples = len(weights)
        self.squares = float((weights**2).sum())
        # A pair that shares m ids counts once: over all subsets of these ids, (-1)^(size + 1) sums to 1.
        self._subsets: list[tuple[int, Ids, Ids]] = []
        if groups is None:
            self.count, self.columns, self.share = self.samples, 1, self.squares
            self.freedom = 1 / self.squares - 1 if self.squares > 0 else 0.0
            return
        ids = np.sort(groups.reshape(self.samples, -1), axis=1)
        repeated = np.zeros(ids.shape, dtype=bool)
        repeated[:, 1:] = ids[:, 1:] == ids[:, :-1]
        self.columns = ids.shape[1]
        for size in range(1, self.columns + 1):
            rows, labels = [], []
            for chosen in combinations(range(self.columns), size):
                keep = np.flatnonzero(~repeated[:, chosen].any(axis=1))
                rows.append(keep)
                labels.append(ids[keep][:, chosen])
            found = np.unique(np.concatenate(labels), axis=0, return_inverse=True)[1].reshape(-1)
            self._subsets.append((1 if size % 2 else -1, np.concatenate(rows), found))
        masses = self._sums(0, weights)
        self.count = len(masses)
        shares = masses / masses.sum()
        self.freedom = 1 / float((shares**2).sum()) - 1
        self.share = self._over_pairs(weights)
        if self.columns == 1 and self.count == self.samples:
            self._subsets = []  # every sample is a group of its own

    @property
    def problem(self) -> str:
        """Why the groups are too few for a variance; empty if they are not."""
        if self.count < min(MIN_GROUPS, self.samples):
            return f"the test samples are of {self.count} group{'s' * (self.count > 1)}; {MIN_GROUPS} are needed"
        if self.share > MOST_SHARED and self.count < self.samples:
            return f"{100 * self.share:.0f} % of all pairs of test samples share a group; at most {100 * MOST_SHARED:.0f} % may"
        return ""

    def _sums(self, place: int, values: Array) -> Array:
        """Sum of ``values`` over the samples of each id (``place`` 0), or of each set of ids."""
        _, rows, labels = self._subsets[place]
        return np.bincount(labels, weights=values[rows]).astype(np.float64)

    def _over_pairs(self, values: Array) -> float:
        """Sum of products over all dependent pairs."""
        if not self._subsets:
            return float((values**2).sum())
        return sum(sign * float((self._sums(place, values) ** 2).sum()) for place, (sign, _, _) in enumerate(self._subsets))

    def variance(self, parts: Array) -> float:
        """Variance of a mean. Its deviation from its expectation is the sum of ``parts`` ``(M,)``, which sum to zero.

        The sum over dependent pairs is too small by the share of dependent pairs, because the deviations are from the sample
        mean. With 10 speakers and mixtures of two this is more than a third. Division by ``1 - share`` corrects it, exactly if
        all samples have the same number of dependent partners. With one id per sample and groups of equal size, the factor is
        G / (G - 1). The result is never less than the variance of independent samples.
        """
        least = self.independent(parts)
        if not self._subsets:
            return least
        return max(least, self._over_pairs(parts) / (1 - self.share))

    def independent(self, parts: Array) -> float:
        """The same, as if all samples were independent."""
        return float((parts**2).sum()) / (1 - self.squares)

    def third(self, parts: Array) -> float:
        """Third cumulant of the mean: the sum of the cubed sums of each id."""
        return float(((self._sums(0, parts) if self._subsets else parts) ** 3).sum())


def same_groups(groups: Sequence[Ids | None]) -> bool:
    """Whether these are the same groups, or all absent."""
    first = groups[0]
    return all(one is first or (one is not None and first is not None and np.array_equal(one, first)) for one in groups)


def dependence(sizes: Sequence[int], groups: Sequence[Ids | None]) -> tuple[Dependence, bool]:
    """The dependence of a mean over seeds of means over test samples.

    Args:
        sizes: number of test samples of each seed.
        groups: their groups.

    Returns:
        The dependence, and whether all seeds have the same test samples (as many, of the same groups). Then it is one of these
        samples; else one of all seeds' samples after one another, whose ids are of one pool.
    """
    if all(size == sizes[0] for size in sizes) and same_groups(groups):
        return Dependence(np.full(sizes[0], 1 / sizes[0]), groups[0]), True
    weights = np.concatenate([np.full(size, 1 / size / len(sizes)) for size in sizes])
    known = [one for one in groups if one is not None]
    if len(known) < len(groups) or len({one.reshape(len(one), -1).shape[1] for one in known}) > 1:
        return Dependence(weights), False
    return Dependence(weights, np.concatenate([one.reshape(len(one), -1) for one in known])), False


def mean_parts(pulls: Sequence[Array], same: bool) -> Array:
    """What each sample adds to the deviation of a mean over seeds, from the influence values of each seed.

    Args:
        pulls: per seed, ``(N,)``.
        same: as returned by :func:`dependence`.
    """
    if same:
        return np.mean(pulls, axis=0) / len(pulls[0])
    return np.concatenate([pull / len(pull) / len(pulls) for pull in pulls])


def sample_variance(pulls: Sequence[Array], groups: Sequence[Ids | None]) -> tuple[float, float]:
    """Variance over test samples of a mean over seeds, and its degrees of freedom.

    Args:
        pulls: :func:`ocd_bench.stats.influence` of each seed ``(N,)``.
        groups: the groups of each seed's test samples, with no :attr:`Dependence.problem`.
    """
    depends, same = dependence([len(pull) for pull in pulls], groups)
    return depends.variance(mean_parts(pulls, same)), depends.freedom
