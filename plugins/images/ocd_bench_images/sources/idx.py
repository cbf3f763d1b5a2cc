"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

Layout: big-endian header (two zero bytes, element type 8 = uint8, number of dimensions; then each dimension as int32), then
raw bytes.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ocd_bench import UsageError
from ocd_bench_images.sources.pool import Source, array_pool, check_memory, number_classes

_CURE = "get the file again (see 'ocd-bench data list')"


def open_idx(folder: Path) -> Source | None:
    """The dataset of the four standard files of ``folder``; None if it holds none of them.

    Raises:
        UsageError: if one is missing or damaged.
    """
    stems = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    found = {stem: _file(folder, stem) for stem in stems}
    if not any(found.values()):
        return None
    paths: list[Path] = []
    for stem in stems:
        path = found[stem]
        if path is None:
            raise UsageError(f"{folder}: {_name(stem)}.gz is missing beside the other IDX files; {_CURE}")
        paths.append(path)
    train, train_labels = _pair(*paths[:2])
    test, test_labels = _pair(*paths[2:])
    if train.shape[1:] != test.shape[1:]:
        sizes = [" x ".join(map(str, pictures.shape[1:])) for pictures in (test, train)]
        raise UsageError(f"{paths[2]}: pictures of {sizes[0]}, but {paths[0].name} has {sizes[1]}; {_CURE}")
    classes, (train_numbers, test_numbers) = number_classes(train_labels, [test_labels], str(folder))
    return Source(array_pool(train[:, None], train_numbers), array_pool(test[:, None], test_numbers), classes)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file with that many dimensions.

    Raises:
        UsageError: if it cannot be read, is not such a file, or holds fewer or more bytes than its header says.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions:
                raise UsageError(f"{path}: {len(header)} bytes are too few for an IDX header; {_CURE}")
            magic = int.from_bytes(header[:4], "big")
            if magic != 0x0800 + dimensions:
                raise UsageError(f"{path}: magic number {magic}, expected {0x0800 + dimensions} (IDX, uint8); {_CURE}")
            shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
            if 0 in shape:
                raise UsageError(f"{path}: the header says {' x '.join(map(str, shape))}: nothing in it; {_CURE}")
            check_memory(shape, str(path))
            expected = math.prod(shape)
            # One byte more than promised tells a longer file; a gzip bomb is not unpacked beyond that.
            body = file.read(expected + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: broken gzip ({error}); {_CURE}") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(body) != expected:
        amount = f"only {len(body):,}" if len(body) < expected else "more"
        raise UsageError(f"{path}: the header declares {expected:,} bytes of data, the file has {amount}; {_CURE}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    pictures, numbers = read_idx(images, 3), read_idx(labels, 1)
    if len(pictures) != len(numbers):
        raise UsageError(f"{labels}: {len(numbers):,} labels for the {len(pictures):,} pictures of {images.name}; {_CURE}")
    return pictures, numbers


def _name(stem: str) -> str:
    return f"{stem}-idx{3 if stem.endswith('images') else 1}-ubyte"


def _file(folder: Path, stem: str) -> Path | None:
    """Plain before gzipped; ``train-images.idx3-ubyte`` is a common other spelling."""
    name = _name(stem)
    for variant in (name, name.replace("-idx", ".idx")):
        for path in (folder / variant, folder / f"{variant}.gz"):
            if path.is_file():
                return path
    return None
