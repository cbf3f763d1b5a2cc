"""From a table to the inputs of a network: the split of the rows, and features scaled by statistics of the training rows."""

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
"""0/1 columns are divided by this, the standard deviation at probability 1/2. Divided by its own, a rare category would be an
outlier."""


def split_rows(table: Table, dataset: str, split_seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """Row numbers of the training, validation and test split, each in an order drawn once.

    If the data have no official parts, the test split is a fifth of the rows, and the validation split a tenth of the others,
    stratified by class. If only the official validation part is missing, it is a tenth of the training part. The draw depends
    on ``dataset`` and ``split_seed`` only, so every seed of a run has the same test rows. Test rows are always shuffled,
    because methods that use batch statistics must not get them sorted by class.

    Raises:
        UsageError: if there are too few rows, or no training row has one of the classes.
    """
    if len(table) < FEWEST_ROWS:
        raise UsageError(f"{table.note}: too few rows to split; at least {FEWEST_ROWS} are needed")
    # NumPy guarantees that the streams of RandomState, the legacy generator, never change.
    order = np.random.RandomState(derive("tabular", dataset, "split", split_seed) % 2**32).permutation(len(table))
    parts = np.full(len(table), TRAIN, np.int8) if table.parts is None else table.parts.copy()
    if table.parts is None:
        _move(parts, table, order, TEST, TEST_SHARE)
    if not (parts == VAL).any():
        _move(parts, table, order, VAL, VAL_SHARE)
    train, val, test = (order[parts[order] == part] for part in (TRAIN, VAL, TEST))
    for code, name in enumerate(table.classes):
        if not (table.target[train] == code).any():
            raise UsageError(f"{table.note}: a validation or test row has the class {name!r}, but no training row has it")
    return train, val, test


def _move(parts: NDArray, table: Table, order: NDArray, part: int, share: float) -> None:
    """Move ``share`` of the training rows, at least one, to ``part``, stratified by class."""
    rows = order[parts[order] == TRAIN]
    depth = np.empty(len(rows))
    groups = table.target[rows] if table.classes else np.zeros(len(rows))
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        depth[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    count = max(1, round(share * len(rows)))
    parts[rows[np.argsort(depth, kind="stable")[:count]]] = part


def encode(table: Table, train: NDArray, features: str, max_categories: int) -> tuple[NDArray, tuple[str, ...]]:
    """All rows as float32 ``(N, D)``, and the names of the D columns.

    All statistics are those of the rows ``train``.

    * Numbers: empty cells get the median. If training rows have empty cells, a further 0/1 column marks them. Numbers are
      standardised; with ``features="quantile"`` they are first mapped to the quantiles of a normal distribution.
    * Categories: each of the ``max_categories`` most frequent values has a 0/1 column. "Empty" is one of the values. A value
      that is not in the training rows has no column.
    * 0/1 columns are centred and divided by 0.5. So the mean of every column is 0.
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
    """Mapping to normal quantiles, with as many knots as in Gorishniy et al. 2021 (arXiv 2106.11959, section 4.2 and code)."""
    from sklearn.preprocessing import QuantileTransformer

    knots = min(len(train), max(min(len(train) // 30, 1000), 10))
    transform = QuantileTransformer(n_quantiles=knots, output_distribution="normal", subsample=10**9, random_state=0)
    return transform.fit(values[train, None]).transform(values[:, None])[:, 0]


def _one_hot(column: Column, train: NDArray, most: int) -> tuple[NDArray, list[str]]:
    counts = Counter(column.values[train])
    # Sort by frequency, then by name, so that the order of rows does not matter.
    kept: Sequence[str | None] = sorted(counts, key=lambda value: (-counts[value], value or ""))[:most]
    block = np.stack([_flag(np.array([each == value for each in column.values]), train) for value in kept], axis=1)
    return block, [f"{column.name} is empty" if value is None else f"{column.name}={value}" for value in kept]


def _flag(truth: NDArray, train: NDArray) -> NDArray:
    return (truth - truth[train].mean()) / COIN
