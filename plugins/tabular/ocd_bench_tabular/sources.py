"""Sources of rows: scikit-learn's embedded datasets, named datasets, or a user's table in any known format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ocd_bench import DataMissing, Request, UsageError
from ocd_bench.reading import find_dataset, guarded, list_folder, split_name
from ocd_bench.reading.sheet import ENDINGS as SHEETS
from ocd_bench_tabular.datasets import DATASETS
from ocd_bench_tabular.letor import ENDINGS as TEXTS
from ocd_bench_tabular.settings import TabularSettings
from ocd_bench_tabular.table import Table, numeric_table

EMBEDDED = ("diabetes", "breast-cancer", "wine")
RANKING = ("letor_mq2008", "mslr_web10k")
FORMS = (*SHEETS, *TEXTS, ".npz", ".zip")
"""Suffixes of files that may be a dataset. All except the binary ones may be compressed."""


def read_table(request: Request, settings: TabularSettings) -> Table:
    """The rows of ``request.dataset``.

    Raises:
        DataMissing: if there is no such folder or file.
        UsageError: if a file is damaged, naming file and line, or a setting does not fit the data.
    """
    name = request.dataset
    own = name in EMBEDDED or name in NAMED
    if settings.csv and own:
        # Else the table would show figures of this file under the name of a dataset it is not.
        raise UsageError(f"setting tabular.csv={settings.csv}: give the file a name of its own with --dataset, not {name!r}")
    if settings.csv:
        path = Path(settings.csv).expanduser()
        if not path.exists() and not path.is_symlink():
            raise DataMissing(f"setting tabular.csv={settings.csv}: no such file")
        return read_any(path, name, settings)
    for key in ("target", "groups"):
        given = getattr(settings, key)
        if given and own:
            raise UsageError(f"setting tabular.{key}={given!r}: dataset {name!r} has its own {key}; it is for CSV data")
    if name in EMBEDDED:
        return embedded(name)
    place = find_dataset(request, FORMS, known=DATASETS)
    if name in NAMED:
        return NAMED[name](place, settings)
    return read_any(place, name, settings)


@guarded
def read_any(place: Path, name: str, settings: TabularSettings) -> Table:
    """The table in a folder or file, whatever its form.

    Raises:
        DataMissing: if the folder holds none.
        UsageError: if it is not clear which file is meant, or one is damaged.
    """
    from ocd_bench_tabular.arrays import read_arrays
    from ocd_bench_tabular.csvfile import read_csv_files, read_csv_folder
    from ocd_bench_tabular.letor import find_letor, looks_like_svmlight, read_letor_file

    if place.is_dir():
        found = find_letor(place, settings.fold)
        if found is not None:
            return found
        listing = list_folder(place, FORMS)
        other = [each for each in listing.files if split_name(each).ending not in SHEETS]
        if len(other) == len(listing.files) == 1:
            return read_any(place / other[0], name, settings)
        inner = [each for each in sorted(place.iterdir()) if each.is_dir() and list_folder(each, FORMS).files]
        if not listing.files and len(inner) == 1:
            return read_any(inner[0], name, settings)
        return read_csv_folder(place, settings)
    ending = split_name(place.name).ending
    if ending == ".npz":
        return read_arrays(place, settings)
    if ending not in SHEETS and looks_like_svmlight(place):
        return read_letor_file(place, name, settings.split_seed)
    return read_csv_files({None: place}, settings)


def embedded(name: str) -> Table:
    """One of the sets that come with scikit-learn: ``diabetes`` (442 x 10, regression), ``breast-cancer`` (569 x 30, two
    classes), ``wine`` (178 x 13, three classes)."""
    from sklearn import datasets

    load = {"diabetes": datasets.load_diabetes, "breast-cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name]
    data = load()
    note = f"scikit-learn's {name}, {len(data.target)} rows"
    if name == "diabetes":
        note += ", target disease progression after a year"
        return numeric_table(data.data, data.target.astype(np.float64), data.feature_names, note=note)
    classes = tuple(str(each) for each in data.target_names)
    return numeric_table(data.data, data.target.astype(np.int64), data.feature_names, classes=classes, note=note)


def _folder(place: Path) -> Path:
    if not place.is_dir():
        raise UsageError(f"{place}: expected the folder of this dataset, found a file; for one file set tabular.csv")
    return place


def _california(place: Path, settings: TabularSettings) -> Table:
    from ocd_bench_tabular.california import read_california

    return read_california(_folder(place))


def _ranking(place: Path, settings: TabularSettings) -> Table:
    from ocd_bench_tabular.letor import read_letor

    return read_letor(_folder(place), settings.fold)


def _gas(place: Path, settings: TabularSettings) -> Table:
    from ocd_bench_tabular.shifts import read_gas

    return read_gas(_folder(place), settings)


def _bikes(place: Path, settings: TabularSettings) -> Table:
    from ocd_bench_tabular.shifts import read_bikes

    return read_bikes(_folder(place), settings)


NAMED: dict[str, Callable[[Path, TabularSettings], Table]] = {
    "california_housing": _california,
    **dict.fromkeys(RANKING, _ranking),
    "gas_sensor_drift": _gas,
    "bike_sharing": _bikes,
}
"""Datasets of known files, by name; their reader takes the place that was found."""
