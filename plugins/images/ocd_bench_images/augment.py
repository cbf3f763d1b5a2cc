"""Random copies of the same meaning. All draws come from the given generator, on the CPU; pictures may be anywhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ocd_bench_images.geometry import affine, uniform

DEGREES, SHIFT, SCALE, SHEAR = 15.0, 0.08, 0.12, 0.12
"""Half-widths of the uniform draws: angle, share of the side, factor about 1, pixels per pixel."""
TINY = 16
"""Side in pixels below which the affine draws are half as wide: there a stroke is a pixel, and interpolation blurs it."""


def random_affine(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture ``(N, C, H, W)`` under its own small rotation, shift, scale and shear; black outside."""
    count, _, height, width = pictures.shape
    draw = uniform(-1, 1, (count, 5), generator) * (0.5 if min(height, width) < TINY else 1)
    return affine(
        pictures,
        degrees=DEGREES * draw[:, 0],
        scale=1 + SCALE * draw[:, 1],
        shear=SHEAR * draw[:, 2],
        shift=draw[:, 3:] * torch.tensor([SHIFT * width, SHIFT * height]),
    )


def random_flip_shift(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture ``(N, C, H, W)`` mirrored with probability one half and shifted by whole pixels, at most an eighth of the
    side; black outside (random crops of the padded picture, as customary on CIFAR)."""
    count, _, height, width = pictures.shape
    flip = uniform(0, 1, count, generator) < 0.5
    down = torch.randint(0, 2 * (height // 8) + 1, (count,), generator=generator)
    right = torch.randint(0, 2 * (width // 8) + 1, (count,), generator=generator)
    rows = down[:, None] + torch.arange(height)
    columns = right[:, None] + torch.arange(width)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    padded = pad(pictures, [width // 8] * 2 + [height // 8] * 2)
    sample = torch.arange(count)[:, None, None].to(pictures.device)
    rows, columns = rows[:, :, None].to(pictures.device), columns[:, None, :].to(pictures.device)
    # Advanced indices around a slice put the channels last.
    return padded[sample, :, rows, columns].permute(0, 3, 1, 2).contiguous()
