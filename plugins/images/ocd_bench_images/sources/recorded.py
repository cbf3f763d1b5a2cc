"""Published test sets under shift, as their authors' files: CIFAR-10-C, ImageNet-C and its like, CIFAR-10.1."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ocd_bench import DataMissing, Request, Samples, Splits, UsageError
from ocd_bench.reading.pictures import SUFFIXES
from ocd_bench_images.corruptions import EXTRA, MAIN
from ocd_bench_images.sources.pictures import decode
from ocd_bench_images.sources.pool import Source, array_pool, to_tensor

if TYPE_CHECKING:
    from ocd_bench_images.settings import ImagesSettings

LABELS = "labels.npy"
SEVERITIES = 5
NEW_TEST = ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy")
NEW_TEST_FOLDERS = ("cifar10.1", "CIFAR-10.1", "CIFAR-10.1/datasets", ".")


def read_recorded(splits: Splits, kind: str, severity: int, request: Request, settings: ImagesSettings) -> Samples:
    """The test pictures of ``splits`` as a published file has them under ``kind`` at ``severity``.

    ``FOLDER/KIND.npy`` with ``labels.npy`` (CIFAR-10-C: the severities one after the other, each in the order of the test
    set), or ``FOLDER/KIND/SEVERITY/CLASS/NAME.JPEG`` (ImageNet-C, Tiny-ImageNet-C; also below one further folder, as the
    archives have it).

    Raises:
        UsageError: if the kind is not a published one, or the files are missing, damaged, or of another test set.
    """
    if kind not in (*MAIN, *EXTRA):
        raise UsageError(f"corruption {kind!r} is not a published one: there are no files of it; unset images.corruption_files")
    folder = _folder(settings.corruption_files, request.data_dirs)
    array = folder / f"{kind}.npy"
    if array.is_file():
        levels = _rows_of(array, folder / LABELS, severity, splits)
    else:
        levels = _pictures_of(folder, kind, severity, splits, settings.image_size)
    inputs = to_tensor(levels, settings.image_size)
    clean = splits.test.inputs
    if inputs.shape[1] == 3 and clean.shape[1] == 1:
        inputs = inputs[:, :1].contiguous()
    if inputs.shape != clean.shape:
        sizes = [" x ".join(map(str, shape[1:])) for shape in (inputs.shape, clean.shape)]
        raise UsageError(f"{folder}: pictures of {kind} are {sizes[0]}, the test set's {sizes[1]}; set images.image_size=N")
    return Samples(inputs, splits.test.targets)


def open_cifar10_1(request: Request, image_size: int) -> Source:
    """CIFAR-10.1 v6 as the test set of a CIFAR-10 that lies beside it.

    Raises:
        DataMissing: naming the places looked at.
        UsageError: if a file is damaged.
    """
    from ocd_bench_images.sources import open_source

    places = [directory / name for directory in request.data_dirs for name in NEW_TEST_FOLDERS]
    folder = next((place for place in places if (place / NEW_TEST[0]).is_file()), None)
    if folder is None:
        looked = ", ".join(str(place / NEW_TEST[0]) for place in places) or "no data directory"
        raise DataMissing(f"dataset 'cifar10.1' of task {request.task!r} not found: looked for {looked}; give --data-dir")
    pictures, labels = _array(folder / NEW_TEST[0], 4), _array(folder / NEW_TEST[1], 1)
    if len(pictures) != len(labels):
        raise UsageError(f"{folder / NEW_TEST[1]}: {len(labels):,} labels for {len(pictures):,} pictures; get the files again")
    home = open_source(dataclasses.replace(request, dataset="cifar10"), image_size)
    if len(labels) and labels.max() >= len(home.classes):
        raise UsageError(
            f"{folder / NEW_TEST[1]}: label {labels.max()} is not a class of CIFAR-10 (0 to {len(home.classes) - 1})"
        )
    test = array_pool(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)), labels.astype(np.int64))
    return dataclasses.replace(home, test=test, home_test=home.test, note="training part of CIFAR-10, test set CIFAR-10.1 v6")


def _folder(name: str, directories: Sequence[Path]) -> Path:
    given = Path(name).expanduser()
    places = [given] if given.is_absolute() else [given, *(directory / given for directory in directories)]
    for place in places:
        if place.is_dir():
            return place
    raise UsageError(f"setting images.corruption_files={name!r}: no such folder; looked for {', '.join(map(str, places))}")


def _rows_of(path: Path, label_path: Path, severity: int, splits: Splits) -> np.ndarray:
    """uint8 ``(n, C, H, W)`` of the test set's rows."""
    pictures, labels = _array(path, 4), _array(label_path, 1)
    size, rows = splits.extras["test_size"], splits.extras["test_rows"]
    if len(pictures) != SEVERITIES * size or len(labels) not in (size, SEVERITIES * size):
        raise UsageError(
            f"{path}: {len(pictures):,} pictures and {len(labels):,} labels, expected five severities of the {size:,} test "
            "pictures"
        )
    wanted = splits.test.targets.numpy()
    if not np.array_equal(labels[rows], wanted):
        raise UsageError(
            f"{label_path}: the labels are in another order than the test set's ({int((labels[rows] != wanted).sum()):,} of "
            f"{len(rows):,} differ); CIFAR-10-C keeps the order of the official binary version: take that as the dataset"
        )
    return np.ascontiguousarray(pictures[rows + (severity - 1) * size].transpose(0, 3, 1, 2))


def _pictures_of(folder: Path, kind: str, severity: int, splits: Splits, image_size: int) -> np.ndarray:
    """uint8 ``(n, 3, H, W)`` of the files with the test pictures' names."""
    tops = [folder, *sorted(child for child in folder.iterdir() if child.is_dir())]
    top = next((each / kind / str(severity) for each in tops if (each / kind / str(severity)).is_dir()), None)
    if top is None:
        raise UsageError(f"{folder}: neither {kind}.npy with {LABELS} nor {kind}/{severity}/CLASS/NAME")
    names = splits.extras["test_names"]
    if not names:
        raise UsageError(f"{top}: files by class and name, but the test set's pictures have no names; take class folders")
    found = {}
    for path in top.rglob("*"):
        if path.suffix.lower() in SUFFIXES:
            found[f"{path.relative_to(top).parts[0]}/{path.stem}"] = path
    missing = [name for name in names if name not in found]
    if missing:
        raise UsageError(f"{top}: no picture {missing[0]} ({len(missing):,} of {len(names):,} test pictures are missing)")
    pictures = [decode(found[name].read_bytes(), str(found[name]), image_size) for name in names]
    if len({picture.shape for picture in pictures}) > 1:
        raise UsageError(f"{top}: pictures of differing sizes; make them one size with --set images.image_size=N")
    return np.stack(pictures)


def _array(path: Path, dimensions: int) -> np.ndarray:
    """A uint8 or integer array of that many dimensions, mapped into memory."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; get the dataset again") from error
    except (ValueError, OSError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path}: not a whole .npy file ({reason}); get it again") from error
    if not isinstance(array, np.ndarray) or array.ndim != dimensions or array.dtype.kind not in "ui":
        form = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "no array"
        raise UsageError(f"{path}: {form}, expected integers of {dimensions} dimensions")
    if dimensions == 4 and (array.dtype != np.uint8 or array.shape[-1] != 3):
        raise UsageError(f"{path}: {array.dtype} of shape {array.shape}, expected uint8 pictures (N, H, W, 3)")
    return array
