"""Features of a picture that depend on light, blur and noise more than on its content, for out-of-distribution detection."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

RINGS = (0.02, 0.05, 0.09, 0.13, 0.18, 0.25, 0.36, 0.5)
"""Edges of the rings of spatial frequency, in cycles per pixel. Frequencies beyond the last edge are a further ring."""


def signature(pictures: Tensor) -> Tensor:
    """Features ``(N, 15)`` of pictures ``(N, C, H, W)``, averaged over colours: quantiles, mean and standard deviation of the
    grey levels, and the logarithm of their power in rings of spatial frequency."""
    light = pictures.float().mean(1)
    pixels = light.flatten(1)
    quantiles = torch.quantile(pixels, torch.tensor([0.5, 0.75, 0.9, 0.97, 1.0], device=pixels.device), dim=1).T
    mean, deviation = pixels.mean(1, keepdim=True), pixels.std(1, correction=0, keepdim=True)
    power = torch.fft.fft2(light - mean[:, :, None]).abs().square()
    down, across = (torch.fft.fftfreq(side, device=pixels.device) for side in light.shape[1:])
    radius = (down[:, None].square() + across.square()).sqrt()
    edges = torch.tensor([*RINGS, 1.0], device=pixels.device)
    rings = [(radius > low) & (radius <= high) for low, high in pairwise(edges)]
    bands = [(power * ring).sum((1, 2)) / ring.sum().clamp(min=1) for ring in rings]
    return torch.cat([quantiles, mean, deviation, (torch.stack(bands, 1) + 1e-3).log()], 1)
