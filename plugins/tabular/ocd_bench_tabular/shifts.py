"""Two datasets whose test rows were recorded at another time than their training rows: a natural distribution shift."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocd_bench import DataMissing, UsageError
from ocd_bench.reading import SheetOptions, guarded, read_npz, read_sheet
from ocd_bench_tabular.settings import TabularSettings
from ocd_bench_tabular.table import TEST, TRAIN, Table, numeric_table

GASES = ("ethanol", "ethylene", "ammonia", "acetaldehyde", "acetone", "toluene")
GAS_TRAIN, GAS_TEST = (1, 2), (3, 4, 5)
"""Batches, in the order of recording."""

BIKE_FEATURES = (
    "season", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed",
)  # fmt: skip
"""Without the row number, the date, the year (which is the split), and casual and registered (whose sum is the target)."""


@guarded
def read_gas(folder: Path, settings: TabularSettings) -> Table:
    """Gas sensor array drift (Vergara et al. 2012): six gases by 128 features; training and validation rows are those of
    batches 1 and 2, test rows those of batches 3, 4 and 5 (or of those in ``tabular.test_values``).

    Raises:
        DataMissing: if ``gas_drift.npz`` is not there.
        UsageError: if it is damaged, or a setting names another batch.
    """
    path = folder / "gas_drift.npz"
    if not path.is_file():
        raise DataMissing(f"{folder}: gas_drift.npz is not there")
    arrays = read_npz(path, ("x", "gas", "batch"))
    x, gas, batch = arrays["x"].astype(np.float64), arrays["gas"].astype(np.int64), arrays["batch"].astype(np.int64)
    if x.ndim != 2 or gas.shape != (len(x),) or batch.shape != (len(x),) or not np.isfinite(x).all():
        raise UsageError(f"{path}: x, gas and batch are not finite numbers (N, D), (N,) and (N,)")
    if not len(gas) or gas.min() < 1 or gas.max() > len(GASES):
        raise UsageError(f"{path}: gas is not numbered 1 to {len(GASES)}")
    tests = _chosen(settings, GAS_TEST, "batch")
    parts = _split(path, batch, GAS_TRAIN, tests)
    keep = parts >= 0
    note = f"gas_drift.npz, training batches 1 and 2, test batches {', '.join(map(str, tests))}"
    names = [f"sensor {1 + place // 8} feature {1 + place % 8}" for place in range(x.shape[1])]
    return numeric_table(x[keep], gas[keep] - 1, names, classes=GASES, parts=parts[keep], note=note)


@guarded
def read_bikes(folder: Path, settings: TabularSettings) -> Table:
    """Bike sharing by the hour (Fanaee-T and Gama 2013): log(1 + count) from eleven features; training and validation rows are
    the hours of 2011, test rows those of 2012; the hours of a day are one group.

    Raises:
        DataMissing: if ``hour.csv`` is not there.
        UsageError: if it is damaged, naming line and column.
    """
    path = next((folder / name for name in ("hour.csv", "hour.csv.gz") if (folder / name).is_file()), None)
    if path is None:
        raise DataMissing(f"{folder}: hour.csv (or hour.csv.gz) is not there")
    if settings.test_values:
        raise UsageError("setting tabular.test_values: the test rows of bike_sharing are the hours of 2012")
    sheet = read_sheet(path, SheetOptions("tabular"))
    for name in (*BIKE_FEATURES, "yr", "cnt", "dteday"):
        sheet.require(name, "tabular.dataset")
    values = {name: _numbers([*sheet.column(name)]) for name in (*BIKE_FEATURES, "yr", "cnt")}
    if (values["cnt"] < 0).any():
        raise UsageError(f"{path}: cnt holds a negative count")
    parts = _split(path, values["yr"].astype(np.int64), (0,), (1,))
    keep = parts >= 0
    features = np.stack([values[name] for name in BIKE_FEATURES], axis=1)
    note = f"{path.name}, training hours of 2011, test hours of 2012, target log(1 + cnt)"
    days = np.unique(sheet.texts("dteday"), return_inverse=True)[1].reshape(-1).astype(np.int64)
    target = np.log1p(values["cnt"])
    return numeric_table(features[keep], target[keep], BIKE_FEATURES, parts=parts[keep], note=note, groups=days[keep])


def _numbers(cells: Sequence) -> NDArray:
    values = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            values[row] = float(cell.text)
        except ValueError:
            values[row] = np.nan
        if not np.isfinite(values[row]):
            raise UsageError(f"{cell.place}: {cell.text[:80]!r} is not a finite number")
    return values


def _chosen(settings: TabularSettings, known: Sequence[int], what: str) -> tuple[int, ...]:
    wanted = settings.test_values or tuple(map(str, known))
    for value in wanted:
        if value not in map(str, known):
            raise UsageError(
                f"setting tabular.test_values={value!r}: expected one of the test {what}es {', '.join(map(str, known))}"
            )
    return tuple(number for number in known if str(number) in wanted)


def _split(path: Path, groups: NDArray, train: Sequence[int], test: Sequence[int]) -> NDArray:
    """TRAIN, TEST or -1 (neither) for every row."""
    parts = np.full(len(groups), -1, np.int8)
    parts[np.isin(groups, train)] = TRAIN
    parts[np.isin(groups, test)] = TEST
    for part, wanted in ((TRAIN, train), (TEST, test)):
        if not (parts == part).any():
            raise UsageError(f"{path}: no row of {' or '.join(map(str, wanted))}")
    return parts
