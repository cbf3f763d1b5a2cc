"""Blurs. Edges are continued, so that a flat picture stays flat."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ocd_bench_images.geometry import affine, padding_of, uniform


def smooth(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of ``sigma`` pixels, cut at four of them."""
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=pictures.dtype, device=pictures.device)
    line = torch.exp(-0.5 * (offsets / sigma) ** 2)
    line = line / line.sum()
    return _filter(_filter(pictures, line.view(1, -1)), line.view(-1, 1))


def gaussian_blur(pictures: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian filter."""
    return smooth(pictures, sigma * _unit(pictures))


def defocus_blur(pictures: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Mean over a disc with soft edges: a lens out of focus."""
    radius *= _unit(pictures)
    reach = math.ceil(radius)
    offsets = torch.arange(-reach, reach + 1, dtype=pictures.dtype, device=pictures.device)
    disc = (radius + 0.5 - torch.hypot(offsets[:, None], offsets[None, :])).clamp(0, 1)
    return _filter(pictures, disc / disc.sum())


def glass_blur(pictures: Tensor, level: tuple[float, float, int], generator: torch.Generator) -> Tensor:
    """Gaussian filter, every pixel taken from a random neighbour some times over, Gaussian filter: frosted glass."""
    sigma, reach, rounds = level
    sigma, reach = sigma * _unit(pictures), reach * _unit(pictures)
    count, _, height, width = pictures.shape
    sample = torch.arange(count)[:, None, None]
    rows, columns = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    for _ in range(rounds):
        jump = uniform(-reach, reach, (2, count, height, width), generator).round().long()
        # Following each output pixel back through the rounds needs no picture until the end.
        here, there = (rows + jump[0]).clamp(0, height - 1), (columns + jump[1]).clamp(0, width - 1)
        rows, columns = here, there
    moved = smooth(pictures, sigma)[sample.to(pictures.device), :, rows.to(pictures.device), columns.to(pictures.device)]
    return smooth(moved.permute(0, 3, 1, 2), sigma)


def motion_blur(pictures: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Weighted mean along a straight path of random direction, at most 45 degrees from the horizontal."""
    sigma *= _unit(pictures)
    angle = uniform(-math.pi / 4, math.pi / 4, len(pictures), generator)
    direction = torch.stack([torch.cos(angle), torch.sin(angle)], -1)
    steps = torch.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1) / 2
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    total = torch.zeros_like(pictures)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        total += float(weight) * affine(pictures, shift=step * direction, padding=padding_of(pictures))
    return total


def zoom_blur(pictures: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Mean of the picture under magnifications from one to ``largest``."""
    factors = torch.linspace(1, largest, max(2, round((largest - 1) * 32)))
    enlarged = (affine(pictures, scale=factor.expand(len(pictures))) for factor in factors)
    return sum(enlarged, torch.zeros_like(pictures)) / len(factors)


def _unit(pictures: Tensor) -> float:
    """Pixels of these pictures per pixel of one 32 wide. Not below 12 / 32: a third of a pixel blurs nothing."""
    return max(12, min(pictures.shape[-2:])) / 32


def _filter(pictures: Tensor, kernel: Tensor) -> Tensor:
    """Every channel filtered by one kernel of odd sides."""
    down, right = kernel.shape[0] // 2, kernel.shape[1] // 2
    count, channels, height, width = pictures.shape
    planes = pad(pictures.reshape(count * channels, 1, height, width), [right, right, down, down], mode="replicate")
    return conv2d(planes, kernel[None, None]).view(count, channels, height, width)
