"""Loss of detail: fewer pixels, JPEG compression, a hidden square."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate


def pixelate(pictures: Tensor, kept: float, generator: torch.Generator) -> Tensor:
    """Downsample by averaging to a share of the side, and upsample again in blocks."""
    height, width = pictures.shape[-2:]
    small = adaptive_avg_pool2d(pictures, (max(1, int(kept * height)), max(1, int(kept * width))))
    return interpolate(small, size=(height, width), mode="nearest")


def jpeg_compression(pictures: Tensor, quality: int, generator: torch.Generator) -> Tensor:
    """Encode and decode each picture with Pillow's JPEG."""
    levels = (pictures.detach().cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    grey = levels.shape[-1] == 1
    decoded = np.empty_like(levels)
    for row, level in enumerate(levels):
        buffer = io.BytesIO()
        Image.fromarray(level[..., 0] if grey else level).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as picture:
            decoded[row] = np.asarray(picture).reshape(level.shape)
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).to(pictures) / 255


def occlusion(pictures: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Hide a black square at a random place. Its side is a share of the picture's."""
    count, _, height, width = pictures.shape
    side = max(1, round(share * min(height, width)))
    top = torch.randint(0, height - side + 1, (count, 1), generator=generator)
    left = torch.randint(0, width - side + 1, (count, 1), generator=generator)
    rows, columns = torch.arange(height), torch.arange(width)
    hidden = ((rows >= top) & (rows < top + side))[:, :, None] & ((columns >= left) & (columns < left + side))[:, None, :]
    return pictures.masked_fill(hidden[:, None].to(pictures.device), 0.0)
