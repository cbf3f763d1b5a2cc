"""Random copies of the same meaning. All draws come from the given generator, on the CPU; pictures may be anywhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ocd_bench_images.geometry import affine, uniform

DEGREES, SHIFT, SCALE, SHEAR = 15.0, 0.08, 0.12, 0.12
"""Half-widths of the uniform draws: angle, share of the side, factor about 1, pixels per pixel."""
CONVOLVED = 0.25
"""Share of the pictures that meet a random filter."""
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


def random_convolution(pictures: Tensor, generator: torch.Generator, share: float = CONVOLVED) -> Tensor:
    """A ``share`` of the pictures ``(N, C, H, W)`` mixed with its answer to a random filter of its own, cut off at [0, 1].

    RandConv with mixing (Xu, Liu, Yang, Raffel and Niethammer, ICLR 2021, arXiv 2007.13003): filters of 1, 3, 5 or 7 pixels a
    side, normal weights of variance 1 / inputs, and a uniform share of the picture itself. Shapes stay, texture and contrast do
    not; it imitates no corruption in particular.
    """
    count, channels, height, width = pictures.shape
    chosen = (uniform(0, 1, count, generator) < share).nonzero()[:, 0]
    if not len(chosen):
        return pictures
    reach = torch.randint(4, (len(chosen),), generator=generator)  # to either side: filters of 2 reach + 1 pixels
    offset = (torch.arange(7) - 3).abs()
    inside = (offset <= reach[:, None]).float()
    window = inside[:, None, None, :, None] * inside[:, None, None, None, :]
    weight = torch.randn(len(chosen), channels, channels, 7, 7, generator=generator) * window
    weight = weight / (channels * (2 * reach + 1).float().square()).sqrt()[:, None, None, None, None]
    own = uniform(0, 1, len(chosen), generator)[:, None, None, None].to(pictures)
    some = pictures[chosen.to(pictures.device)]
    answer = conv2d(
        some.reshape(1, -1, height, width), weight.flatten(0, 1).to(pictures), padding=3, groups=len(chosen)
    ).reshape_as(some)
    changed = pictures.clone()
    changed[chosen.to(pictures.device)] = (own * some + (1 - own) * answer).clamp(0, 1)
    return changed
