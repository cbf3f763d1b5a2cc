"""Published changes of light, colour and coding."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ocd_bench import NotApplicable
from ocd_bench_images.corruptions.draws import Draws
from ocd_bench_images.corruptions.sampling import Pictures, cut, hsv_to_rgb, rgb_to_hsv


def brightness(pictures: Pictures, amount: float, draws: Draws) -> Pictures:
    """Increase the value of HSV, and keep hue and saturation."""
    if pictures.shape[-1] == 1:
        return pictures + amount
    hue, saturation, value = rgb_to_hsv(pictures)
    return hsv_to_rgb(hue, saturation, np.clip(value + amount, 0, 1))


def saturate(pictures: Pictures, level: tuple[float, float], draws: Draws) -> Pictures:
    """HSV's saturation times a factor plus an offset.

    Raises:
        NotApplicable: for grey pictures, which have no saturation.
    """
    if pictures.shape[-1] == 1:
        raise NotApplicable("corruption saturate: grey pictures have no saturation")
    factor, offset = level
    hue, saturation, value = rgb_to_hsv(pictures)
    return hsv_to_rgb(hue, np.clip(saturation * factor + offset, 0, 1), value)


def contrast(pictures: Pictures, kept: float, draws: Draws) -> Pictures:
    """Move each channel towards its mean."""
    mean = pictures.mean((1, 2), keepdims=True)
    return mean + kept * (pictures - mean)


def pixelate(pictures: Pictures, kept: float, draws: Draws) -> Pictures:
    """Downsample by averaging to a share of the side, and upsample again in blocks (Pillow's box filter)."""
    height, width = pictures.shape[1:3]
    small = (max(1, int(width * kept)), max(1, int(height * kept)))
    box = Image.Resampling.BOX
    return _with_pillow(pictures, lambda image: image.resize(small, box).resize((width, height), box))


def jpeg_compression(pictures: Pictures, quality: int, draws: Draws) -> Pictures:
    """Encode and decode with Pillow's JPEG."""

    def through(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _with_pillow(pictures, through)


def _with_pillow(pictures: Pictures, change: object) -> Pictures:
    """``change`` maps one Pillow image to another of the same size."""
    assert callable(change)
    levels = cut(pictures)
    grey = levels.shape[-1] == 1
    changed = [np.asarray(change(Image.fromarray(level[..., 0] if grey else level))) for level in levels]
    return np.stack(changed).reshape(levels.shape) / 255
