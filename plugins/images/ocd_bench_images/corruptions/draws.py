"""Random numbers of corruptions: one stream per picture, so that a picture is changed in the same way in any subset or
order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


class Draws:
    """Streams of N pictures; every method returns ``(N, *shape)``.

    The streams are those of ``numpy.random.RandomState``, which NumPy promises never to change.

    Args:
        seeds: one sequence of 32-bit words for each picture.
    """

    def __init__(self, seeds: Sequence[NDArray[np.uint32]]) -> None:
        self._seeds = seeds

    @cached_property
    def _streams(self) -> list[np.random.RandomState]:
        return [np.random.RandomState(seed) for seed in self._seeds]

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Standard normal numbers."""
        return self._each(lambda stream: stream.standard_normal(shape))

    def uniform(self, low: float, high: float, shape: tuple[int, ...] = ()) -> NDArray[np.float64]:
        """Numbers from [low, high)."""
        return self._each(lambda stream: stream.uniform(low, high, shape))

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
        """Integers from low to high - 1."""
        return self._each(lambda stream: stream.randint(low, high, shape))

    def poisson(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Counts of the expected values ``rates`` ``(N, *shape)``."""
        return np.stack([stream.poisson(rate) for stream, rate in zip(self._streams, rates, strict=True)]).astype(np.float64)

    def _each(self, draw: Callable[[np.random.RandomState], object]) -> NDArray:
        return np.stack([np.asarray(draw(stream)) for stream in self._streams])


def picture_seeds(pictures: NDArray[np.uint8], seed: int) -> list[NDArray[np.uint32]]:
    """A seed for each picture ``(N, ...)``: from ``seed``, its pixels, and how many equal pictures stand before it."""
    seen: Counter[bytes] = Counter()
    seeds = []
    for picture in pictures:
        pixels = hashlib.sha256(picture.tobytes()).digest()
        text = b"%d|%b|%d" % (seed, pixels, seen[pixels])
        seeds.append(np.frombuffer(hashlib.sha256(text).digest()[:16], "<u4"))
        seen[pixels] += 1
    return seeds
