"""IDX files, the format of MNIST and Fashion-MNIST, plain or compressed, under any name.

Layout: big-endian header (two zero bytes, element type, number of dimensions; then each dimension as int32), then the elements.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ocd_bench import UsageError
from ocd_bench.reading import is_paper, is_stray, listed, open_unpacked, reading, split_name
from ocd_bench_images.sources.pool import Source, array_pool, check_memory, number_classes

_CURE = "get the file again (see 'ocd-bench data list')"
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Element types of the format. Pictures must be of the first; labels may be of any integer one."""
ROLES = ("train-images", "train-labels", "t10k-images", "t10k-labels")


def open_idx(folder: Path) -> Source | None:
    """The dataset of the four files of ``folder``; None if it holds no IDX file.

    A file is known by its name: ``idx`` or ``ubyte`` in it; ``train`` or ``test`` (``t10k``); ``image`` or ``label``.

    Raises:
        UsageError: if one of the four is missing, doubled or damaged.
    """
    found = _files(folder)
    if not found:
        return None
    missing = [role for role in ROLES if role not in found]
    if missing:
        raise UsageError(f"{folder}: {_name(missing[0])}.gz is missing beside the other IDX files; {_CURE}")
    paths = [found[role] for role in ROLES]
    train, train_labels = _pair(*paths[:2])
    test, test_labels = _pair(*paths[2:])
    if train.shape[1:] != test.shape[1:]:
        sizes = [" x ".join(map(str, pictures.shape[1:])) for pictures in (test, train)]
        raise UsageError(f"{paths[2]}: pictures of {sizes[0]}, but {paths[0].name} has {sizes[1]}; {_CURE}")
    classes, (train_numbers, test_numbers) = number_classes(train_labels, [test_labels], str(folder))
    return Source(array_pool(train[:, None], train_numbers), array_pool(test[:, None], test_numbers), classes)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of an IDX file with that many dimensions: uint8, or another integer type where there is one dimension.

    Raises:
        UsageError: if it cannot be read, is not such a file, or holds fewer or more bytes than its header says.
    """
    with open_unpacked(path) as file, reading(path, _CURE):
        header = file.read(4 + 4 * dimensions)
        if len(header) < 4 + 4 * dimensions:
            raise UsageError(f"{path}: {len(header)} bytes are too few for an IDX header; {_CURE}")
        magic = int.from_bytes(header[:4], "big")
        kind = np.dtype(TYPES.get(header[2], "V1"))
        if header[:2] != b"\0\0" or header[3] != dimensions or kind.kind not in "iu" or (dimensions > 1 and header[2] != 8):
            raise UsageError(f"{path}: magic number {magic}, expected {0x0800 + dimensions} (IDX, uint8); {_CURE}")
        shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
        if 0 in shape:
            raise UsageError(f"{path}: the header says {' x '.join(map(str, shape))}: nothing in it; {_CURE}")
        check_memory(shape, str(path))
        expected = math.prod(shape) * kind.itemsize
        # One byte more than promised tells a longer file; a gzip bomb is not unpacked beyond that.
        body = _at_most(file, expected + 1)
    if len(body) != expected:
        amount = f"only {len(body):,}" if len(body) < expected else "more"
        raise UsageError(f"{path}: the header declares {expected:,} bytes of data, the file has {amount}; {_CURE}")
    values = np.frombuffer(body, kind).reshape(shape)
    return values if header[2] == 8 else values.astype(np.int64)


def _at_most(file: object, count: int) -> bytes:
    """At most ``count`` bytes, read in blocks: ``read(count)`` would allocate the size that the header declares."""
    blocks, total = [], 0
    while total < count and (block := file.read(min(2**20, count - total))):  # type: ignore[attr-defined]
        blocks.append(block)
        total += len(block)
    return b"".join(blocks)


def _pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    pictures, numbers = read_idx(images, 3), read_idx(labels, 1)
    if len(pictures) != len(numbers):
        raise UsageError(f"{labels}: {len(numbers):,} labels for the {len(pictures):,} pictures of {images.name}; {_CURE}")
    return pictures, numbers


def _name(role: str) -> str:
    return f"{role}-idx{3 if role.endswith('images') else 1}-ubyte"


def _files(folder: Path) -> dict[str, Path]:
    """IDX files by role; a plain file before its compressed twin.

    Raises:
        UsageError: if two files have one role.
    """
    found: dict[str, list[Path]] = {}
    with reading(folder):
        entries = sorted(entry for entry in folder.iterdir() if not is_stray(entry.name) and not is_paper(entry.name))
    for path in entries:
        if role := _role(path.name):
            found.setdefault(role, []).append(path)
    chosen: dict[str, Path] = {}
    for role, paths in found.items():
        plain = [path for path in paths if not split_name(path.name).packed] or paths
        standard = [path for path in plain if path.name.lower().replace(".idx", "-idx").startswith(_name(role))] or plain
        if len(standard) > 1:
            raise UsageError(f"{folder}: several files could be {role} ({listed([path.name for path in standard])}); keep one")
        chosen[role] = standard[0]
    return chosen


def _role(name: str) -> str:
    low = name.lower()
    if "ubyte" not in low and "idx" not in low:
        return ""
    part = "train" if "train" in low else "t10k" if "t10k" in low or "test" in low else ""
    what = "images" if "image" in low else "labels" if "label" in low else ""
    return f"{part}-{what}" if part and what else ""
