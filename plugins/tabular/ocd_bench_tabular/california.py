"""California housing (R. K. Pace and R. Barry, 1997): StatLib's file, or arrays made from it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocd_bench import DataMissing, UsageError
from ocd_bench.reading import guarded, open_unpacked, quoted, read_bounded, read_lines, read_npz
from ocd_bench_tabular.table import Table, numeric_table

RAW = (
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "total_bedrooms",
    "population",
    "households",
    "median_income",
    "median_house_value",
)
FEATURES = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
FILES = (
    "california_housing.npz",
    "cal_housing.data",
    "cal_housing.data.gz",
    "CaliforniaHousing/cal_housing.data",
    "cal_housing.tgz",
)
UNIT = "median house value in 100,000 dollars"
TILE = 0.25
"""Size of a tile in degrees, about 25 km. Blocks of one tile are neighbours, and a model's errors on neighbours are correlated.
Beyond this distance, differences between two models are almost uncorrelated."""


@guarded
def read_california(folder: Path) -> Table:
    """The first of :data:`FILES` in ``folder``: eight features as scikit-learn derives them, median value in 100,000 dollars.

    Raises:
        DataMissing: if none is there.
        UsageError: if the file is damaged, naming the line.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise DataMissing(f"{folder}: none of {', '.join(FILES)} is there")
    features, target = _read_npz(path) if path.suffix == ".npz" else _derive(_read_statlib(path))
    return numeric_table(features, target, FEATURES, note=f"{len(target)} rows, target {UNIT}", groups=tiles(features))


def tiles(features: NDArray) -> NDArray:
    """A number ``(N,)`` for the tile of :data:`TILE` degrees of latitude and longitude that each row lies in."""
    place = np.floor(features[:, [FEATURES.index("Latitude"), FEATURES.index("Longitude")]] / TILE).astype(np.int64)
    return np.unique(place, axis=0, return_inverse=True)[1].reshape(-1)


@guarded
def _read_npz(path: Path) -> tuple[NDArray, NDArray]:
    arrays = read_npz(path, ("X", "y"))
    features, target = np.asarray(arrays["X"], np.float64), np.asarray(arrays["y"], np.float64)
    if features.ndim != 2 or features.shape[1] != len(FEATURES) or target.shape != (len(features),):
        raise UsageError(f"{path}: X {features.shape} and y {target.shape} are not (N, {len(FEATURES)}) and (N,)")
    if not (np.isfinite(features).all() and np.isfinite(target).all()):
        raise UsageError(f"{path}: X or y holds values that are not finite")
    return features, target


def _lines(path: Path) -> Iterator[str]:
    if path.suffix != ".tgz":
        return read_lines(path)
    with open_unpacked(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if Path(member.name).name == "cal_housing.data" and member.isfile() else None
            if content is not None:
                return iter(read_bounded(content, path).decode("ascii").splitlines(keepends=True))  # type: ignore[arg-type]
    raise UsageError(f"{path}: no cal_housing.data inside")


@guarded
def _read_statlib(path: Path) -> NDArray:
    """Rows of the nine numbers of :data:`RAW`; StatLib's own file has no header line, later copies do."""
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if cells == [""] or (number == 1 and tuple(cells) == RAW):
            continue
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            row = []
        if len(row) != len(RAW) or not np.isfinite(row).all() or row[6] <= 0:
            raise UsageError(f"{path}, line {number}: expected nine numbers, {', '.join(RAW)}; found {quoted(line.strip())}")
        rows.append(row)
    if not rows:
        raise UsageError(f"{path}: holds no rows")
    return np.array(rows)


def _derive(raw: NDArray) -> tuple[NDArray, NDArray]:
    longitude, latitude, age, rooms, bedrooms, population, households, income, value = raw.T
    per_household = [rooms / households, bedrooms / households, population, population / households]
    return np.stack([income, age, *per_household, latitude, longitude], axis=1), value / 100_000.0
