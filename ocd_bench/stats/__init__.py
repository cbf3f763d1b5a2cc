"""Statistics of a table: spread over seeds, intervals over test samples and over seeds, tests, Holm's adjustment.

There are two separate sources of variation. *Seeds*: another initialisation and another draw of the training. The SD after a
mean is its size. *Test samples*: another test set of the same kind; if samples have groups, with other speakers, queries or
scenes. A claim about a method needs both (:attr:`Estimate.sign`).
"""

from ocd_bench.stats.dependence import MIN_GROUPS, Dependence, Ids, dependence, mean_parts, same_groups, sample_variance
from ocd_bench.stats.intervals import (
    MIN_SAMPLES,
    SEEDS,
    SURE_GROUPS,
    SURE_SAMPLES,
    Estimate,
    Paired,
    Part,
    estimate,
)
from ocd_bench.stats.reductions import Array, combine, features, influence, reduced
from ocd_bench.stats.significance import (
    LEVEL,
    holm,
    mean_sd,
    pooled_variance,
    student_p,
    swap_test,
    two_part_margin,
    two_part_p,
)

__all__ = [
    "LEVEL",
    "MIN_GROUPS",
    "MIN_SAMPLES",
    "SEEDS",
    "SURE_GROUPS",
    "SURE_SAMPLES",
    "Array",
    "Dependence",
    "Estimate",
    "Ids",
    "Paired",
    "Part",
    "combine",
    "dependence",
    "estimate",
    "features",
    "holm",
    "influence",
    "mean_parts",
    "mean_sd",
    "pooled_variance",
    "reduced",
    "same_groups",
    "sample_variance",
    "student_p",
    "swap_test",
    "two_part_margin",
    "two_part_p",
]
