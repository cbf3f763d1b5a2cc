"""scikit-learn's digits: 1,797 real 8 x 8 pictures that come with the package (the test part of the UCI optical digits)."""

from __future__ import annotations

import numpy as np

from ocd_bench_images.sources.pool import Source, array_pool


def open_digits() -> Source:
    """Every fifth sample is a test sample (359). The samples are stored writer by writer, so both parts have every writer."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = (data.images / 16.0).astype(np.float32)[:, None]
    labels = data.target.astype(np.int64)
    test = np.arange(len(labels)) % 5 == 4
    return Source(
        array_pool(pictures[~test], labels[~test]),
        array_pool(pictures[test], labels[test]),
        [str(digit) for digit in range(10)],
    )
