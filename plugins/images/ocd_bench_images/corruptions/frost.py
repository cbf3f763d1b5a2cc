"""Frost textures of our own. The published ones are photographs whose licences are not stated, so these are computed: streaks
of filtered noise in several directions, as ice needles lie, on a cloud, in the mean colours and with the spread of the
photographs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

COLOURS = (
    ((0.31, 0.58, 0.65), 0.07),
    ((0.79, 0.80, 0.84), 0.07),
    ((0.78, 0.81, 0.85), 0.07),
    ((0.54, 0.60, 0.65), 0.085),
    ((0.44, 0.48, 0.53), 0.14),
)
"""Mean colour of each texture and its standard deviation."""
NEEDLES = 24
"""Length of a needle in pixels of a full-size texture."""
DIRECTIONS = 6


@lru_cache(maxsize=8)
def textures(size: float, side: int) -> NDArray[np.float64]:
    """Five textures ``(5, S, S, 3)`` in [0, 1] with S at least twice ``side``.

    Args:
        size: 1 is full size (for pictures of 224 pixels); the structures shrink with it.
        side: longer side of the pictures in pixels.
    """
    extent = max(2 * side, 64)
    stream = np.random.RandomState(20221004)
    return np.stack([_texture(extent, size, colour, spread, stream) for colour, spread in COLOURS])


def _texture(
    extent: int, size: float, colour: tuple[float, float, float], spread: float, stream: np.random.RandomState
) -> NDArray[np.float64]:
    length = max(1.5, NEEDLES * size)
    needles = np.zeros((extent, extent))
    for turn in range(DIRECTIONS):
        layer = ndimage.gaussian_filter(stream.standard_normal((extent, extent)), (length, max(0.6, length / 12)), mode="wrap")
        angle = 180 * (turn + stream.uniform()) / DIRECTIONS
        layer = ndimage.rotate(layer, angle, reshape=False, order=1, mode="grid-wrap")
        needles = np.maximum(needles, layer / layer.std())
    cloud = ndimage.gaussian_filter(stream.standard_normal((extent, extent)), 3 * length, mode="wrap")
    values = (needles - needles.mean()) / needles.std() + 0.6 * cloud / cloud.std()
    values = np.clip((values - values.mean()) / values.std(), -2.5, 2.5)
    return np.clip(np.array(colour) + spread * values[..., None], 0, 1)
