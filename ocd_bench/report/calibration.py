"""Calibration of a method from stored scores: reliability curve and expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocd_bench.metrics import CERTAINTY
from ocd_bench.results import Key, Run
from ocd_bench.stats import Array

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Calibration of one method over all of its seeds' test samples.

    Attributes:
        curve: for each confidence bin that is not empty: mean confidence, accuracy, number of samples.
        error: expected calibration error: mean over samples of |mean confidence - accuracy| of their bin, in [0, 1].
    """

    curve: tuple[tuple[float, float, int], ...]
    error: float


def reliability(confidence: Array, correct: Array, bins: int = BINS) -> Reliability:
    """Equal-width bins, as in Guo et al., *On calibration of modern neural networks* (ICML 2017), equation 3.

    Args:
        confidence: largest class probability ``(N,)`` in [0, 1], N > 0.
        correct: 1 where that class is the target, else 0, ``(N,)``.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # bins are open at their lower end
    counts = np.bincount(place, minlength=bins)
    kept = counts > 0
    confidences, accuracies = (
        np.bincount(place, values, minlength=bins)[kept] / counts[kept] for values in (confidence, correct)
    )
    error = float((counts[kept] * np.abs(confidences - accuracies)).sum() / len(confidence))
    curve = tuple(zip(confidences.tolist(), accuracies.tolist(), counts[kept].tolist(), strict=True))
    return Reliability(curve, error)


def of_cells(run: Run, keys: Sequence[Key]) -> Reliability | None:
    """Calibration of these cells together; None if one has no confidences (a task without class probabilities)."""
    stored: list[list[Array]] = [[], []]
    for key in keys:
        for name, arrays in zip(CERTAINTY, stored, strict=True):
            array = None if name in run.cells[key]["metrics"] else run.scores(key, name)
            if array is None:
                return None
            arrays.append(array)
    if not sum(len(array) for array in stored[0]):
        return None
    return reliability(np.concatenate(stored[0]), np.concatenate(stored[1]))
