"""Pictures and labels as arrays of an ``.npz`` file, whatever its name: ``x_train``, ``y_train``, ``x_test``, ``y_test`` as
Keras has them, ``train_images``, ``train_labels``, ``val_images`` ... as MedMNIST has them, or ``images`` and ``labels``
alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ocd_bench import UsageError
from ocd_bench.reading import listed, read_npz
from ocd_bench_images.sources.pool import Pool, Source, array_pool, check_memory, number_classes

PICTURES = ("x", "images", "imgs", "data")
LABELS = ("y", "labels", "targets", "target")
CHANNELS = (1, 3)


def open_npz(place: Path) -> Source | None:
    """The dataset of an ``.npz`` file, or of the only one in a folder; None where there is none.

    Raises:
        UsageError: if it is damaged, or its arrays are not pictures and labels.
    """
    if place.is_dir():
        files = sorted(path for path in place.iterdir() if path.suffix.lower() == ".npz" and not path.name.startswith("."))
        if len(files) > 1:
            raise UsageError(f"{place}: several .npz files ({listed([path.name for path in files])}); keep one")
        return open_npz(files[0]) if files else None
    if place.suffix.lower() != ".npz":
        return None
    arrays = read_npz(place)
    parts = {part: pair for part in ("train", "test", "val") if (pair := _pair(arrays, part, place))}
    if not parts:
        pair = _pair(arrays, "", place)
        parts = {"train": pair} if pair else {}
    if "train" not in parts:
        raise UsageError(
            f"{place}: no arrays of pictures and labels (x_train and y_train, train_images and train_labels, or images and "
            f"labels); it has {listed(sorted(arrays)) or 'none'}"
        )
    note = ""
    if "val" in parts and "test" not in parts:
        parts["test"], note = parts.pop("val"), "its validation part as test"
    order = [part for part in ("train", "test", "val") if part in parts]
    classes, numbers = number_classes(parts["train"][1], [parts[part][1] for part in order[1:]], str(place))
    pools: dict[str, Pool] = {}
    for part, labels in zip(order, numbers, strict=True):
        pictures = parts[part][0]
        if pictures.shape[1:] != parts["train"][0].shape[1:]:
            raise UsageError(f"{place}: the pictures of {part} are of another shape than those of train")
        pools[part] = array_pool(pictures, labels)
    return Source(pools["train"], pools.get("test"), classes, pools.get("val"), note)


def _pair(arrays: dict[str, np.ndarray], part: str, place: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Pictures ``(N, C, H, W)`` and labels ``(N,)`` of a part; None if it is not there."""

    def find(words: tuple[str, ...]) -> str | None:
        names = [f"{word}_{part}" for word in words] + [f"{part}_{word}" for word in words] if part else list(words)
        matches = [name for name in arrays if name.lower() in names]
        if len(matches) > 1:
            raise UsageError(f"{place}: {' and '.join(sorted(matches))} could both be meant; keep one")
        return matches[0] if matches else None

    pictures, labels = find(PICTURES), find(LABELS)
    if pictures is None and labels is None:
        return None
    if pictures is None or labels is None:
        raise UsageError(f"{place}: {pictures or labels} without its {'labels' if labels is None else 'pictures'}")
    values, targets = _pictures(arrays[pictures], f"{place}: {pictures}"), _labels(arrays[labels], f"{place}: {labels}")
    if len(values) != len(targets):
        raise UsageError(f"{place}: {len(targets):,} labels in {labels} for the {len(values):,} pictures of {pictures}")
    return values, targets


def _pictures(values: np.ndarray, where: str) -> np.ndarray:
    """``(N, C, H, W)``, uint8 or float32 in [0, 1]."""
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4:
        last, second = values.shape[3] in CHANNELS, values.shape[1] in CHANNELS
        if last == second:
            raise UsageError(
                f"{where}: shape {values.shape}: expected (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3"
                + (", and it could be either of the last two" if last else "")
            )
        values = values.transpose(0, 3, 1, 2) if last else values
    else:
        raise UsageError(f"{where}: shape {values.shape}: expected (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if 0 in values.shape:
        raise UsageError(f"{where}: shape {values.shape}: no pictures in it")
    check_memory(values.shape, where)
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return values.astype(np.float32) / np.float32(65535)
    if values.dtype.kind != "f":
        raise UsageError(f"{where}: {values.dtype}: expected uint8, uint16, or floats in [0, 1]")
    low, high = float(values.min()), float(values.max())  # NaN where there is one
    if not (low >= 0 and high <= 1):
        raise UsageError(
            f"{where}: values from {low:g} to {high:g}: expected floats in [0, 1]; divide by the largest value they can have"
        )
    return values.astype(np.float32)


def _labels(values: np.ndarray, where: str) -> np.ndarray:
    """``(N,)`` of integers or texts; one-hot rows become numbers."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.dtype.kind in "iufb" and np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all():
        values = values.argmax(1)
    if values.ndim != 1 or values.dtype.kind not in "iubUS":
        raise UsageError(
            f"{where}: shape {values.shape} of {values.dtype}: expected one label for each picture, integers or texts"
        )
    return values.astype(np.int64) if values.dtype.kind == "b" else values
