"""From one picture file to the array a pool holds."""

from __future__ import annotations

import numpy as np

from ocd_bench import UsageError
from ocd_bench.reading.pictures import decode_picture

BACKGROUNDS = {"black": 0.0, "white": 1.0}
"""Values of the setting ``images.background``, in [0, 1]."""


def decode(data: bytes, where: str, image_size: int, background: str = "") -> np.ndarray:
    """``(3, H, W)``, uint8, or float32 in [0, 1] where the file has 16 bits a channel; upright; grey pictures have three equal
    channels.

    Args:
        data: content of the file.
        where: names the file in errors.
        image_size: pixels square to resize to (bilinear, antialiased), 0 to keep the size.
        background: a key of :data:`BACKGROUNDS` that transparent pictures are set on; empty refuses them.

    Raises:
        UsageError: as :func:`ocd_bench.reading.pictures.decode_picture`; if it is transparent and there is no background.
    """
    picture = decode_picture(data, where)
    if picture.transparent and not background:
        raise UsageError(
            f"{where}: the picture has transparent pixels, whose colour nobody sees; choose what it is set on with "
            f"--set images.background={' or '.join(BACKGROUNDS)}"
        )
    picture = picture.opaque(BACKGROUNDS.get(background, 0.0))
    if image_size:
        picture = picture.resized(image_size, image_size, "BILINEAR")
    return picture.pixels.transpose(2, 0, 1)
