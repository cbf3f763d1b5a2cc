"""Weather and light."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def brightness(pictures: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Increase the value of HSV, and keep hue and saturation."""
    value = pictures.amax(1, keepdim=True)
    raised = (value + amount).clamp(max=1)
    return torch.where(value > 0, pictures * raised / value.clamp(min=1e-6), raised)


def contrast(pictures: Tensor, kept: float, generator: torch.Generator) -> Tensor:
    """Move each channel towards its mean."""
    mean = pictures.mean((2, 3), keepdim=True)
    return mean + kept * (pictures - mean)


def fog(pictures: Tensor, level: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Add fog: noise at all scales. The largest value of the picture is kept."""
    strength, roughness = level
    peak = pictures.amax((1, 2, 3), keepdim=True)
    return (pictures + strength * _cloud(pictures, roughness, generator)) * peak / (peak + strength)


def invert(pictures: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Invert a share of the rows, from the top."""
    result = pictures.clone()
    rows = round(share * pictures.shape[2])
    result[:, :, :rows] = 1 - result[:, :, :rows]
    return result


def _cloud(pictures: Tensor, roughness: float, generator: torch.Generator) -> Tensor:
    """``(N, 1, H, W)`` in [0, 1]: a sum of noise on grids of 2, 4, 8, ... points per side. Each grid is ``roughness`` times
    weaker than the one before."""
    count, _, height, width = pictures.shape
    total, side, weight = torch.zeros(count, 1, height, width), 2, 1.0
    while side <= max(height, width):
        grid = torch.rand(count, 1, side, side, generator=generator)
        total += weight * interpolate(grid, size=(height, width), mode="bilinear", align_corners=True)
        side, weight = 2 * side, weight / roughness
    low, high = total.amin((2, 3), keepdim=True), total.amax((2, 3), keepdim=True)
    return ((total - low) / (high - low).clamp(min=1e-6)).to(pictures)
