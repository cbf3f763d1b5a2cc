"""Pictures in one folder per class, decoded when asked for; see :mod:`ocd_bench_images.sources.layout` for where they may lie.
Tiny ImageNet is one of these, but for its validation file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from ocd_bench import UsageError
from ocd_bench.reading.pictures import SUFFIXES
from ocd_bench_images.sources.layout import Entry, read_layout
from ocd_bench_images.sources.pictures import decode
from ocd_bench_images.sources.pool import Pool, Source, check_memory, number_classes


def open_class_folders(place: Path, image_size: int, background: str = "") -> Source | None:
    """The dataset in a folder or zip; None if there is no training part of this layout.

    Args:
        image_size: pixels square to resize pictures to, 0 to keep their size.
        background: what transparent pictures are set on, see :func:`ocd_bench_images.sources.pictures.decode`.

    Raises:
        UsageError: if a part has no pictures, there is no test part, or the classes of the parts do not match.
    """
    layout = read_layout(place)
    parts, remarks = layout.parts, layout.remarks
    if "train" not in parts and "all" not in parts:
        return None
    for part, entries in parts.items():
        if not entries:
            raise UsageError(f"{place}: no pictures in {part} (looked for CLASS/NAME with {', '.join(sorted(SUFFIXES))})")
    if "all" in parts:
        parts = {"train": parts["all"]}
    elif "test" not in parts:
        if "val" not in parts:
            raise UsageError(f"{place}: a train part, but neither test nor val; add one of them with the same class folders")
        parts["test"] = parts.pop("val")
        remarks.append("its validation part as test")
    order = [part for part in ("train", "test", "val") if part in parts]
    labels = [np.array([entry.label for entry in parts[part]]) for part in order]
    classes, numbers = number_classes(labels[0], labels[1:], str(place))
    pools = {part: _pool(parts[part], number, image_size, background) for part, number in zip(order, numbers, strict=True)}
    return Source(pools["train"], pools.get("test"), classes, pools.get("val"), ", ".join(remarks), all_colour=False)


def _pool(entries: list[Entry], numbers: np.ndarray, image_size: int, background: str) -> Pool:
    def read(indices: np.ndarray) -> np.ndarray:
        pictures: np.ndarray | None = None
        for row, index in enumerate(indices):
            entry = entries[int(index)]
            where = entry.tree.where(entry.name)
            picture = decode(entry.tree.read(entry.name), where, image_size, background)
            if pictures is None:
                shape = (len(indices), *picture.shape)
                check_memory(shape, where)
                pictures = np.empty(shape, picture.dtype)
            if picture.shape != pictures.shape[1:]:
                first = entries[int(indices[0])]
                raise UsageError(
                    f"{where}: {picture.shape[2]} x {picture.shape[1]} pixels, but {first.tree.where(first.name)} has "
                    f"{pictures.shape[3]} x {pictures.shape[2]}; make them one size with --set images.image_size=N"
                )
            if picture.dtype != pictures.dtype and pictures.dtype == np.uint8:  # the first one of 16 bits
                pictures = pictures.astype(np.float32) / 255
            pictures[row] = picture if picture.dtype == pictures.dtype else picture.astype(np.float32) / 255
        assert pictures is not None
        return pictures

    names = [f"{entry.label}/{PurePosixPath(entry.name).stem}" for entry in entries]
    return Pool(numbers.astype(np.int64), read, by_class=True, names=names)
