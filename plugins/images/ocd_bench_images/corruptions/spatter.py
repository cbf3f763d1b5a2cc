"""The published spatter: drops of water or mud. The image operations are those of OpenCV, written from its documentation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ocd_bench_images.corruptions.blur import smooth
from ocd_bench_images.corruptions.draws import Draws
from ocd_bench_images.corruptions.sampling import Pictures, cut, luminance, settle

WATER = np.array([175, 238, 238]) / 255
MUD = np.array([63, 42, 20]) / 255
FARTHEST = 20
"""Distances to an edge are cut off here, in pixels."""
RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
"""The filter that lights a drop from one side."""
STEPS = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}
"""Lengths of a step to a neighbour in the distance transform with a 5 x 5 mask."""


def spatter(pictures: Pictures, level: tuple[float, ...], draws: Draws) -> Pictures:
    """Smoothed noise above a threshold: water (lit drops) or mud (opaque spots)."""
    mean, deviation, sigma, threshold, strength, mud = level
    liquid = smooth(mean + deviation * draws.normal((*pictures.shape[1:3], 1)), sigma)
    liquid = settle(liquid)
    if mud:
        mask = smooth((liquid > threshold).astype(np.float64), strength)
        mask[settle(mask) < 0.8] = 0
        return (1 - mask) * pictures + mask * _colour(MUD, pictures.shape[-1])
    liquid[liquid < threshold] = 0
    levels = cut(liquid)[..., 0]
    relief = ndimage.correlate(_equalised(_box(_distance(edges(levels)), whole=False)), RELIEF[None], mode="mirror")
    lit = levels * _box(np.clip(relief, 0, 255), whole=True)
    largest = lit.max((1, 2), keepdims=True)
    mask = strength * lit / np.where(largest > 0, largest, 1.0)
    return pictures + mask[..., None] * _colour(WATER, pictures.shape[-1])


def edges(levels: NDArray[np.uint8], low: float = 50, high: float = 150) -> NDArray[np.bool_]:
    """Canny's edges of ``(N, H, W)``: Sobel slopes, thinned across the slope's direction, weak ones kept beside strong ones."""
    picture = levels.astype(np.int64)
    across = ndimage.correlate(picture, np.array([[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]]), mode="nearest")
    down = ndimage.correlate(picture, np.array([[[-1, -2, -1], [0, 0, 0], [1, 2, 1]]]), mode="nearest")
    strength = np.abs(across) + np.abs(down)
    padded = np.pad(strength, ((0, 0), (1, 1), (1, 1)))

    def beside(row: int, column: int) -> NDArray[np.int64]:
        height, width = levels.shape[1:]
        return padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    tangent = np.tan(np.pi / 8)
    flat = np.abs(down) < tangent * np.abs(across)
    steep = np.abs(down) > (tangent + 2) * np.abs(across)
    falling = (across < 0) != (down < 0)
    peak = np.where(
        flat,
        (strength > beside(0, -1)) & (strength >= beside(0, 1)),
        np.where(
            steep,
            (strength > beside(-1, 0)) & (strength >= beside(1, 0)),
            np.where(
                falling,
                (strength > beside(-1, 1)) & (strength > beside(1, -1)),
                (strength > beside(-1, -1)) & (strength > beside(1, 1)),
            ),
        ),
    )
    weak, strong = peak & (strength > low), peak & (strength > high)
    connected = np.zeros((3, 3, 3), bool)
    connected[1] = True
    regions, _ = ndimage.label(weak, structure=connected)
    return np.isin(regions, np.unique(regions[strong])) & weak


def _distance(edge: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Length of the shortest path of :data:`STEPS` to an edge, at most :data:`FARTHEST`."""
    moves = {
        (sign * a, other * b): length
        for (x, y), length in STEPS.items()
        for a, b in ((x, y), (y, x))
        for sign in (1, -1)
        for other in (1, -1)
    }
    height, width = edge.shape[1:]
    distance = np.where(edge, 0.0, float(FARTHEST))
    while True:
        padded = np.pad(distance, ((0, 0), (2, 2), (2, 2)), constant_values=FARTHEST)
        shorter = distance.copy()
        for (row, column), length in moves.items():
            part = padded[:, 2 + row : 2 + row + height, 2 + column : 2 + column + width]
            np.minimum(shorter, part + length, out=shorter)
        if np.array_equal(shorter, distance):
            return distance
        distance = shorter


def _box(values: NDArray, whole: bool) -> NDArray[np.float64]:
    """Mean over 3 x 3 pixels as 8-bit numbers: rounded (``whole``) or cut off."""
    mean = settle(ndimage.uniform_filter(values.astype(np.float64), (0, 3, 3), mode="mirror"))
    return np.floor(mean + 0.5) if whole else np.floor(mean)


def _equalised(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Each picture's levels spread over 0 to 255 by their cumulative frequency; a flat picture stays as it is."""
    levels = values.astype(np.int64)
    result = np.empty_like(levels)
    for place, picture in enumerate(levels):
        counts = np.bincount(picture.ravel(), minlength=256)
        lowest = int(np.flatnonzero(counts)[0])
        rest = picture.size - counts[lowest]
        table = np.cumsum(np.where(np.arange(256) > lowest, counts, 0)) * (255 / rest) if rest else np.arange(256.0)
        result[place] = np.rint(settle(table)).astype(np.int64)[picture]
    return result


def _colour(colour: NDArray[np.float64], channels: int) -> NDArray[np.float64]:
    return colour if channels == 3 else luminance(colour[None, None, None])[0, 0, 0]
