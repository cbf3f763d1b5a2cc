"""How much the seeds' changes lean one way, compared with what single changed answers explain.

If every changed answer of a row is a draw of its own, the variance of a seed's change is that of these answers: the ratio of
the two is 1. If a fit moves many answers of its seed together, the ratio is larger. Three seeds say little about a ratio, so
each row's is shrunk towards that of all rows with changed answers, which is itself shrunk towards 1.
``benchmarks/gate_power.py`` shows what this finds, and how often it is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocd_bench.stats import Array, Ids, sample_variance

WEIGHT = 16.0
"""Degrees of freedom of the expectation 1 among all rows, and of all rows beside one row's own seeds."""


@dataclass(frozen=True)
class Lean:
    """One row.

    Attributes:
        ratio: variance over seeds of the seeds' changes, divided by their mean variance over test samples.
        freedom: number of seeds - 1.
    """

    ratio: float
    freedom: int


def lean_of(changes: Array, pulls: Sequence[Array], groups: Sequence[Ids | None]) -> Lean | None:
    """The row's ratio; None if the change has no variance over samples.

    Args:
        changes: by seed ``(S,)``.
        pulls: per seed, the change's influence values ``(N,)``.
    """
    single = float(np.mean([sample_variance([pull], [group])[0] for pull, group in zip(pulls, groups, strict=True)]))
    return Lean(float(changes.var(ddof=1)) / single, len(changes) - 1) if single > 0 else None


def leaning(rows: Sequence[Lean]) -> list[tuple[float, float]]:
    """For each row its shrunk ratio, and its degrees of freedom."""
    freedom = sum(row.freedom for row in rows)
    together = (WEIGHT + sum(row.freedom * row.ratio for row in rows)) / (WEIGHT + freedom)
    return [((WEIGHT * together + row.freedom * row.ratio) / (WEIGHT + row.freedom), WEIGHT + row.freedom) for row in rows]
