"""scikit-learn's digits: 1,797 real 8 x 8 pictures that come with the package (the test part of the UCI optical digits)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ocd_bench import Unavailable
from ocd_bench_images.sources.pool import Source, array_pool


def open_digits() -> Source:
    """Every fifth sample is a test sample (359). The samples are stored writer by writer, so both parts have every writer."""
    rows = np.loadtxt(_file(), delimiter=",")  # (1797, 65): 64 pixels of 0 to 16, and the label
    pictures = (rows[:, :-1].reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    labels = rows[:, -1].astype(np.int64)
    test = np.arange(len(labels)) % 5 == 4
    return Source(
        array_pool(pictures[~test], labels[~test]),
        array_pool(pictures[test], labels[test]),
        [str(digit) for digit in range(10)],
    )


def _file() -> Path:
    """The file inside scikit-learn. Importing the package to read it would cost a second of every run, and 80 MB of memory that
    every process of a method inherits.

    Raises:
        Unavailable: if it is not there.
    """
    package = find_spec("sklearn")
    path = Path(package.origin if package and package.origin else "").parent / "datasets" / "data" / "digits.csv.gz"
    if package is None or not path.is_file():
        raise Unavailable("dataset 'digits' is a file of scikit-learn, which is not there: pip install scikit-learn")
    return path
