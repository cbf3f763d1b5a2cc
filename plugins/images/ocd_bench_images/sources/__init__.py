"""Sources of pictures: one module per file format. The format is recognised by the content of a folder, not by its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ocd_bench import DataMissing, Request, UsageError
from ocd_bench_images.sources.pool import Source

ALIASES = {
    "mnist": ("MNIST",),
    "fashion-mnist": ("FashionMNIST",),
    "cifar10": ("cifar-10-batches-bin",),
    "tiny-imagenet": ("tiny-imagenet-200",),
}
"""Folder names of the official archives and of torchvision, tried after the dataset's own name."""


def open_source(request: Request, image_size: int) -> Source:
    """The requested dataset, its pictures not yet decoded.

    Raises:
        DataMissing: if no data directory has it.
        UsageError: if the content of the folder is damaged or has no known format.
    """
    if request.dataset == "digits":
        from ocd_bench_images.sources.digits import open_digits

        return open_digits()
    place = find(request)
    for candidate in _inside(place):
        source = _recognise(candidate, image_size)
        if source is not None:
            return source
    hint = ""
    if place.is_dir() and any(place.rglob("batches.meta")):
        hint = "; the pickled python version of CIFAR is not read: get the binary version"
    raise UsageError(
        f"{place}: no pictures in a known layout (IDX files, CIFAR-10 binary batches, train/ and test/ class folders or "
        f"train*.zip and test*.zip){hint}"
    )


def find(request: Request) -> Path:
    """Folder or zip of the dataset in the first data directory that has it.

    Raises:
        DataMissing: if there is none; the message lists all places that were searched.
    """
    names = (request.dataset, *ALIASES.get(request.dataset, ()))
    places = [directory / f"{name}{end}" for directory in request.data_dirs for name in names for end in ("", ".zip")]
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(str(place) for place in places) or "no data directory"
    raise DataMissing(
        f"dataset {request.dataset!r} of task {request.task!r} not found: looked for {looked}; "
        f"give --data-dir, or see 'ocd-bench data list'"
    )


def _inside(place: Path) -> Iterator[Path]:
    """The place itself, then ``raw`` and one level of sub-folders, as archives and torchvision nest them."""
    yield place
    if place.is_dir():
        for child in sorted(entry for entry in place.iterdir() if entry.is_dir()):
            yield child
            if (child / "raw").is_dir():
                yield child / "raw"
        yield from sorted(place.glob("*.zip"))


def _recognise(place: Path, image_size: int) -> Source | None:
    from ocd_bench_images.sources.cifar import open_cifar
    from ocd_bench_images.sources.classfolders import open_class_folders
    from ocd_bench_images.sources.idx import open_idx

    if place.is_dir():
        return open_idx(place) or open_cifar(place) or open_class_folders(place, image_size)
    return open_class_folders(place, image_size)
