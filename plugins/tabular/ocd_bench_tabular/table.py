"""A table before scaling: columns of numbers or categories, a target, and official parts if the data have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TRAIN, VAL, TEST = 0, 1, 2


@dataclass(frozen=True)
class Column:
    """One feature of N rows.

    ``values``: float64 ``(N,)`` with NaN where a cell is empty (a number), or object ``(N,)`` of ``str | None`` (a category).
    """

    name: str
    values: NDArray

    @property
    def numeric(self) -> bool:
        return self.values.dtype != object


@dataclass(frozen=True)
class Table:
    """N rows before any scaling.

    Args:
        columns: the features.
        target: float64 ``(N,)`` (regression), or int64 ``(N,)`` codes into ``classes``.
        classes: class names; empty for regression.
        parts: int8 ``(N,)`` of TRAIN, VAL, TEST where the data are split officially (VAL may be missing); None where not.
        note: one line on where the rows come from and what was inferred.
        groups: integers ``(N,)``: rows of one group (a query, a day, a tile of a map) are dependent; None: each row is
            independent of the others.
    """

    columns: Sequence[Column]
    target: NDArray
    classes: Sequence[str] = ()
    parts: NDArray | None = None
    note: str = ""
    groups: NDArray | None = None
    names: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(column.name for column in self.columns))

    def __len__(self) -> int:
        return len(self.target)


def numeric_table(features: NDArray, target: NDArray, names: Sequence[str], **rest: object) -> Table:
    """A table of the columns of ``features`` ``(N, D)``."""
    features = np.asarray(features, dtype=np.float64)
    columns = [Column(str(name), features[:, place]) for place, name in enumerate(names)]
    return Table(columns, target, **rest)  # type: ignore[arg-type]
