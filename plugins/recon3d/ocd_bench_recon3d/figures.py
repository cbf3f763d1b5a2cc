"""Pictures of views, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

WIDTH = 200
"""Minimum width of a picture in pixels, so that it can be viewed."""


def side_by_side(pictures: Sequence[Tensor], titles: Sequence[str], path: Path) -> Path:
    """Write pictures ``(H, W, 3)`` in [0, 1] with titles above as one PNG. Small pictures are enlarged by a whole factor."""
    from PIL import Image, ImageDraw

    height, width, _ = pictures[0].shape
    scale = -(-WIDTH // width)
    bar, gap = 16, 4
    sheet = Image.new("RGB", (len(pictures) * (width * scale + gap) - gap, height * scale + bar), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        left = number * (width * scale + gap)
        pixels = (picture.clamp(0, 1) * 255).round().byte().cpu().numpy()
        sheet.paste(Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST), (left, bar))
        draw.text((left + 2, 2), title, fill="black")
    sheet.save(path)
    return path
