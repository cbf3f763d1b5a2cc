"""Pictures in one folder per class: ``train/CLASS/NAME.png`` and ``test/CLASS/NAME.png``, as folders, as one zip of both, or
as ``train*.zip`` and ``test*.zip`` of ``CLASS/NAME.png``. Tiny ImageNet is one of these, but for its validation file."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ocd_bench import UsageError
from ocd_bench_images.sources.pictures import SUFFIXES, decode
from ocd_bench_images.sources.pool import Pool, Source, check_memory, number_classes
from ocd_bench_images.sources.trees import FolderTree, Tree, ZipTree

PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}
"""Names of the folders (or beginnings of the zips) and the part each stands for."""
ANNOTATIONS = "val_annotations.txt"


@dataclass(frozen=True)
class Entry:
    """One picture file: sorted by class, then name, whatever zip it lies in."""

    label: str
    name: str
    tree: Tree


def open_class_folders(place: Path, image_size: int) -> Source | None:
    """The dataset in a folder or zip; None if there is no training part of this layout.

    Raises:
        UsageError: if a part has no pictures, there is no test part, or the classes of the parts do not match.
    """
    parts = _parts(place)
    if "train" not in parts:
        return None
    for part, entries in parts.items():
        if not entries:
            raise UsageError(f"{place}: no pictures in {part} (looked for CLASS/NAME with {', '.join(sorted(SUFFIXES))})")
    note = ""
    if "test" not in parts:
        if "val" not in parts:
            raise UsageError(f"{place}: a train part, but neither test nor val; add one of them with the same class folders")
        parts["test"], note = parts.pop("val"), "its validation part as test"
    order = [part for part in ("train", "test", "val") if part in parts]
    labels = [np.array([entry.label for entry in parts[part]]) for part in order]
    classes, numbers = number_classes(labels[0], labels[1:], str(place))
    pools = {part: _pool(parts[part], number, image_size) for part, number in zip(order, numbers, strict=True)}
    return Source(pools["train"], pools["test"], classes, pools.get("val"), note, all_colour=False)


def _parts(place: Path) -> dict[str, list[Entry]]:
    """Entries of each part, sorted."""
    found: dict[str, list[Entry]] = {}
    if place.is_dir():
        for child in sorted(place.iterdir()):
            if child.is_dir() and child.name in PARTS:
                tree = FolderTree(child)
                _add(found, PARTS[child.name], tree, {name: name for name in tree.names})
            elif child.suffix == ".zip" and (part := _part_of_zip(child.stem)):
                packed = ZipTree(child)
                _add(found, part, packed, {name: _without(name, PARTS) for name in packed.names})
    else:
        packed = ZipTree(place)
        tops = {name.partition("/")[0] for name in packed.names if not name.startswith("__MACOSX")}
        wrapper = tops if len(tops) == 1 and not tops & PARTS.keys() else ()
        grouped: dict[str, dict[str, str]] = {}
        for name in packed.names:
            top, _, rest = _without(name, wrapper).partition("/")
            if top in PARTS and rest:
                grouped.setdefault(PARTS[top], {})[name] = rest
        for part, names in grouped.items():
            _add(found, part, packed, names)
    # Tiny ImageNet's test pictures have no labels: one folder without classes.
    if "val" in found and {entry.label for entry in found.get("test", ())} == {"images"}:
        del found["test"]
    return {part: sorted(entries, key=lambda entry: (entry.label, entry.name)) for part, entries in found.items()}


def _part_of_zip(stem: str) -> str | None:
    """``train``, ``train-0``, ``train_1``, ``train2`` are parts of train."""
    return PARTS.get(stem.rstrip("0123456789").rstrip("-_"))


def _without(name: str, tops: Container[str]) -> str:
    """``name`` without its first folder, where that is one of ``tops``."""
    top, sign, rest = name.partition("/")
    return rest if sign and top in tops else name


def _add(found: dict[str, list[Entry]], part: str, tree: Tree, names: dict[str, str]) -> None:
    """Add the pictures among ``names`` (name in the tree to path within the part) to a part."""
    entries = found.setdefault(part, [])
    annotated: dict[str, str] = {}
    for name, path in names.items():
        if path == ANNOTATIONS:
            annotated = _annotations(tree, name)
    for name, path in names.items():
        pieces = PurePosixPath(path).parts
        hidden = any(piece.startswith((".", "__MACOSX")) for piece in pieces)
        if hidden or len(pieces) < 2 or PurePosixPath(path).suffix.lower() not in SUFFIXES:
            continue
        if annotated and pieces[-1] not in annotated:
            raise UsageError(f"{tree.where(name)}: the picture has no line in {ANNOTATIONS}; get the dataset again")
        entries.append(Entry(annotated.get(pieces[-1], pieces[0]), name, tree))


def _annotations(tree: Tree, name: str) -> dict[str, str]:
    """Tiny ImageNet's validation labels: file name, class and a box a line, by tabs."""
    labels: dict[str, str] = {}
    for number, line in enumerate(tree.read(name).decode("utf-8", "replace").splitlines(), 1):
        pieces = line.split("\t")
        if len(pieces) < 2:
            raise UsageError(f"{tree.where(name)}, line {number}: expected a file name, a tab and a class")
        labels[pieces[0]] = pieces[1]
    return labels


def _pool(entries: list[Entry], numbers: np.ndarray, image_size: int) -> Pool:
    def read(indices: np.ndarray) -> np.ndarray:
        pictures: np.ndarray | None = None
        for row, index in enumerate(indices):
            entry = entries[int(index)]
            where = entry.tree.where(entry.name)
            picture = decode(entry.tree.read(entry.name), where, image_size)
            if pictures is None:
                shape = (len(indices), *picture.shape)
                check_memory(shape, where)
                pictures = np.empty(shape, np.uint8)
            if picture.shape != pictures.shape[1:]:
                first = entries[int(indices[0])]
                raise UsageError(
                    f"{where}: {picture.shape[2]} x {picture.shape[1]} pixels, but {first.tree.where(first.name)} has "
                    f"{pictures.shape[3]} x {pictures.shape[2]}; make them one size with --set images.image_size=N"
                )
            pictures[row] = picture
        assert pictures is not None
        return pictures

    return Pool(numbers.astype(np.int64), read, by_class=True)
