"""Variances over few seeds, moderated by the other rows of the same comparison.

With three seeds in each run, a variance has four degrees of freedom. After an adjustment for many rows, Student's quantile is
then about nine, and a comparison would detect almost nothing. The rows of a table become similar when a row's variance over
seeds is divided by its variance over test samples. So each row's ratio is shrunk towards the common ratio; the better the rows
agree, the stronger the shrinkage. This is the moderated variance of Smyth (2004), *Linear models and empirical Bayes methods*,
section 6, as in the package ``limma``.

We add two limits. First, rows of one dataset share seeds, and rows with correlated errors add little evidence: the weight of
the prior is at most the number of independent directions among the rows. Second, the prior never has more weight than the
row's own seeds, so a row that varies more than the others keeps at least half of its own variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

from ocd_bench.stats import Array

FLOOR = 0.02
"""Smaller ratios are raised to this value: with few test samples, several seeds may have exactly the same result."""


@dataclass(frozen=True)
class Spread:
    """One row's variance over seeds.

    Attributes:
        group: rows of one group share base models and seeds.
        ratio: variance of the change over seeds, divided by its variance over test samples.
        freedom: degrees of freedom of the variance over seeds.
        residuals: by (run, seed), the seed's value minus its run's mean, in units of the standard deviation over test samples.
    """

    group: tuple[str, str]
    ratio: float
    freedom: int
    residuals: dict[tuple[int, int], float]


def moderate(rows: Sequence[Spread]) -> list[tuple[float, float]]:
    """For each row its moderated ratio and degrees of freedom."""
    if len(rows) < 2:
        return [(row.ratio, float(row.freedom)) for row in rows]
    prior, weight = _prior([row.ratio for row in rows], [row.freedom for row in rows])
    directions = independent_directions(rows)
    result = []
    for row in rows:
        counts = min(weight, row.freedom * (directions - 1), row.freedom)
        ratio = (counts * prior + row.freedom * row.ratio) / (counts + row.freedom)
        result.append((ratio, row.freedom + counts))
    return result


def _prior(ratios: Sequence[float], freedoms: Sequence[int]) -> tuple[float, float]:
    """Location and degrees of freedom of the ratios' common distribution, from mean and variance of their logarithms."""
    half = np.asarray(freedoms, dtype=float) / 2
    logs = np.log(np.maximum(ratios, FLOOR)) - digamma(half) + np.log(half)
    excess = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if excess <= 0:
        return float(np.exp(logs.mean())), np.inf
    weight = 2 * _trigamma_inverse(excess)
    return float(np.exp(logs.mean() + digamma(weight / 2) - np.log(weight / 2))), weight


def _trigamma_inverse(value: float) -> float:
    """Newton's method on 1/trigamma, which is convex and nearly linear (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x


def independent_directions(rows: Sequence[Spread]) -> float:
    """The effective number of rows with independent residuals, summed over groups; 1 for rows that are fully correlated.

    The participation ratio tr(G)^2 / tr(G^2) of the Gram matrix of the residuals; it never exceeds the number of seeds, so it
    errs on the low side.
    """
    groups: dict[tuple[str, str], list[Spread]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    total = 0.0
    for members in groups.values():
        columns = {name: place for place, name in enumerate({name: None for row in members for name in row.residuals})}
        matrix: Array = np.zeros((len(members), len(columns)))
        for place, row in enumerate(members):
            for name, value in row.residuals.items():
                matrix[place, columns[name]] = value
        gram = matrix.T @ matrix
        square = float((gram**2).sum())
        total += float(np.trace(gram)) ** 2 / square if square > 0 else 0.0
    return max(1.0, total)
