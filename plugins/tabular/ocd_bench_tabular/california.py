"""California housing (R. K. Pace and R. Barry, 1997): StatLib's file, or arrays made from it."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocd_bench import DataMissing, UsageError
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
TILE = 0.25
"""Size of a tile in degrees, about 25 km. Blocks of one tile are neighbours, and a model's errors on neighbours are correlated.
Beyond this distance, differences between two models are almost uncorrelated."""
BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, UnicodeDecodeError)


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
    return numeric_table(features, target, FEATURES, note=f"{len(target)} rows", groups=tiles(features))


def tiles(features: NDArray) -> NDArray:
    """A number ``(N,)`` for the tile of :data:`TILE` degrees of latitude and longitude that each row lies in."""
    place = np.floor(features[:, [FEATURES.index("Latitude"), FEATURES.index("Longitude")]] / TILE).astype(np.int64)
    return np.unique(place, axis=0, return_inverse=True)[1].reshape(-1)


def _read_npz(path: Path) -> tuple[NDArray, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            features, target = np.asarray(archive["X"], np.float64), np.asarray(archive["y"], np.float64)
    except (*BROKEN, ValueError, KeyError) as error:
        raise UsageError(f"{path}: not an archive of arrays X and y: {error}") from error
    if features.ndim != 2 or features.shape[1] != len(FEATURES) or target.shape != (len(features),):
        raise UsageError(f"{path}: X {features.shape} and y {target.shape} are not (N, {len(FEATURES)}) and (N,)")
    if not (np.isfinite(features).all() and np.isfinite(target).all()):
        raise UsageError(f"{path}: X or y holds values that are not finite")
    return features, target


def _read_text(path: Path) -> str:
    if path.suffix == ".tgz":
        with tarfile.open(path) as archive:
            member = next((each for each in archive if Path(each.name).name == "cal_housing.data"), None)
            content = archive.extractfile(member) if member is not None else None
            if content is None:
                raise UsageError(f"{path}: no cal_housing.data inside")
            return content.read().decode("ascii")
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("ascii")


def _read_statlib(path: Path) -> NDArray:
    """Rows of the nine numbers of :data:`RAW`; StatLib's own file has no header line, later copies do."""
    try:
        text = _read_text(path)
    except BROKEN as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(io.StringIO(text), start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if cells == [""] or (number == 1 and tuple(cells) == RAW):
            continue
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            row = []
        if len(row) != len(RAW) or not np.isfinite(row).all() or row[6] <= 0:
            raise UsageError(f"{path}, line {number}: expected nine numbers, {', '.join(RAW)}; found {line.strip()[:80]!r}")
        rows.append(row)
    if not rows:
        raise UsageError(f"{path}: holds no rows")
    return np.array(rows)


def _derive(raw: NDArray) -> tuple[NDArray, NDArray]:
    longitude, latitude, age, rooms, bedrooms, population, households, income, value = raw.T
    per_household = [rooms / households, bedrooms / households, population, population / households]
    return np.stack([income, age, *per_household, latitude, longitude], axis=1), value / 100_000.0
