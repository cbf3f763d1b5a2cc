"""AugMix (Hendrycks, Mu, Cubuk, Zoph, Gilmer and Lakshminarayanan, ICLR 2020, arXiv 1912.02781, section 3 and appendix C),
written from the paper: the views that MEMO averages over (Zhang, Levine and Finn, NeurIPS 2022, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps

WIDTH, DEPTH = 3, 3
"""Chains that are mixed, and operations in a chain at most."""
LEVEL = 3.0
"""Strength of the operations, of 10; each draws its own between 0.1 and this."""
PADDING = 8
"""The picture moves by at most this part of its side before it is mixed."""

Draw = np.random.RandomState


def views(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A view of each picture ``(N, C, H, W)`` in [0, 1]: moved by whole pixels, colour pictures mirrored half of the time, then
    mixed with three chains of random operations."""
    draw = Draw(torch.randint(2**32, (2,), generator=generator).numpy().astype(np.uint32))
    levels = (pictures.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    mixed = np.stack([_augmix(_move(level, draw), draw) for level in levels])
    return torch.from_numpy(mixed).permute(0, 3, 1, 2).contiguous().to(pictures)


def _move(level: np.ndarray, draw: Draw) -> np.ndarray:
    height, width, channels = level.shape
    down, right = height // PADDING, width // PADDING
    padded = np.pad(level, ((down, down), (right, right), (0, 0)))
    top, left = draw.randint(2 * down + 1), draw.randint(2 * right + 1)
    moved = padded[top : top + height, left : left + width]
    # A mirrored digit is another sign.
    return moved[:, ::-1] if channels == 3 and draw.randint(2) else moved


def _augmix(level: np.ndarray, draw: Draw) -> np.ndarray:
    """float32 ``(H, W, C)`` in [0, 1]."""
    grey = level.shape[-1] == 1
    original = Image.fromarray(np.ascontiguousarray(level[..., 0] if grey else level))
    weights, share = draw.dirichlet([1.0] * WIDTH), draw.beta(1.0, 1.0)
    mixed = np.zeros(level.shape)
    for weight in weights:
        image = original
        for _ in range(draw.randint(1, DEPTH + 1)):
            image = OPERATIONS[draw.randint(len(OPERATIONS))](image, draw)
        mixed += weight * np.asarray(image, np.float64).reshape(level.shape)
    return ((share * level + (1 - share) * mixed) / 255).astype(np.float32)


def _strength(draw: Draw, largest: float) -> float:
    return draw.uniform(0.1, LEVEL) * largest / 10


def _signed(draw: Draw, largest: float) -> float:
    return _strength(draw, largest) * (1 if draw.randint(2) else -1)


def _affine(image: Image.Image, matrix: Sequence[float]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, tuple(matrix), resample=Image.Resampling.BILINEAR)


OPERATIONS: tuple[Callable[[Image.Image, Draw], Image.Image], ...] = (
    lambda image, draw: ImageOps.autocontrast(image),
    lambda image, draw: ImageOps.equalize(image),
    lambda image, draw: ImageOps.posterize(image, 4 - int(_strength(draw, 4))),
    lambda image, draw: ImageOps.solarize(image, 256 - int(_strength(draw, 256))),
    lambda image, draw: image.rotate(_signed(draw, 30), resample=Image.Resampling.BILINEAR),
    lambda image, draw: _affine(image, (1, _signed(draw, 0.3), 0, 0, 1, 0)),
    lambda image, draw: _affine(image, (1, 0, 0, _signed(draw, 0.3), 1, 0)),
    lambda image, draw: _affine(image, (1, 0, _signed(draw, image.width / 3), 0, 1, 0)),
    lambda image, draw: _affine(image, (1, 0, 0, 0, 1, _signed(draw, image.height / 3))),
)
"""The operations of AugMix that no corruption of ImageNet-C contains: automatic contrast, equalise, posterise, solarise,
rotate, shear and translate, each of the last two in both directions."""
