"""Published weather: snow, frost, fog."""

from __future__ import annotations

import numpy as np

from ocd_bench_images.corruptions.blur import motion
from ocd_bench_images.corruptions.draws import Draws
from ocd_bench_images.corruptions.frost import textures
from ocd_bench_images.corruptions.sampling import Pictures, clipped_zoom, cut, luminance, settle


def fog(pictures: Pictures, level: tuple[float, float], draws: Draws) -> Pictures:
    """Add a plasma cloud. The largest value of the picture is kept."""
    strength, decay = level
    height, width = pictures.shape[1:3]
    side = 1 << (max(height, width) - 1).bit_length()
    peak = pictures.max((1, 2, 3), keepdims=True)
    cloud = plasma(side, decay, draws)[:, :height, :width, None]
    return (pictures + strength * cloud) * peak / (peak + strength)


def plasma(side: int, decay: float, draws: Draws) -> Pictures:
    """Diamond-square clouds ``(N, side, side)`` in [0, 1], periodic; ``side`` is a power of two.

    Each new point is the mean of its four neighbours plus noise uniform in plus or minus the square of an amplitude, which is
    divided by ``decay`` whenever the distance of points is halved. The first amplitude, 100, cancels at the end.
    """
    step, amplitude = side, 100.0
    cloud = draws.uniform(0, 0, (side, side))

    def noise(count: int) -> Pictures:
        return amplitude * draws.uniform(-amplitude, amplitude, (count, count))

    while step >= 2:
        half, count = step // 2, side // step
        corners = cloud[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, 1)
        middles = (pairs + np.roll(pairs, -1, 2)) / 4 + noise(count)
        cloud[:, half::step, half::step] = middles
        beside = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 2)
        cloud[:, ::step, half::step] = beside / 4 + noise(count)
        above = middles + np.roll(middles, 1, 2) + corners + np.roll(corners, -1, 1)
        cloud[:, half::step, ::step] = above / 4 + noise(count)
        step, amplitude = half, amplitude / decay
    cloud -= cloud.min((1, 2), keepdims=True)
    largest = cloud.max((1, 2), keepdims=True)
    return cloud / np.where(largest > 0, largest, 1.0)


def frost(pictures: Pictures, level: tuple[float, float, float], draws: Draws) -> Pictures:
    """The picture and a random piece of one of five frost textures, weighted. The textures are our own, see
    :mod:`ocd_bench_images.corruptions.frost`; the third number of ``level`` is their size."""
    kept, added, size = level
    height, width, channels = pictures.shape[1:]
    bank = textures(size, max(height, width))
    which = draws.integers(0, len(bank))
    places = draws.uniform(0, 1, (2,))
    pieces = []
    for texture, (down, across) in zip(bank[which], places, strict=True):
        row = int(down * (texture.shape[0] - height))
        column = int(across * (texture.shape[1] - width))
        pieces.append(texture[row : row + height, column : column + width])
    layer = np.stack(pieces)
    return kept * pictures + added * (layer if channels == 3 else luminance(layer))


def snow(pictures: Pictures, level: tuple[float, ...], draws: Draws) -> Pictures:
    """Flakes on a whitened picture: enlarged noise above a threshold, blurred along a path from above, laid on twice, once
    turned by 180 degrees."""
    mean, deviation, zoom, threshold, radius, sigma, weight = level
    flakes = mean + deviation * draws.normal((*pictures.shape[1:3], 1))
    flakes = settle(clipped_zoom(flakes, zoom))
    flakes[flakes < threshold] = 0
    layer = motion(cut(flakes) / 255, radius, sigma, draws.uniform(-135, -45)) / 255
    white = np.maximum(pictures, luminance(pictures) * 1.5 + 0.5)
    return weight * pictures + (1 - weight) * white + layer + layer[:, ::-1, ::-1]
