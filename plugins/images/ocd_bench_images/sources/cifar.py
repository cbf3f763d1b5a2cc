"""CIFAR-10, official binary version: records of one label byte and 3 x 32 x 32 pixel bytes, red plane first."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ocd_bench import UsageError
from ocd_bench_images.sources.pool import Source, array_pool

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32
BATCH_LIMIT = 10_000 * RECORD
"""Bytes of an official batch; a file may be shorter, not longer."""
ARCHIVE = "cifar-10-binary.tar.gz"


def open_cifar(folder: Path) -> Source | None:
    """The dataset of ``data_batch_*.bin`` and ``test_batch.bin``, unpacked or in the official archive; None if absent.

    Raises:
        UsageError: if a file is missing or damaged.
    """
    batches = sorted(folder.glob("data_batch_*.bin"))
    if batches or (folder / "test_batch.bin").exists():
        return _source(folder, [path.name for path in batches], lambda name: _read_file(folder / name))
    archive = folder / ARCHIVE
    if not archive.is_file():
        return None
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = {Path(member.name).name: member for member in tar.getmembers() if member.isfile()}

            def read(name: str) -> bytes:
                file = tar.extractfile(members[name]) if name in members else None
                if file is None:
                    raise UsageError(f"{archive}: {name} is missing; get the archive again")
                return file.read(BATCH_LIMIT + 1)

            names = sorted(name for name in members if name.startswith("data_batch_") and name.endswith(".bin"))
            return _source(archive, names, read)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UsageError(f"{archive}: broken archive ({error}); get it again") from error


def _read_file(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(BATCH_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def _source(where: Path, names: list[str], read: Callable[[str], bytes]) -> Source:
    if not names:
        raise UsageError(f"{where}: data_batch_1.bin to data_batch_5.bin are missing; get the binary version again")
    parts = [_records(read(name), f"{where}: {name}") for name in names]
    train, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Source(array_pool(train, labels), array_pool(*_records(read("test_batch.bin"), f"{where}: test_batch.bin")), CLASSES)


def _records(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not data or len(data) % RECORD or len(data) > BATCH_LIMIT:
        raise UsageError(f"{where}: {len(data):,} bytes are not 1 to 10,000 records of {RECORD:,}; get the file again")
    rows = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    if rows[:, 0].max() >= len(CLASSES):
        raise UsageError(f"{where}: label {rows[:, 0].max()} is not a class of CIFAR-10 (0 to 9); get the file again")
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]
