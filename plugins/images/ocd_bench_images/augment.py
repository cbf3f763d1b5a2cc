"""Random copies of pictures that keep their class. All draws use the given CPU generator; pictures may be on any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ocd_bench_images.geometry import affine, uniform

DEGREES, SHIFT, SCALE, SHEAR = 15.0, 0.08, 0.12, 0.12
"""Half-widths of the uniform draws: angle in degrees, shift as a share of the side, scale minus 1, shear (pixels per pixel)."""
CONVOLVED = 0.25
"""Share of the pictures that are mixed with a randomly filtered copy."""
TINY = 16
"""Side in pixels below which the affine draws are half as wide: strokes are one pixel wide there, and interpolation blurs."""


def random_affine(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture ``(N, C, H, W)`` under its own small random rotation, shift, scaling and shear; black outside."""
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
    """Each picture ``(N, C, H, W)`` mirrored with probability 1/2, and shifted by whole pixels, at most an eighth of the side;
    black outside. These are the random crops of the padded picture that are customary on CIFAR."""
    count, _, height, width = pictures.shape
    flip = uniform(0, 1, count, generator) < 0.5
    down = torch.randint(0, 2 * (height // 8) + 1, (count,), generator=generator)
    right = torch.randint(0, 2 * (width // 8) + 1, (count,), generator=generator)
    rows = down[:, None] + torch.arange(height)
    columns = right[:, None] + torch.arange(width)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    # Index tensors broadcast to (N, H, W).
    padded = pad(pictures, [width // 8] * 2 + [height // 8] * 2)
    sample = torch.arange(count)[:, None, None].to(pictures.device)
    rows, columns = rows[:, :, None].to(pictures.device), columns[:, None, :].to(pictures.device)
    # Advanced indices on both sides of a slice move the channels to the end: (N, H, W, C).
    return padded[sample, :, rows, columns].permute(0, 3, 1, 2).contiguous()


def random_convolution(pictures: Tensor, generator: torch.Generator, share: float = CONVOLVED) -> Tensor:
    """A ``share`` of the pictures ``(N, C, H, W)``, each mixed with a randomly filtered copy of itself, clamped to [0, 1].

    RandConv with mixing (Xu, Liu, Yang, Raffel and Niethammer, ICLR 2021, arXiv 2007.13003): filters of 1, 3, 5 or 7 pixels a
    side, normal weights of variance 1 / inputs, and a uniform share of the original picture. Shapes are kept, texture and
    contrast change. It imitates no particular corruption.
    """
    count, channels, height, width = pictures.shape
    chosen = (uniform(0, 1, count, generator) < share).nonzero()[:, 0]
    if not len(chosen):
        return pictures
    reach = torch.randint(4, (len(chosen),), generator=generator)  # to either side: filters of 2 reach + 1 pixels
    # n chosen pictures: the filters are (n, C, C, 7, 7), zero outside of their own size.
    offset = (torch.arange(7) - 3).abs()
    inside = (offset <= reach[:, None]).float()  # (n, 7)
    window = inside[:, None, None, :, None] * inside[:, None, None, None, :]
    weight = torch.randn(len(chosen), channels, channels, 7, 7, generator=generator) * window
    weight = weight / (channels * (2 * reach + 1).float().square()).sqrt()[:, None, None, None, None]
    own = uniform(0, 1, len(chosen), generator)[:, None, None, None].to(pictures)
    some = pictures[chosen.to(pictures.device)]
    # One convolution in n groups of C channels applies each filter to its own picture.
    answer = conv2d(
        some.reshape(1, -1, height, width), weight.flatten(0, 1).to(pictures), padding=3, groups=len(chosen)
    ).reshape_as(some)
    changed = pictures.clone()
    changed[chosen.to(pictures.device)] = (own * some + (1 - own) * answer).clamp(0, 1)
    return changed
