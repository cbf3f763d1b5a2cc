"""Noise. Draws are made on the CPU, where the generator is, and moved to the pictures."""

from __future__ import annotations

import torch
from torch import Tensor


def _normal(pictures: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(pictures.shape, generator=generator).to(pictures)


def gaussian_noise(pictures: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Independent normal noise: weak light."""
    return pictures + sigma * _normal(pictures, generator)


def speckle_noise(pictures: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Normal noise in proportion to the light."""
    return pictures + sigma * pictures * _normal(pictures, generator)


def shot_noise(pictures: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    """Poisson noise: each value is a count of ``photons`` at full light."""
    rate = pictures.detach().cpu().float() * photons
    return (torch.poisson(rate, generator=generator) / photons).to(pictures)


def impulse_noise(pictures: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the values becomes black or white, half each."""
    draw = torch.rand(pictures.shape, generator=generator).to(pictures.device)
    return pictures.masked_fill(draw < share, 1.0).masked_fill(draw < share / 2, 0.0)
