"""Metrics: their units, and the reductions of per-sample scores to one number.

A task returns per-sample scores. The number in the table is a *reduction* of them. Reductions have names, so that a stored
run can be reduced, bootstrapped and compared again without the plugin that made it.

.. versionadded:: 0.1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ocd_bench.errors import UsageError

if TYPE_CHECKING:
    from numpy import ndarray as Array

    from ocd_bench.task import Task


@dataclass(frozen=True)
class Metric:
    """Unit, direction and reduction of one metric.

    Args:
        unit: as printed, for example ``"fraction"``, ``"nats"``, ``"dB"``; empty for a bare number.
        higher_is_better: the direction in which a change is an improvement.
        reduce: a key of :data:`REDUCTIONS`.

    Raises:
        ValueError: for an unknown reduction.

    Example:
        >>> Metric("dB", higher_is_better=True)
        Metric(unit='dB', higher_is_better=True, reduce='mean')

    .. versionadded:: 0.1
    """

    unit: str = ""
    higher_is_better: bool = True
    reduce: str = "mean"

    def __post_init__(self) -> None:
        if self.reduce not in REDUCTIONS:
            raise ValueError(f"unknown reduction {self.reduce!r}; known: {', '.join(sorted(REDUCTIONS))}")


def _mean(scores: Array) -> Array:
    return scores.mean(axis=-1)


def _root_mean(scores: Array) -> Array:
    return scores.mean(axis=-1) ** 0.5


def _matthews(codes: Array) -> Array:
    """Matthews correlation of two classes; a score is ``2 * target + prediction`` (0, 1, 2 or 3)."""
    tn, fp, fn, tp = ((codes == k).sum(axis=-1).astype(float) for k in range(4))
    return matthews(tn, fp, fn, tp)


def matthews(tn: Array, fp: Array, fn: Array, tp: Array, tiny: float = 0.0) -> Array:
    """Matthews correlation ``(...)`` of two classes.

    Zero if a class is absent from the targets or from the predictions, as in scikit-learn.

    Args:
        tn, fp, fn, tp: numbers, or shares, of true and false negatives and positives, each ``(...)``.
        tiny: a denominator up to this is zero.

    Example:
        >>> import numpy as np
        >>> _matthews(np.array([0, 0, 3, 3])), _matthews(np.array([0, 1, 2, 3]))
        (array(1.), array(0.))
    """
    import numpy as np

    denominator = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    known = denominator > tiny
    return np.where(known, (tp * tn - fp * fn) / np.where(known, denominator, 1.0), 0.0)


REDUCTIONS: Mapping[str, Callable[[Array], Array]] = {"mean": _mean, "root_mean": _root_mean, "matthews": _matthews}
"""By name, functions from scores ``(..., N)`` to values ``(...)``: ``mean``; ``root_mean``, the square root of the mean;
``matthews``, Matthews correlation of two classes, where a score is ``2 * target + prediction``."""

CERTAINTY = ("confidence", "correct")
"""Scores that are also stored if a task has class logits: the largest class probability, and whether that class is right."""

GROUPS = "groups"
"""What is stored beside the scores where samples have groups (:attr:`ocd_bench.Samples.groups`); no metric has this name."""

POSITION = "position"
"""What is stored beside the scores of a stream that is not in the order of the data: each sample's place in it, from 0."""

KNOWN: Mapping[str, Metric] = {
    "accuracy": Metric("fraction", True),
    "cross_entropy": Metric("nats", False),
    "rmse": Metric("", False, "root_mean"),
    "mse": Metric("", False),
    "mae": Metric("", False),
    "psnr": Metric("dB", True),
    "ssim": Metric("", True),
    "chamfer": Metric("", False),
    "si_sdri": Metric("dB", True),
    "si_sdr": Metric("dB", True),
    "matthews": Metric("", True, "matthews"),
}
"""Metrics that need no declaration. A task declares any other in ``Task.metric_info``."""


def metric_info(task: Task, name: str) -> Metric:
    """How a metric is reduced and printed.

    Raises:
        UsageError: if its name is not a common one and the task does not declare it.
    """
    if name in (GROUPS, POSITION):
        what = "groups" if name == GROUPS else "places in a stream"
        raise UsageError(
            f"task {task.name!r}: no metric can be named {name!r}: the {what} of samples are stored under that name"
        )
    info = task.metric_info.get(name) or KNOWN.get(name)
    if info is None:
        raise UsageError(
            f"task {task.name!r}: metric {name!r} is not a common one; declare it in metric_info "
            "(ocd_bench.Metric: unit, higher_is_better, reduce)"
        )
    return info


def primary_metric(task: Task, reported: Mapping[str, Any]) -> str:
    """The first of the task's primary metrics that was reported.

    Raises:
        UsageError: if none was.
    """
    wanted = [task.primary_metric] if isinstance(task.primary_metric, str) else list(task.primary_metric)
    for name in wanted:
        if name in reported:
            return name
    raise UsageError(f"task {task.name!r}: metrics() reports {', '.join(reported)}, not its primary_metric {', '.join(wanted)}")
