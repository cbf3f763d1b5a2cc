"""Sources of pictures: one module per file format. The format is recognised by the content of a folder, not by its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ocd_bench import Request, UsageError
from ocd_bench.reading import find_dataset, is_stray, listed
from ocd_bench_images.datasets import DATASETS
from ocd_bench_images.sources.pool import Source

ALIASES = {
    "mnist": ("MNIST",),
    "fashion-mnist": ("FashionMNIST",),
    "cifar10": ("cifar-10-batches-bin",),
    "tiny-imagenet": ("tiny-imagenet-200",),
}
"""Folder names of the official archives and of torchvision, tried after the dataset's own name."""


MIXED = {"mnist-usps": ("mnist", "usps")}
"""Datasets made of two: training and validation of the first, test of the second."""


def open_source(request: Request, image_size: int, background: str = "") -> Source:
    """The requested dataset, its pictures not yet decoded.

    Args:
        image_size: pixels square to resize to, 0 to keep the size.
        background: what transparent pictures are set on; empty refuses them.

    Raises:
        DataMissing: if no data directory has it.
        UsageError: if the content of the folder is damaged or has no known format.
    """
    if request.dataset == "digits":
        from ocd_bench_images.sources.digits import open_digits

        return open_digits()
    if request.dataset == "cifar10.1":
        from ocd_bench_images.sources.recorded import open_cifar10_1

        return open_cifar10_1(request, image_size)
    if request.dataset in MIXED:
        from ocd_bench_images.sources.usps import with_test_of

        first, second = (open_source(replace(request, dataset=name), image_size, background) for name in MIXED[request.dataset])
        return with_test_of(first, second)
    place = find(request)
    if request.dataset == "usps":
        from ocd_bench_images.sources.usps import open_usps

        return open_usps(place)
    for candidates in _inside(place):
        found = {}
        for candidate in candidates:
            source = _recognise(candidate, image_size, background)
            if source is not None:
                found[candidate] = source
        if len(found) > 1:
            names = listed([str(candidate.relative_to(place)) for candidate in found])
            raise UsageError(f"{place}: several datasets ({names}); give --data-dir {place} and one of them as --dataset")
        if found:
            return next(iter(found.values()))
    hint = ""
    if place.is_dir() and any(place.rglob("batches.meta")):
        hint = "; the pickled python version of CIFAR is not read: get the binary version"
    raise UsageError(
        f"{place}: no pictures in a known layout (IDX files, CIFAR-10 binary batches, an .npz file of pictures and labels, "
        f"train/ and test/ with class folders, class folders alone, or train*.zip and test*.zip){hint}"
    )


def find(request: Request) -> Path:
    """Folder, zip or npz file of the dataset in the first data directory that has it.

    Raises:
        DataMissing: if there is none; the message lists all places that were searched.
    """
    return find_dataset(request, (".zip", ".npz"), ALIASES.get(request.dataset, ()), DATASETS)


def _inside(place: Path) -> Iterator[list[Path]]:
    """Places to look at, the likeliest first: the place itself, then ``raw`` and one level of sub-folders, as archives and
    torchvision nest them, then zips. Of several that are alike none is meant more than another."""
    yield [place]
    if place.is_dir():
        children = sorted(entry for entry in place.iterdir() if not is_stray(entry.name))
        folders = [entry for entry in children if entry.is_dir()]
        yield folders
        yield [folder / "raw" for folder in folders if (folder / "raw").is_dir()]
        yield [entry for entry in children if entry.suffix.lower() == ".zip"]


def _recognise(place: Path, image_size: int, background: str) -> Source | None:
    from ocd_bench_images.sources.arrays import open_npz
    from ocd_bench_images.sources.cifar import open_cifar
    from ocd_bench_images.sources.classfolders import open_class_folders
    from ocd_bench_images.sources.idx import open_idx

    if place.is_dir():
        found = open_idx(place) or open_cifar(place) or open_class_folders(place, image_size, background)
        return found or open_npz(place)
    return open_npz(place) or open_class_folders(place, image_size, background)
