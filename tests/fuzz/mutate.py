"""Damage done to files on purpose: bytes, numbers, quotes and headers changed, also inside gzip and zip."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import re
import zipfile

TOKENS = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\r", b"\n\n", b'"', b"'", b",", b";", b"\t", b"|",
    b" ", b"[" * 3000, b"{" * 300, b"null", b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"00", b"01", b"9007199254740993",
    b"18446744073709551616", b"1" * 5000, b"4294967295", b"1.234,56", b"1,234", b"1'000", b"12%", b"$5", b"0x1F", b"1_000",
    b"2024-02-30", b"31/12/2024", b"\\ud800", b"\xe2\x80\xae", b"\x1b[31m", b"qid:", b"400000000:1", b"../../etc/passwd",
    b"true", b"{}", b"[]", b'""', b"PK\x03\x04", b"\x1f\x8b\x08", b"(2147483647, 4)", b"|O", b"<U0", b">f8", b"A" * 100_000,
)  # fmt: skip


def mutate(data: bytes, rng: random.Random) -> bytes:
    """``data`` with one to four changes; half of the time below its compression, where it has one."""
    if rng.random() < 0.5:
        with contextlib.suppress(Exception):
            return _inside(data, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = _once(data, rng)
    return data


def _inside(data: bytes, rng: random.Random) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.compress(mutate(gzip.decompress(data), rng), 1)
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member.filename: archive.read(member) for member in archive.infolist()}
        chosen = rng.choice(list(members))
        content = members[chosen]
        # The header of an array is where its size stands.
        head = content[:128] if content.startswith(b"\x93NUMPY") and rng.random() < 0.7 else content
        members[chosen] = mutate(head, rng) + content[len(head) :]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            for name, each in members.items():
                archive.writestr(name if rng.random() < 0.98 else name[::-1], each)
        return buffer.getvalue()
    raise ValueError


def _once(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    span = rng.choice((1, 1, 2, 4, 16, 64, 1000))
    match rng.randrange(9):
        case 0:
            changed = bytearray(data or b"\0")
            changed[min(place, len(changed) - 1)] ^= 1 << rng.randrange(8)
            return bytes(changed)
        case 1:
            return data[:place] + data[place + span :]
        case 2:
            return data[:place] + data[place : place + span] * rng.choice((2, 3, 50)) + data[place + span :]
        case 3 | 4:
            return data[:place] + rng.choice(TOKENS) + data[place + rng.choice((0, span)) :]
        case 5:
            return data[:place]
        case 6:
            other = rng.randrange(len(data) + 1)
            return data[:place] + data[other : other + span] + data[place + span :]
        case 7:
            numbers = list(re.finditer(rb"\d+", data))
            if not numbers:
                return data + rng.choice(TOKENS)
            found = rng.choice(numbers)
            return data[: found.start()] + rng.choice(TOKENS) + data[found.end() :]
        case _:
            value = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
            width = rng.choice((1, 2, 4, 8))
            raw = (value & (2 ** (8 * width) - 1)).to_bytes(width, rng.choice(("little", "big")))  # type: ignore[arg-type]
            return data[:place] + raw + data[place + width :]
