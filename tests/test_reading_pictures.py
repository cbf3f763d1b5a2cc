"""Picture files: full depth, upright, and nothing lost without a word."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from ocd_bench.errors import UsageError
from ocd_bench.reading.pictures import decode_picture

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")

RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(0, 65536, (5, 7, 4), dtype=np.uint16)
EIGHT = RANDOM.integers(0, 256, (5, 7, 4), dtype=np.uint8)


def saved(picture: object, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)  # type: ignore[attr-defined]
    return file.getvalue()


def png16(pixels: np.ndarray, kind: int) -> bytes:
    """A 16-bit PNG of a colour type, written here: Pillow writes none in colour."""
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, order: str, photometric: int, bits: int = 16) -> bytes:
    """An uncompressed TIFF of 16-bit words in byte order ``<`` or ``>``."""
    count = pixels.shape[2]
    data = pixels.astype(f"{order}u2").tobytes()
    if bits == 12:  # two values in three bytes, rows padded to whole bytes
        rows = [pixels[row, :, 0].astype(int) for row in range(pixels.shape[0])]
        packed = ["".join(f"{value:012b}" for value in row) for row in rows]
        data = b"".join(int(row.ljust(-len(row) % 8 + len(row), "0"), 2).to_bytes(-(-len(row) // 8), "big") for row in packed)
    entries = {
        256: pixels.shape[1],
        257: pixels.shape[0],
        258: bits,
        259: 1,
        262: photometric,
        273: 0,
        277: count,
        278: 5,
        279: 0,
    }
    after = 8 + 2 + 12 * len(entries) + 4
    pool = b"" if count <= 2 else struct.pack(f"{order}{count}H", *[bits] * count)
    body = b""
    for tag, value in entries.items():
        if tag == 258 and count > 2:
            body += struct.pack(f"{order}HHII", tag, 3, count, after)
        elif tag in (273, 279):
            body += struct.pack(f"{order}HHII", tag, 4, 1, after + len(pool) if tag == 273 else len(data))
        else:
            body += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}IH", 8, len(entries)) + body + b"\0\0\0\0" + pool + data


def pgm16(pixels: np.ndarray, largest: int) -> bytes:
    return f"P5 {pixels.shape[1]} {pixels.shape[0]} {largest}\n".encode() + pixels[..., 0].astype(">u2").tobytes()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png16(DEEP[..., :1], 0), DEEP[..., [0, 0, 0]] / 65535),
        (png16(DEEP[..., :2], 4), DEEP[..., [0, 0, 0, 1]] / 65535),
        (png16(DEEP[..., :3], 2), DEEP[..., :3] / 65535),
        (png16(DEEP, 6), DEEP / 65535),
        (tiff(DEEP[..., :1], "<", 1), DEEP[..., [0, 0, 0]] / 65535),
        (tiff(DEEP[..., :1], ">", 1), DEEP[..., [0, 0, 0]] / 65535),
        (tiff(DEEP[..., :3], "<", 2), DEEP[..., :3] / 65535),
        (tiff(DEEP[..., :3], ">", 2), DEEP[..., :3] / 65535),
        (tiff(DEEP[..., :1] >> 4, "<", 1, bits=12), (DEEP[..., [0, 0, 0]] >> 4) / 4095),
        (pgm16(DEEP[..., :1], 65535), DEEP[..., [0, 0, 0]] / 65535),
        (pgm16(DEEP[..., :1] >> 6, 1023), (DEEP[..., [0, 0, 0]] >> 6) / 1023),
    ],
)
def test_more_than_8_bits_keep_every_bit(data: bytes, expected: np.ndarray) -> None:
    picture = decode_picture(data, "x")
    assert picture.pixels.dtype == np.float32
    assert picture.pixels.shape == expected.shape
    assert np.abs(picture.pixels - expected).max() < 1e-5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_the_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    tag = Image.Exif()
    tag[0x0112] = orientation
    data = saved(Image.fromarray(EIGHT[..., :3]), kind, exif=tag, lossless=True)
    picture = decode_picture(data, "x")
    assert np.array_equal(picture.pixels, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
    assert picture.turned == orientation
    assert np.array_equal(decode_picture(data, "x", upright=False).pixels, EIGHT[..., :3])


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (lambda: Image.fromarray(EIGHT[..., :3]).quantize(8), 3),
        (lambda: Image.fromarray(EIGHT[..., 0]), 3),
        (lambda: Image.fromarray(EIGHT[..., 0] > 99), 3),
        (lambda: Image.fromarray(EIGHT).convert("LA"), 4),
        (lambda: Image.fromarray(EIGHT), 4),
    ],
)
def test_palettes_grey_bits_and_alpha_become_colours(make: Callable[[], object], channels: int) -> None:
    source = make()
    expected = np.asarray(source.convert("RGB" if channels == 3 else "RGBA"))  # type: ignore[attr-defined]
    picture = decode_picture(saved(source), "x")
    assert np.array_equal(picture.pixels, expected)


def test_a_transparent_palette_is_transparent() -> None:
    source = Image.fromarray((EIGHT[..., 0] > 99).astype(np.uint8)).convert("P")
    picture = decode_picture(saved(source, "PNG", transparency=0), "x")
    assert picture.transparent
    assert np.array_equal(picture.pixels[..., 3] == 0, EIGHT[..., 0] <= 99)
    white = picture.opaque(1.0).pixels
    assert (white[EIGHT[..., 0] <= 99] == 255).all()


def test_cmyk_is_converted() -> None:
    source = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    assert decode_picture(saved(source, "TIFF"), "x").pixels[0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_scaling_weighs_colours_by_their_alpha(dtype: type) -> None:
    from ocd_bench.reading.pictures import Picture

    top = 255 if dtype is np.uint8 else 1.0
    pixels = np.zeros((2, 2, 4), dtype)
    pixels[0, 0] = (top, 0, 0, top)  # one red pixel; the colour of the others is not seen
    pixels[1, 1] = (0, top, 0, 0)
    small = Picture(pixels).resized(1, 1, "BOX").pixels[0, 0] / top
    assert small == pytest.approx([1, 0, 0, 0.25], abs=0.01)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (saved(Image.new("L", (4, 4)), "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 9)]), "2 frames or pages"),
        (saved(Image.new("L", (4, 4)), "TIFF", save_all=True, append_images=[Image.new("L", (4, 4))] * 2), "3 frames or pages"),
        (saved(Image.new("F", (4, 4)), "TIFF"), "a F picture"),
        (saved(Image.new("I", (4, 4)), "TIFF"), "a I picture"),
        (b"P6 2 2 65535\n" + bytes(24), "a PPM picture of more than 8 bits"),
        (tiff(DEEP, "<", 5), "a 16-bit picture of the kind CMYK"),
        (b"\x89PNG\r\n\x1a\n", "not a readable picture"),
        (b"<svg></svg>", "of no known format"),
        (b"", "of no known format"),
    ],
)
def test_what_would_be_guessed_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(UsageError, match="^dir/x.png: ") as caught:
        decode_picture(data, "dir/x.png")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("mode", "side"), [("1", 4097), ("1", 13_000), ("I;16", 4097)])
def test_a_picture_too_large_is_refused_before_it_is_unpacked(mode: str, side: int) -> None:
    import tracemalloc

    data = saved(Image.new(mode, (side, side)))
    tracemalloc.start()
    with pytest.raises(UsageError, match="more than 16,777,216 pixels"):
        decode_picture(data, "x")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
