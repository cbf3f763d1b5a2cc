"""CIFAR-10, official binary version: records of one label byte and 3 x 32 x 32 pixel bytes, red plane first."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from ocd_bench import UsageError
from ocd_bench.reading import open_file, open_unpacked, reading
from ocd_bench_images.sources.pool import Source, array_pool

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
ARCHIVE = "cifar-10-binary.tar.gz"
RECORD = 1 + 3 * 32 * 32
BATCH_LIMIT = 10_000 * RECORD
"""Bytes of an official batch; a file may be shorter, not longer."""


def open_cifar(folder: Path) -> Source | None:
    """The dataset of ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, unpacked or in the official archive;
    None where ``folder`` has neither.

    Raises:
        UsageError: if a file is missing or damaged.
    """
    if any((folder / name).exists() for name in (*TRAIN, TEST)):
        return _source(folder, _read_files(folder))
    if (folder / ARCHIVE).is_file():
        return _source(folder / ARCHIVE, _read_archive(folder / ARCHIVE))
    return None


def _read_files(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in (folder / name for name in (*TRAIN, TEST)):
        if not path.exists():
            continue
        with open_file(path) as file, reading(path):
            found[path.name] = file.read(BATCH_LIMIT + 1)
    return found


def _read_archive(archive: Path) -> dict[str, bytes]:
    """The batches, in one pass over the archive; nothing is unpacked to disk."""
    found = {}
    with (
        open_unpacked(archive) as stream,
        reading(archive, "get it again"),
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        for member in tar:
            name = PurePosixPath(member.name).name
            file = tar.extractfile(member) if name in (*TRAIN, TEST) and member.isfile() else None
            if file is not None:
                found[name] = file.read(BATCH_LIMIT + 1)
    return found


def _source(where: Path, files: Mapping[str, bytes]) -> Source:
    for name in (*TRAIN, TEST):
        if name not in files:
            raise UsageError(f"{where}: {name} is missing; get the binary version again")
    pictures, labels = zip(*(_records(files[name], f"{where}: {name}") for name in (*TRAIN, TEST)), strict=True)
    train = array_pool(np.concatenate(pictures[:-1]), np.concatenate(labels[:-1]))
    return Source(train, array_pool(pictures[-1], labels[-1]), CLASSES)


def _records(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not data or len(data) % RECORD or len(data) > BATCH_LIMIT:
        raise UsageError(f"{where}: {len(data):,} bytes are not 1 to 10,000 records of {RECORD:,}; get the file again")
    rows = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    if rows[:, 0].max() >= len(CLASSES):
        raise UsageError(f"{where}: label {rows[:, 0].max()} is not a class of CIFAR-10 (0 to 9); get the file again")
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]
