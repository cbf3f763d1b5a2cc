"""Published noise kinds. Pictures are float64 ``(N, H, W, C)`` in [0, 1]; results may leave that range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ocd_bench_images.corruptions.draws import Draws

Pictures = NDArray[np.float64]


def gaussian_noise(pictures: Pictures, sigma: float, draws: Draws) -> Pictures:
    """Independent normal noise."""
    return pictures + sigma * draws.normal(pictures.shape[1:])


def shot_noise(pictures: Pictures, photons: float, draws: Draws) -> Pictures:
    """Poisson noise: each value is a count of ``photons`` at full light."""
    return draws.poisson(pictures * photons) / photons


def impulse_noise(pictures: Pictures, share: float, draws: Draws) -> Pictures:
    """A share of the values becomes black or white, half each."""
    draw = draws.uniform(0, 1, pictures.shape[1:])
    return np.where(draw < share / 2, 0.0, np.where(draw < share, 1.0, pictures))


def speckle_noise(pictures: Pictures, sigma: float, draws: Draws) -> Pictures:
    """Normal noise in proportion to the light."""
    return pictures + sigma * pictures * draws.normal(pictures.shape[1:])
