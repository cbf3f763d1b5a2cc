"""Picture files, for every task that reads some: full depth, upright, bounded before anything is unpacked.

Pillow decodes. What it would lose without a word is kept or refused here: the low byte of 16-bit colour, the EXIF orientation,
transparency, further pages and animation frames, the true range of 12-bit TIFF files.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ocd_bench.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif",
    ".pnm", ".pbm", ".ppm", ".pgm", ".tif", ".tiff",
})  # fmt: skip
"""Endings of the formats read, in lower case."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "PPM", "TIFF")
PIXEL_LIMIT = 2**24
"""Most pixels of a picture, 4,096 x 4,096, as the header gives them."""
ORIENTATION = 0x0112
"""EXIF tag: 1 is upright, 2 to 8 are mirror images and quarter turns."""
_LOW_BYTE = {"16L": "16B", "16B": "16L", "16N": "16B" if sys.byteorder == "little" else "16L"}
_BACK = {6: 8, 8: 6}
"""The orientation that undoes another; mirror images and half turns undo themselves."""
_BITS_PER_SAMPLE = 258  # TIFF tag

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it remarks on damage on stderr, beside the one line of ours


@dataclass(frozen=True)
class Picture:
    """One decoded picture.

    Args:
        pixels: ``(H, W, C)``, uint8, or float32 in [0, 1] where the file has more than 8 bits a channel; C is 3 (red, green,
            blue) or 4 (with straight, that is not premultiplied, alpha).
        turned: the EXIF orientation that was undone, 1 for none.
    """

    pixels: np.ndarray
    turned: int = 1

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def transparent(self) -> bool:
        """Whether any pixel is not fully opaque."""
        opaque = 255 if self.pixels.dtype == np.uint8 else 1.0
        return self.pixels.shape[2] == 4 and bool((self.pixels[..., 3] < opaque).any())

    def opaque(self, background: float) -> Picture:
        """The picture without alpha, set on a grey ``background`` in [0, 1]."""
        if self.pixels.shape[2] == 3:
            return self
        if not self.transparent:
            return replace(self, pixels=np.ascontiguousarray(self.pixels[..., :3]))
        values = self.pixels.astype(np.float32) / (255 if self.pixels.dtype == np.uint8 else 1)
        colour = values[..., :3] * values[..., 3:] + background * (1 - values[..., 3:])
        if self.pixels.dtype == np.uint8:
            return replace(self, pixels=np.rint(colour * 255).astype(np.uint8))
        return replace(self, pixels=colour.astype(np.float32))

    def resized(self, width: int, height: int, filter_name: str) -> Picture:
        """Scaled by Pillow's filter of that name (``"BOX"``, ``"BILINEAR"``), which averages when it reduces; colours are
        weighted by their alpha."""
        from PIL import Image

        if (self.width, self.height) == (width, height):
            return self
        kind = Image.Resampling[filter_name]
        if self.pixels.dtype == np.uint8:
            return replace(self, pixels=np.asarray(Image.fromarray(self.pixels).resize((width, height), kind)))
        values = self.pixels
        if values.shape[2] == 4:
            values = np.concatenate([values[..., :3] * values[..., 3:], values[..., 3:]], -1)
        scaled = np.stack([_resize_plane(values[..., c], width, height, kind) for c in range(values.shape[2])], -1)
        if scaled.shape[2] == 4:
            scaled[..., :3] /= np.maximum(scaled[..., 3:], 1e-12)
        return replace(self, pixels=scaled.clip(0, 1))


def decode_picture(data: bytes, where: str, *, pixel_limit: int = PIXEL_LIMIT, upright: bool = True) -> Picture:
    """The picture in ``data``.

    Args:
        where: names the file in errors.
        pixel_limit: most pixels that the header may promise.
        upright: undo the EXIF orientation; otherwise the pixels are given as they are stored.

    Raises:
        UsageError: if it is no picture of :data:`FORMATS`, damaged, too large, has several pages or frames, or keeps its values
            in a form whose meaning is not certain (more than 8 bits in PPM colour, 32 bits, floating point, CMYK of 16 bits).
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(data, where, pixel_limit, upright)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(f"{where}: the picture has more than {pixel_limit:,} pixels; make it smaller") from error
    except UsageError:
        raise
    except Exception as error:  # the formats' readers raise whatever a damaged file makes them stumble over
        raise UsageError(f"{where}: not a readable picture ({_reason(error)}); replace it or take it away") from error


def _decode(data: bytes, where: str, pixel_limit: int, upright: bool) -> Picture:
    from PIL import Image

    picture: Image.Image
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        if picture.width * picture.height > pixel_limit:
            raise Image.DecompressionBombError
        raw, deep = _raw_mode(picture), _is_deep(picture, where)  # before anything loads it: then its tiles are gone
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # the second picture of an MPO is a preview or another eye's view
            raise UsageError(f"{where}: {frames} frames or pages in one file; give one picture a file")
        orientation = picture.getexif().get(ORIENTATION, 1)
        turned = orientation if orientation in range(2, 9) else 1
        if deep:
            if picture.width * picture.height > PIXEL_LIMIT:  # they take four times the memory
                raise Image.DecompressionBombError
            pixels = _deep(picture, raw, data)
        elif picture.has_transparency_data:
            pixels = np.asarray(picture.convert("RGBA"))
        else:
            pixels = np.asarray(picture.convert("RGB"))
        if picture.format == "TIFF":  # Pillow has turned it already
            return Picture(pixels if upright else _turned(pixels, _BACK.get(turned, turned)), turned if upright else 1)
    return Picture(_turned(pixels, turned), turned) if upright else Picture(pixels)


def _is_deep(picture: Any, where: str) -> bool:
    """Whether the file has more than 8 bits a channel.

    Raises:
        UsageError: if it has, in a form that is not read.
    """
    raw = _raw_mode(picture)
    if picture.format == "PPM":
        if picture.mode == "RGB" and isinstance(raw, int) and raw > 255:
            raise UsageError(f"{where}: a PPM picture of more than 8 bits a channel; convert it to a 16-bit PNG or to 8 bits")
        if picture.mode == "I":
            return True
    if picture.mode.startswith(("I;16", "I;12")):
        return True
    if picture.mode.startswith(("I", "F")):
        raise UsageError(
            f"{where}: a {picture.mode} picture (32-bit or signed values, of a range that the file does not state); convert it "
            "to 8 or 16 bits"
        )
    if not (isinstance(raw, str) and ";16" in raw):
        return False
    if raw.partition(";")[0] not in ("RGB", "RGBA", "LA"):
        raise UsageError(
            f"{where}: a 16-bit picture of the kind {raw}, which is not read; convert it to 16-bit RGB or to 8 bits"
        )
    return True


def _raw_mode(picture: Any) -> Any:
    """How the file keeps its pixels, in Pillow's words (``"RGB;16B"``); the largest value in a PPM file; None if unknown."""
    arguments = picture.tile[0][3] if getattr(picture, "tile", None) else None
    if picture.format == "PPM" and isinstance(arguments, tuple):
        return arguments[-1]
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def _deep(picture: Any, raw: Any, data: bytes) -> np.ndarray:
    """float32 ``(H, W, 3 or 4)`` in [0, 1] of a picture of more than 8 bits a channel, kept as ``raw``."""
    if picture.mode.startswith("I"):
        largest = 65535
        if picture.format == "TIFF":
            largest = 2 ** int(picture.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0]) - 1
        values = np.asarray(picture).astype(np.float32) / np.float32(largest)
        return np.repeat(values[..., None], 3, 2)
    if raw.startswith("LA"):  # four bytes a pixel, as RGBA: the two of grey, then the two of alpha
        parts = _bytes_as(data, "RGBA").astype(np.float32)
        grey, alpha = (parts[..., i] * 256 + parts[..., i + 1] for i in (0, 2))
        return np.stack([grey, grey, grey, alpha], -1) / np.float32(65535)
    high: np.ndarray = np.asarray(picture).astype(np.float32)
    kind, _, order = raw.partition(";")
    return (high * 256 + _bytes_as(data, f"{kind};{_LOW_BYTE[order]}")) / np.float32(65535)


def _bytes_as(data: bytes, raw: str) -> np.ndarray:
    """The picture decoded a second time, its bytes read as the raw mode says: ``RGB;16L`` of a big-endian file is the low
    bytes, which Pillow drops."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=FORMATS) as again:
        picture: Any = again  # some kinds of file have several tiles (strips), all of one raw mode
        picture.tile = [
            tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in picture.tile
        ]
        picture.load()
        return np.asarray(picture)


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels ``(H, W, C)`` with the EXIF orientation undone (EXIF 2.32, section 4.6.4.A)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _resize_plane(plane: np.ndarray, width: int, height: int, kind: Any) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(plane, np.float32)).resize((width, height), kind))


def _reason(error: Exception) -> str:
    """Pillow's message without the address of the buffer it was given."""
    return "of no known format" if "cannot identify" in str(error) else " ".join(str(error).split()) or type(error).__name__
