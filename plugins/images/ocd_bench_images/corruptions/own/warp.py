"""Geometric corruptions: affine maps, and elastic deformation."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ocd_bench_images.corruptions.own.blur import smooth
from ocd_bench_images.geometry import affine, padding_of, uniform

SMOOTHNESS = 4.0
"""Standard deviation, in pixels of a picture 32 wide, of the filter that makes an elastic displacement smooth."""


def rotate(pictures: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Rotate by ``degrees``, in a random direction."""
    return affine(pictures, degrees=degrees * _signs(pictures, generator), padding=padding_of(pictures))


def shear(pictures: Tensor, slant: float, generator: torch.Generator) -> Tensor:
    """Shear by ``slant``, in a random direction."""
    return affine(pictures, shear=slant * _signs(pictures, generator), padding=padding_of(pictures))


def scale(pictures: Tensor, logarithm: float, generator: torch.Generator) -> Tensor:
    """Scale by the factor or by its inverse, at random."""
    return affine(pictures, scale=torch.exp(logarithm * _signs(pictures, generator)), padding=padding_of(pictures))


def translate(pictures: Tensor, distance: float, generator: torch.Generator) -> Tensor:
    """Shift by the distance, in a random direction."""
    angle = uniform(0, 2 * math.pi, len(pictures), generator)
    direction = torch.stack([torch.cos(angle), torch.sin(angle)], -1)
    return affine(pictures, shift=distance * min(pictures.shape[-2:]) / 32 * direction, padding=padding_of(pictures))


def elastic_transform(pictures: Tensor, displacement: float, generator: torch.Generator) -> Tensor:
    """Take each pixel from a nearby place; the field of displacements is smooth, with root mean square ``displacement``."""
    count, _, height, width = pictures.shape
    unit = min(height, width) / 32
    # The noise extends beyond the edges. Otherwise the smoothed field would be strongest at the edges.
    margin = math.ceil(4 * SMOOTHNESS * unit)
    noise = torch.randn(count, 2, height + 2 * margin, width + 2 * margin, generator=generator)
    field = smooth(noise, SMOOTHNESS * unit)[:, :, margin:-margin, margin:-margin]
    field = field / field.square().sum(1, keepdim=True).mean((2, 3), keepdim=True).sqrt() * displacement * unit
    rows = (2 * torch.arange(height) + 1) / height - 1
    columns = (2 * torch.arange(width) + 1) / width - 1
    here = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    grid = here + field.permute(0, 2, 3, 1) * torch.tensor([2 / width, 2 / height])
    return grid_sample(pictures, grid.to(pictures), padding_mode=padding_of(pictures), align_corners=False)


def _signs(pictures: Tensor, generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(0, 2, (len(pictures),), generator=generator) - 1
