"""Affine maps of pictures, one per sample, for augmentation and corruptions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def uniform(low: float, high: float, shape: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform draws of the given shape from [low, high), on the generator's device (the CPU)."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def affine(
    pictures: Tensor,
    *,
    degrees: Tensor | None = None,
    scale: Tensor | None = None,
    shear: Tensor | None = None,
    shift: Tensor | None = None,
    padding: str = "zeros",
) -> Tensor:
    """Pictures ``(N, C, H, W)`` scaled, sheared, rotated about their centre, then shifted; bilinear.

    Args:
        degrees: angles ``(N,)``; a positive angle turns the content anticlockwise.
        scale: factors ``(N,)``; a factor above 1 enlarges the content.
        shear: ``(N,)``, in pixels to the right per pixel upwards.
        shift: ``(N, 2)``, in pixels to the right and down.
        padding: content outside of the picture: ``zeros``, ``border`` or ``reflection``.
    """
    count, _, height, width = pictures.shape
    one, nought = torch.ones(count), torch.zeros(count)
    angle = torch.deg2rad(degrees) if degrees is not None else nought
    factor, slant = (scale if scale is not None else one), (shear if shear is not None else nought)
    moved = shift if shift is not None else torch.zeros(count, 2)
    # grid_sample needs the source of each output pixel, so ``linear`` (N, 2, 2) is the inverse map. The y axis points down.
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotate = torch.stack([cos, -sin, sin, cos], -1).view(-1, 2, 2)
    unshear = torch.stack([one, slant, nought, one], -1).view(-1, 2, 2)
    linear = unshear @ rotate / factor.view(-1, 1, 1)
    # Convert pixels to the coordinates of grid_sample, -1 to 1 over each side.
    half = torch.tensor([width / 2, height / 2])
    offset = -(linear @ moved.unsqueeze(-1)) / half.view(2, 1)
    theta = torch.cat([linear * half / half.view(2, 1), offset], -1).to(pictures)
    grid = affine_grid(theta, list(pictures.shape), align_corners=False)
    return grid_sample(pictures, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def padding_of(pictures: Tensor) -> str:
    """The padding for these pictures: black for grey digits; colour pictures, which fill their frame, are reflected."""
    return "zeros" if pictures.shape[1] == 1 else "reflection"
