"""A table as NumPy arrays: an .npz of features and a target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocd_bench import UsageError
from ocd_bench.reading import guarded, listed, read_npz
from ocd_bench_tabular.settings import TabularSettings
from ocd_bench_tabular.table import Table, numeric_table

FEATURES = ("X", "x", "data", "features", "inputs")
TARGETS = ("y", "Y", "target", "targets", "label", "labels")


@guarded
def read_arrays(path: Path, settings: TabularSettings) -> Table:
    """Arrays of features ``(N, D)`` (:data:`FEATURES`) and a target ``(N,)`` (``tabular.target``, or :data:`TARGETS`).

    With ``tabular.kind`` auto, a target of floats is regressed on, one of integers, texts or truth values holds classes.

    Raises:
        UsageError: if they are not there, of other shapes, or not finite.
    """
    arrays = read_npz(path)
    x = next((name for name in FEATURES if name in arrays), None)
    y = settings.target or next((name for name in TARGETS if name in arrays), None)
    if x is None or y is None or y not in arrays:
        wanted = repr(settings.target) if settings.target else f"one of {', '.join(TARGETS)}"
        raise UsageError(f"{path}: expected arrays {' or '.join(FEATURES)} and {wanted}; it has {listed(sorted(arrays))}")
    features, target = arrays[x], arrays[y]
    if features.ndim != 2 or target.shape != (len(features),) or features.shape[1] == 0:
        raise UsageError(f"{path}: {x} {features.shape} and {y} {target.shape} are not (N, D) and (N,)")
    if features.dtype.kind not in "biuf":
        raise UsageError(f"{path}: {x} holds {features.dtype}, not numbers")
    features = features.astype(np.float64)
    if np.isinf(features).any():
        raise UsageError(f"{path}: {x} holds infinite values")
    values, classes, what = _target(path, y, target, settings.kind)
    note = f"{path.name}, {len(target)} rows, target {y} ({what}); {features.shape[1]} numbers"
    return numeric_table(
        features, values, [str(place) for place in range(1, features.shape[1] + 1)], classes=classes, note=note
    )


def _target(path: Path, name: str, target: NDArray, kind: str) -> tuple[NDArray, tuple[str, ...], str]:
    inferred = ", inferred; tabular.kind sets it" if kind == "auto" else ""
    if kind == "regression" or (kind == "auto" and target.dtype.kind == "f"):
        if target.dtype.kind not in "biuf":
            raise UsageError(f"{path}: {name} holds {target.dtype}, and tabular.kind is regression")
        values = target.astype(np.float64)
        if not np.isfinite(values).all():
            raise UsageError(f"{path}: {name} holds values that are not finite")
        return values, (), f"regression{inferred}"
    if target.dtype.kind not in "biufUS":
        raise UsageError(f"{path}: {name} holds {target.dtype}, which names no classes")
    distinct, codes = np.unique(target, return_inverse=True)
    if not 2 <= len(distinct) <= max(2, len(target) // 2):
        raise UsageError(f"{path}: {name} has {len(distinct)} different values in {len(target)} rows, which are no classes")
    names = tuple(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in distinct.tolist())
    return codes.astype(np.int64), names, f"{len(names)} classes{inferred}"
