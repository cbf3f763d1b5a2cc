"""Reductions as functions of feature means, and the influence of each sample on a reduced value.

Every reduction (:data:`ocd_bench.metrics.REDUCTIONS`) is a function of sample means of a few features of the scores. That makes
values without one sample closed forms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ocd_bench.metrics import matthews

Array = NDArray[np.float64]


def _matthews_from_shares(shares: Array) -> Array:
    # A share that should be zero may come out as 1e-17; a product of margins with such a share is zero too.
    tn, fp, fn, tp = np.moveaxis(np.maximum(shares, 0.0), -1, 0)
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
    """How much each sample moves the value: jackknife pseudo-values ``(..., N)`` less their mean.

    For a mean these are the scores less their mean. Efron & Tibshirani, *An Introduction to the Bootstrap*, chapter 11.
    """
    if reduce == "mean":
        scores = np.asarray(scores, dtype=float)
        return scores - scores.mean(axis=-1, keepdims=True)
    values = features(scores, reduce)
    n = values.shape[-2]
    if n < 2:
        return np.zeros(values.shape[:-1])
    left_out = combine((values.sum(axis=-2, keepdims=True) - values) / (n - 1), reduce)
    return (n - 1) * (left_out.mean(axis=-1, keepdims=True) - left_out)


def is_binary(scores: Array, reduce: str) -> bool:
    """Whether the value is a share of right answers: a mean of scores that are all 0 or 1."""
    return reduce == "mean" and bool(((scores == 0) | (scores == 1)).all())


def one_answer(codes: Array) -> float:
    """The largest influence that one changed answer has on a Matthews correlation.

    Args:
        codes: scores ``(N,)`` of the reduction ``matthews``.

    Returns:
        N times the largest change of the value when one prediction is changed.
    """
    counts = np.bincount(codes.astype(int), minlength=4).astype(float)
    value, moves = float(combine(counts / len(codes), "matthews")), [0.0]
    for here, there in ((0, 1), (1, 0), (2, 3), (3, 2)):
        if counts[here]:
            changed = counts.copy()
            changed[here] -= 1
            changed[there] += 1
            moves.append(abs(float(combine(changed / len(codes), "matthews")) - value))
    return max(moves) * len(codes)
