"""Published blurs, and the elastic transform."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ocd_bench_images.corruptions.draws import Draws
from ocd_bench_images.corruptions.sampling import Pictures, bilinear, clipped_zoom, cut, mirror, nearest, reflect, settle


def smooth(pictures: Pictures, sigma: float) -> Pictures:
    """Gaussian filter of ``sigma`` pixels over height and width, cut at four sigma; edges continued."""
    return ndimage.gaussian_filter(pictures, (0, sigma, sigma, 0), mode="nearest", truncate=4.0)


def gaussian_blur(pictures: Pictures, sigma: float, draws: Draws) -> Pictures:
    """Gaussian filter."""
    return smooth(pictures, sigma)


def defocus_blur(pictures: Pictures, level: tuple[float, float], draws: Draws) -> Pictures:
    """Mean over a disc with soft edges: a lens out of focus."""
    radius, edge = level
    reach = max(8, math.ceil(radius))
    square = np.arange(-reach, reach + 1) ** 2
    disc = (square[:, None] + square <= radius**2).astype(np.float64)
    offsets = np.arange(3 if radius <= 8 else 5) - (1 if radius <= 8 else 2)
    line = np.exp(-(offsets**2) / (2 * edge**2))
    line /= line.sum()
    kernel = ndimage.correlate1d(ndimage.correlate1d(disc / disc.sum(), line, 0, mode="mirror"), line, 1, mode="mirror")
    used = np.flatnonzero(kernel.max(0) > 1e-12)
    kernel = kernel[used[0] : used[-1] + 1, used[0] : used[-1] + 1]
    return ndimage.correlate(pictures, kernel[None, :, :, None], mode="mirror")


def glass_blur(pictures: Pictures, level: tuple[float, int, int], draws: Draws) -> Pictures:
    """Gaussian filter, then every pixel takes the value of a random neighbour, one after the other from the lower right, some
    times over, then the filter again.

    The published code means to swap two pixels; its assignment of array views copies one over the other. Copying is what the
    published files contain, so it is done here.
    """
    sigma, reach, rounds = level
    levels = cut(smooth(pictures, sigma))
    count, height, width = levels.shape[:3]
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    steps = draws.integers(-reach, reach, (rounds, max(0, len(rows)), max(0, len(columns)), 2))
    sample = np.arange(count)
    for turn in range(rounds):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                right, down = steps[:, turn, i, j].T
                levels[:, row, column] = levels[sample, row + down, column + right]
    return smooth(levels / 255, sigma)


def motion(pictures: Pictures, radius: float, sigma: float, degrees: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Half a Gaussian of ``sigma`` along a straight path of ``2 radius + 1`` pixels from each pixel, edges continued, to 8
    bits: ImageMagick's motion blur by its documentation. ``degrees`` ``(N,)`` run clockwise from the right."""
    length = 2 * math.ceil(radius) + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    angle = np.deg2rad(degrees)
    count, height, width = pictures.shape[:3]
    sample = np.arange(count)[:, None, None]
    total = np.zeros_like(pictures)
    for step, weight in enumerate(weights):
        right = np.ceil(settle(step * np.cos(angle) - 0.5)).astype(int)[:, None, None]
        down = np.ceil(settle(step * np.sin(angle) - 0.5)).astype(int)[:, None, None]
        rows = np.clip(np.arange(height)[None, :, None] + down, 0, height - 1)
        columns = np.clip(np.arange(width)[None, None, :] + right, 0, width - 1)
        total += weight * pictures[sample, rows, columns]
    return nearest(total)


def motion_blur(pictures: Pictures, level: tuple[float, float], draws: Draws) -> Pictures:
    """Motion within 45 degrees of the horizontal."""
    return motion(pictures, *level, draws.uniform(-45, 45)) / 255


def zoom_blur(pictures: Pictures, factors: Sequence[float], draws: Draws) -> Pictures:
    """Mean of the picture and of its middle under each magnification."""
    total = pictures.copy()
    for factor in factors:
        total += clipped_zoom(pictures, factor)
    return total / (len(factors) + 1)


def elastic_transform(pictures: Pictures, level: tuple[float, float, float], draws: Draws) -> Pictures:
    """A random affine map (three points move by up to ``corners`` pixels each way), then every pixel from a place nearby:
    uniform noise smoothed by ``sigma``, times ``strength`` pixels."""
    strength, sigma, corners = level
    count, height, width = pictures.shape[:3]
    middle, reach = np.array([width // 2, height // 2], float), min(height, width) // 3
    points = middle + reach * np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    moved = points + draws.uniform(-corners, corners, (3, 2))
    ones = np.ones((count, 3, 1))
    # moved = [points, 1] @ map. Sampling needs the source of each pixel of the result, so the inverse map is used.
    back = np.linalg.solve(np.concatenate([moved, ones], -1), np.broadcast_to(points, (count, 3, 2)))
    across, down = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    place = np.stack([across, down, np.ones_like(across)], -1) @ back[:, None]
    changed = bilinear(pictures, place[..., 1], place[..., 0], mirror)
    if not strength:
        return changed
    fields = draws.uniform(-1, 1, (2, height, width))
    fields = strength * ndimage.gaussian_filter(fields, (0, 0, sigma, sigma), mode="reflect", truncate=3.0)
    return bilinear(changed, down + fields[:, 1], across + fields[:, 0], reflect)
