"""Image operations on batches ``(N, H, W, C)`` that several corruptions need, and rounding to 8 bits."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float64]
DIGITS = 6
"""Decimal digits kept before a value is compared or cut to an integer: processors differ beyond the fifteenth."""


def settle(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values rounded so that every processor continues with the same numbers."""
    return np.round(values, DIGITS)


def cut(pictures: Pictures) -> NDArray[np.uint8]:
    """To 8 bits as published: clipped to [0, 1], times 255, the fraction cut off."""
    return np.floor(settle(np.clip(pictures, 0, 1) * 255)).astype(np.uint8)


def nearest(pictures: Pictures) -> NDArray[np.uint8]:
    """To 8 bits, to the nearest integer (half a step upwards)."""
    return np.floor(settle(np.clip(pictures, 0, 1) * 255) + 0.5).astype(np.uint8)


def mirror(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Places beyond the edge reflected about the centre of the edge pixel: ``c b | a b c | b a``."""
    period = max(1, 2 * (size - 1))
    places = np.abs(places) % period
    return np.minimum(places, period - places)


def reflect(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Places beyond the edge reflected about the edge itself: ``b a | a b c | c b``."""
    places = places % (2 * size)
    return np.minimum(places, 2 * size - 1 - places)


def bilinear(pictures: Pictures, rows: Pictures, columns: Pictures, border: object) -> Pictures:
    """Pictures sampled at ``(N, H, W)`` fractional places; ``border`` is :func:`mirror` or :func:`reflect`."""
    assert callable(border)
    height, width = pictures.shape[1:3]
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    sample = np.arange(len(pictures))[:, None, None]
    above, below = border(top, height), border(top + 1, height)
    before, after = border(left, width), border(left + 1, width)
    upper = (1 - right) * pictures[sample, above, before] + right * pictures[sample, above, after]
    lower = (1 - right) * pictures[sample, below, before] + right * pictures[sample, below, after]
    return (1 - down) * upper + down * lower


@lru_cache(maxsize=256)
def _zoom_weights(size: int, factor: float) -> NDArray[np.float64]:
    """``(size, size)``: the central ``ceil(size / factor)`` pixels, enlarged linearly, trimmed to ``size``."""
    cropped = math.ceil(size / factor)
    enlarged = max(size, round(cropped * factor))
    start, trim = (size - cropped) // 2, (enlarged - size) // 2
    place = (np.arange(size, dtype=np.float64) + trim) * ((cropped - 1) / max(1, enlarged - 1))
    below = np.minimum(np.floor(settle(place)).astype(int), cropped - 1)
    weights = np.zeros((size, size))
    rows = np.arange(size)
    np.add.at(weights, (rows, start + below), 1 - (place - below))
    np.add.at(weights, (rows, start + np.minimum(below + 1, cropped - 1)), place - below)
    return weights


def clipped_zoom(pictures: Pictures, factor: float) -> Pictures:
    """The middle of pictures ``(N, H, W, C)``, enlarged ``factor`` times to their size; bilinear."""
    count, height, width, channels = pictures.shape
    across = np.kron(_zoom_weights(width, factor), np.eye(channels))  # rows of a picture hold its channels side by side
    wide = pictures.reshape(count * height, width * channels) @ across.T
    return (_zoom_weights(height, factor) @ wide.reshape(count, height, -1)).reshape(pictures.shape)


def rgb_to_hsv(pictures: Pictures) -> tuple[Pictures, Pictures, Pictures]:
    """Hue in [0, 6), saturation and value in [0, 1], each ``(N, H, W)``."""
    red, green, blue = np.moveaxis(pictures, -1, 0)
    value = pictures.max(-1)
    range_ = value - pictures.min(-1)
    safe = np.where(range_ > 0, range_, 1.0)
    hue = np.where(
        value == red, (green - blue) / safe % 6, np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    )
    return np.where(range_ > 0, hue, 0.0), np.where(value > 0, range_ / np.where(value > 0, value, 1.0), 0.0), value


def hsv_to_rgb(hue: Pictures, saturation: Pictures, value: Pictures) -> Pictures:
    """``(N, H, W, 3)`` of hue in [0, 6), saturation and value."""
    channels = []
    for offset in (5.0, 3.0, 1.0):
        turn = (offset + hue) % 6
        channels.append(value - value * saturation * np.clip(np.minimum(turn, 4 - turn), 0, 1))
    return np.stack(channels, -1)


def luminance(pictures: Pictures) -> Pictures:
    """Grey values ``(N, H, W, 1)`` (ITU-R BT.601); grey pictures as they are."""
    return pictures if pictures.shape[-1] == 1 else (pictures @ np.array([0.299, 0.587, 0.114]))[..., None]
