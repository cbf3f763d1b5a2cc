"""Statistics of a table: spread over seeds, intervals over test samples and over seeds, tests, Holm's adjustment.

Two sources of variation are kept apart. *Seeds*: another initialisation, another draw of the training; its size is the SD that
follows a mean. *Test samples*: another test set of the same kind, with other speakers, queries or scenes where samples come in
groups. A claim about a method needs both (:attr:`Estimate.sign`).
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
