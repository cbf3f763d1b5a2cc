"""USPS digits in MNIST's frame: 16 x 16 pictures enlarged to 20 x 20 and set into the middle of 28 x 28, as MNIST's own digits
of at most 20 x 20 were. ``mnist-usps`` trains on MNIST and tests on the USPS test part: a shift that nobody simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate, pad

from ocd_bench import UsageError
from ocd_bench_images.sources.arrays import open_npz
from ocd_bench_images.sources.pool import Pool, Source

STORED, DIGIT, FRAME = 16, 20, 28
"""Sides in pixels: of a stored picture, of the digit, and of the picture it is set into."""


def open_usps(place: Path) -> Source:
    """The USPS digits of ``usps.npz`` (``x_train``, ``y_train``, ``x_test``, ``y_test``), 7,291 and 2,007 in the official
    split.

    Raises:
        UsageError: if ``place`` has no such file, or its pictures are not of 16 x 16 grey pixels.
    """
    source = open_npz(place)
    if source is None or source.test is None:
        raise UsageError(f"{place}: no usps.npz with x_train, y_train, x_test and y_test")
    return Source(_framed(source.train, place), _framed(source.test, place), source.classes)


def with_test_of(train: Source, test: Source) -> Source:
    """Training (and validation) of one source, test of another with the same classes and pictures of the same size.

    Raises:
        UsageError: if the classes differ.
    """
    if list(train.classes) != list(test.classes) or test.test is None:
        raise UsageError(f"the classes differ: {', '.join(train.classes)} in training, {', '.join(test.classes)} in test")
    return Source(train.train, test.test, train.classes, train.val, train.note)


def _framed(pool: Pool, place: Path) -> Pool:
    def read(indices: np.ndarray) -> np.ndarray:
        pictures = pool.read(indices)
        if pictures.shape[1:] != (1, STORED, STORED):
            raise UsageError(
                f"{place}: pictures of {' x '.join(map(str, pictures.shape[1:]))}: USPS has {STORED} x {STORED} grey pixels"
            )
        values = torch.from_numpy(pictures).float() / (255 if pictures.dtype == np.uint8 else 1)
        digits = interpolate(values, size=(DIGIT, DIGIT), mode="bilinear", align_corners=False)
        margin = (FRAME - DIGIT) // 2
        return pad(digits, (margin,) * 4).numpy()

    return Pool(pool.labels, read, pool.by_class)
