"""Labelled pictures that are decoded on demand, so that only the pictures of a subset are decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from ocd_bench import UsageError

MEMORY_LIMIT = 16 * 2**30
"""Maximum size in bytes of one split's float32 pictures."""


@dataclass(frozen=True)
class Pool:
    """One part of a dataset in a fixed order.

    Args:
        labels: ``(N,)`` int64 class numbers.
        read: from indices ``(n,)`` to pictures ``(n, C, H, W)``, uint8 or float32 in [0, 1].
        by_class: whether pictures are ordered by class, so that a batch has only one class.
        names: ``CLASS/NAME`` of each picture, without its suffix, if pictures are separate files.
    """

    labels: np.ndarray
    read: Callable[[np.ndarray], np.ndarray]
    by_class: bool = False
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Pool:
        """The pool of the samples with these numbers."""
        return Pool(self.labels[indices], lambda wanted: self.read(indices[wanted]), self.by_class)


@dataclass(frozen=True)
class Source:
    """A dataset before it is split: ``val`` only where the dataset has a validation part beside a test part; ``test`` None
    where it has neither, and a part of training is to be set aside.

    ``all_colour`` false: pictures decoded as three channels become one if they are grey throughout.
    ``home_test``: the test part of the dataset that ``train`` is of, where ``test`` is of another one.
    """

    train: Pool
    test: Pool | None
    classes: Sequence[str]
    val: Pool | None = None
    note: str = ""
    all_colour: bool = True
    home_test: Pool | None = None


def check_memory(shape: tuple[int, ...], where: str) -> None:
    """Refuse ``(N, C, H, W)`` pictures that would not fit into memory, before they are decoded.

    Raises:
        UsageError: beyond :data:`MEMORY_LIMIT`.
    """
    size = 4 * math.prod(shape)
    if size > MEMORY_LIMIT:
        raise UsageError(
            f"{where}: {shape[0]:,} pictures of {' x '.join(map(str, shape[1:]))} take {math.ceil(size / 2**30)} GiB; take "
            f"fewer with --set images.train_samples=N and images.test_samples=N, or smaller ones with images.image_size=N"
        )


def array_pool(pictures: np.ndarray, labels: np.ndarray) -> Pool:
    """A pool over pictures ``(N, C, H, W)`` already in memory."""
    return Pool(labels.astype(np.int64), lambda indices: pictures[indices])


def to_tensor(pictures: np.ndarray, image_size: int) -> torch.Tensor:
    """Float32 ``(n, C, H, W)`` in [0, 1], resized (bilinear, antialiased) where ``image_size`` asks for another size."""
    tensor = torch.from_numpy(np.ascontiguousarray(pictures))
    tensor = tensor.float().div_(255) if tensor.dtype == torch.uint8 else tensor.float()
    if image_size and tensor.shape[-2:] != (image_size, image_size):
        tensor = interpolate(tensor, size=(image_size, image_size), mode="bilinear", antialias=True).clamp_(0, 1)
    return tensor


def number_classes(train: np.ndarray, others: Sequence[np.ndarray], where: str) -> tuple[list[str], list[np.ndarray]]:
    """Class names, sorted, and every label array as class numbers (training first).

    Raises:
        UsageError: if training has fewer than two classes, or another part a class that training has not.
    """
    classes = np.unique(train)
    if len(classes) < 2:
        raise UsageError(f"{where}: all training pictures are of one class ({classes[0]}); classification needs two or more")
    for labels in others:
        strange = np.setdiff1d(labels, classes)
        if len(strange):
            raise UsageError(f"{where}: class {strange[0]!s} of the test pictures is not among the training classes")
    return [str(name) for name in classes], [np.searchsorted(classes, labels) for labels in (train, *others)]
