"""From a table to numbers a network takes: who is in which split, and features scaled by what the training rows say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ocd_bench import UsageError
from ocd_bench.seeds import derive
from ocd_bench_tabular.table import TEST, TRAIN, VAL, Column, Table

TEST_SHARE, VAL_SHARE = 0.2, 0.1
FEWEST_ROWS = 10
COIN = 0.5
"""0/1 columns are divided by a fair coin's standard deviation: by its own, a rare category would become an outlier."""


def split_rows(table: Table, dataset: str, split_seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """Row numbers of the training, validation and test split, each in an order drawn once.

    Where the data have no official parts, a fifth of the rows is the test split and a tenth of the others the validation
    split, class by class; where they have no official validation part, it is a tenth of the training part. The draw depends on
    ``dataset`` and ``split_seed`` alone, so every seed of a run is tested on the same rows. Test rows are shuffled in any case:
    methods that use batch statistics must not meet them sorted by class.

    Raises:
        UsageError: if there are too few rows, or a class that no training row has.
    """
    if len(table) < FEWEST_ROWS:
        raise UsageError(f"{table.note}: too few rows to split; at least {FEWEST_ROWS} are needed")
    # RandomState, the legacy generator, is the one whose streams NumPy promises never to change.
    order = np.random.RandomState(derive("tabular", dataset, "split", split_seed) % 2**32).permutation(len(table))
    parts = np.full(len(table), TRAIN, np.int8) if table.parts is None else table.parts.copy()
    if table.parts is None:
        _move(parts, table, order, TEST, TEST_SHARE)
    if not (parts == VAL).any():
        _move(parts, table, order, VAL, VAL_SHARE)
    train, val, test = (order[parts[order] == part] for part in (TRAIN, VAL, TEST))
    for code, name in enumerate(table.classes):
        if not (table.target[train] == code).any():
            raise UsageError(f"{table.note}: no training row has the class {name!r}, a validation or test row does")
    return train, val, test


def _move(parts: NDArray, table: Table, order: NDArray, part: int, share: float) -> None:
    """Move ``share`` of the training rows, at least one, to ``part``, evenly over the classes."""
    rows = order[parts[order] == TRAIN]
    depth = np.empty(len(rows))
    groups = table.target[rows] if table.classes else np.zeros(len(rows))
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        depth[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    count = max(1, round(share * len(rows)))
    parts[rows[np.argsort(depth, kind="stable")[:count]]] = part


def encode(table: Table, train: NDArray, features: str, max_categories: int) -> tuple[NDArray, tuple[str, ...]]:
    """All rows as float32 ``(N, D)``, and the D columns' names.

    Every statistic is that of the rows ``train``. A number: empty cells get the median, and a 0/1 column that says so if
    training rows have any; then standardised (``features="quantile"``: mapped to the quantiles of a normal distribution
    first). A category: a 0/1 column for each of the ``max_categories`` most frequent values, "empty" being one of them; a
    value never seen in training is none of them. 0/1 columns are centred and divided by 0.5. So 0 is every column's mean.
    """
    blocks: list[NDArray] = []
    names: list[str] = []
    for column in table.columns:
        block, labels = _numbers(column, train, features) if column.numeric else _one_hot(column, train, max_categories)
        blocks.append(block)
        names.extend(labels)
    return np.concatenate(blocks, axis=1).astype(np.float32), tuple(names)


def _numbers(column: Column, train: NDArray, features: str) -> tuple[NDArray, list[str]]:
    empty = np.isnan(column.values)
    known = column.values[train][~empty[train]]
    values = np.where(empty, np.median(known) if len(known) else 0.0, column.values)
    if features == "quantile":
        values = _quantiles(values, train)
    scale = values[train].std()
    block = (values - values[train].mean()) / (scale if scale > 1e-12 * max(1.0, np.abs(values[train]).max()) else 1.0)
    if not empty[train].any():
        return block[:, None], [column.name]
    return np.stack([block, _flag(empty, train)], axis=1), [column.name, f"{column.name} is empty"]


def _quantiles(values: NDArray, train: NDArray) -> NDArray:
    """Normal quantiles, with as many knots as Gorishniy et al. 2021 (arXiv 2106.11959, section 4.2 and code) use."""
    from sklearn.preprocessing import QuantileTransformer

    knots = min(len(train), max(min(len(train) // 30, 1000), 10))
    transform = QuantileTransformer(n_quantiles=knots, output_distribution="normal", subsample=10**9, random_state=0)
    return transform.fit(values[train, None]).transform(values[:, None])[:, 0]


def _one_hot(column: Column, train: NDArray, most: int) -> tuple[NDArray, list[str]]:
    counts = Counter(column.values[train])
    # By frequency, ties by name, so that the order of rows does not matter.
    kept: Sequence[str | None] = sorted(counts, key=lambda value: (-counts[value], value or ""))[:most]
    block = np.stack([_flag(np.array([each == value for each in column.values]), train) for value in kept], axis=1)
    return block, [f"{column.name} is empty" if value is None else f"{column.name}={value}" for value in kept]


def _flag(truth: NDArray, train: NDArray) -> NDArray:
    return (truth - truth[train].mean()) / COIN
