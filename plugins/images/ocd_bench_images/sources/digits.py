"""scikit-learn's digits: 1,797 real 8 x 8 pictures that come with the package (the test part of the UCI optical digits)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ocd_bench import Unavailable
from ocd_bench_images.sources.pool import Source, array_pool


def open_digits() -> Source:
    """Every fifth sample is a test sample (359). The samples are stored writer by writer, so both parts have every writer."""
    rows = _rows()
    pictures = (rows[:, :-1].reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    labels = rows[:, -1].astype(np.int64)
    test = np.arange(len(labels)) % 5 == 4
    return Source(
        array_pool(pictures[~test], labels[~test]),
        array_pool(pictures[test], labels[test]),
        [str(digit) for digit in range(10)],
    )


def _rows() -> np.ndarray:
    """64 pixels of 0 to 16 and the label, ``(1797, 65)``, from the file inside scikit-learn. Importing the package to read it
    would cost a second of every run, and 80 MB of memory that every process of a method inherits.

    Raises:
        Unavailable: without scikit-learn.
    """
    package = find_spec("sklearn")
    if package is None or not package.origin:
        raise Unavailable("dataset 'digits' is a file of scikit-learn, which is not there: pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if path.is_file():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits  # a version that keeps it elsewhere

    data = load_digits()
    return np.column_stack([data.data, data.target])
