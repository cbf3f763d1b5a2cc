"""Decoding one picture file, with an upper bound on what a file may make us do."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from ocd_bench import UsageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
PIXEL_LIMIT = 2**24
"""Most pixels of a picture, 4,096 x 4,096: read from the header, before anything is unpacked."""


def decode(data: bytes, where: str, image_size: int) -> np.ndarray:
    """uint8 ``(3, H, W)``; grey pictures have three equal channels, transparency is dropped.

    Args:
        data: content of the file.
        where: names the file in errors.
        image_size: pixels square to resize to, 0 to keep the size.

    Raises:
        UsageError: if it is no picture, damaged, too large or of 16 bits.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > PIXEL_LIMIT:
                    raise Image.DecompressionBombError
                if picture.mode.startswith(("I", "F")):
                    raise UsageError(f"{where}: a {picture.mode} picture has more than 8 bits a channel; convert it to 8 bits")
                colour = picture.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(f"{where}: the picture has more than {PIXEL_LIMIT:,} pixels; make it smaller") from error
    except UsageError:
        raise
    except Exception as error:  # the formats' readers raise whatever a damaged file makes them stumble over
        raise UsageError(f"{where}: not a readable picture ({_reason(error)}); replace it or take it away") from error
    if image_size and colour.size != (image_size, image_size):
        colour = colour.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(colour, np.uint8).transpose(2, 0, 1)


def _reason(error: Exception) -> str:
    """Pillow's message without the address of the buffer it was given."""
    return "of no known format" if "cannot identify" in str(error) else str(error) or type(error).__name__
