"""Writes a grey PNG with zlib only, so that the report needs no imaging library."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def grey_png(levels: np.ndarray) -> bytes:
    """PNG bytes of ``levels`` ``(H, W)``, uint8, 0 is black (PNG specification, third edition: colour type 0, no filter)."""
    height, width = levels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), levels.astype(np.uint8)], axis=1).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
