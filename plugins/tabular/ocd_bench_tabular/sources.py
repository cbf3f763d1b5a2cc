"""Where a dataset's rows come from: scikit-learn's embedded sets, California housing, LETOR, or anybody's CSV."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ocd_bench import DataMissing, Request, UsageError
from ocd_bench_tabular.settings import TabularSettings
from ocd_bench_tabular.table import Table, numeric_table

EMBEDDED = ("diabetes", "breast-cancer", "wine")
DAYS = {"bike_sharing": "dteday"}
"""Hourly data by the column of days: hours of one day are dependent."""
RANKING = ("letor_mq2008", "mslr_web10k")


def read_table(request: Request, settings: TabularSettings) -> Table:
    """The rows of ``request.dataset``.

    Raises:
        DataMissing: if there is no such folder.
        UsageError: if a file is damaged, naming file and line, or a setting does not fit the data.
    """
    name = request.dataset
    if settings.csv:
        return _given_file(name, settings)
    for key in ("target", "groups"):
        given = getattr(settings, key)
        if given and (name in EMBEDDED or name in RANKING or name == "california_housing"):
            raise UsageError(f"setting tabular.{key}={given!r}: dataset {name!r} has its own {key}; it is for CSV data")
    if name in EMBEDDED:
        return embedded(name)
    folder = request.folder()
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected the folder of dataset {name!r}, found a file; for one file set tabular.csv")
    if name == "california_housing":
        from ocd_bench_tabular.california import read_california

        return read_california(folder)
    if name in RANKING:
        from ocd_bench_tabular.letor import read_letor

        return read_letor(folder, settings.fold)
    from ocd_bench_tabular.csvfile import read_csv_folder

    if name in DAYS and not settings.groups:
        settings = replace(settings, groups=DAYS[name])
    return read_csv_folder(folder, settings)


def _given_file(name: str, settings: TabularSettings) -> Table:
    from pathlib import Path

    from ocd_bench_tabular.csvfile import read_csv_files

    if name in EMBEDDED or name in RANKING or name == "california_housing":
        # Else the table would show figures of this file under the name of a dataset it is not.
        raise UsageError(f"setting tabular.csv={settings.csv}: give the file a name of its own with --dataset, not {name!r}")
    path = Path(settings.csv).expanduser()
    if not path.is_file():
        raise DataMissing(f"setting tabular.csv={settings.csv}: no such file")
    return read_csv_files({"all": path}, settings)


def embedded(name: str) -> Table:
    """One of the sets that come with scikit-learn: ``diabetes`` (442 x 10, regression), ``breast-cancer`` (569 x 30, two
    classes), ``wine`` (178 x 13, three classes)."""
    from sklearn import datasets

    load = {"diabetes": datasets.load_diabetes, "breast-cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name]
    data = load()
    note = f"scikit-learn's {name}, {len(data.target)} rows"
    if name == "diabetes":
        return numeric_table(data.data, data.target.astype(np.float64), data.feature_names, note=note)
    classes = tuple(str(each) for each in data.target_names)
    return numeric_table(data.data, data.target.astype(np.int64), data.feature_names, classes=classes, note=note)
