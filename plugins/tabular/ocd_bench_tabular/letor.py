"""Learning to rank as regression on relevance (paper, section 4): LETOR 4.0 MQ2008, MSLR-WEB10K and whatever has their layout.

Two layouts: the five parts ``S1.txt`` .. ``S5.txt``, from which fold k takes three for training and one each for validation and
test (T. Qin and T.-Y. Liu, Introducing LETOR 4.0 Datasets, 2013, table 3), or folders ``Fold1`` .. ``Fold5`` of ``train.txt``,
``vali.txt`` and ``test.txt``. Any file may be gzipped. The documents of a query are never in two splits.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocd_bench import DataMissing, UsageError
from ocd_bench_tabular.table import TEST, TRAIN, VAL, Table, numeric_table

BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, UnicodeDecodeError)
Rows = tuple[NDArray, NDArray, NDArray]
"""Features (N, D), relevance (N,), query numbers (N,)."""


def read_letor(folder: Path, fold: int) -> Table:
    """The official fold 1 to 5 of the dataset in ``folder``.

    Raises:
        DataMissing: if its files are not there.
        UsageError: if one is damaged, naming the line, or a query is in two splits.
    """
    pieces = _from_fold(folder, fold) or _from_npz(folder, fold) or _from_parts(folder, fold)
    if pieces is None:
        raise DataMissing(f"{folder}: neither Fold{fold}/train.txt, vali.txt, test.txt nor S1.txt .. S5.txt (or .gz) is there")
    width = max(rows[0].shape[1] for rows in pieces)
    features = np.concatenate([np.pad(rows[0], ((0, 0), (0, width - rows[0].shape[1]))) for rows in pieces])
    parts = np.repeat(np.array([TRAIN, VAL, TEST], np.int8), [len(rows[1]) for rows in pieces])
    queries = np.concatenate([rows[2] for rows in pieces])
    _refuse_straddling(folder, queries, parts)
    names = [str(place) for place in range(1, width + 1)]
    note = f"official fold {fold}, {len(np.unique(queries))} queries"
    return numeric_table(features, np.concatenate([rows[1] for rows in pieces]), names, parts=parts, note=note, groups=queries)


def fold_parts(fold: int) -> tuple[tuple[int, ...], int, int]:
    """Parts (1 to 5) of an official fold: three for training, one for validation, one for test."""
    order = [(fold - 1 + step) % 5 + 1 for step in range(5)]
    return tuple(order[:3]), order[3], order[4]


def read_svmlight(path: Path) -> Rows:
    """Lines ``relevance qid:Q 1:v 2:v .. #comment``; a feature that a line leaves out is 0.

    Raises:
        UsageError: for a line of another shape, naming file and line.
    """
    from sklearn.datasets import load_svmlight_file

    try:
        features, relevance, queries = load_svmlight_file(str(path), query_id=True, zero_based=False)
    except (*BROKEN, ValueError, IndexError, OverflowError) as error:
        raise _explain(path, error) from error
    if not len(relevance):
        raise UsageError(f"{path}: holds no rows")
    if len(queries) != len(relevance) or not (np.isfinite(features.data).all() and np.isfinite(relevance).all()):
        raise _explain(path, "not SVMlight lines with a qid and finite numbers")
    return features.toarray(), relevance, queries


def _explain(path: Path, problem: object) -> UsageError:
    """The error for a damaged file: scikit-learn's fast reader does not say in which line."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not _well_formed(line.partition("#")[0].split()):
                    shown = line.strip()[:80]
                    return UsageError(f"{path}, line {number}: expected 'relevance qid:Q 1:v 2:v ..'; found {shown!r}")
    except BROKEN as error:
        return UsageError(f"{path}: cannot be read: {error}")
    return UsageError(f"{path}: cannot be read: {problem}")


def _well_formed(fields: Sequence[str]) -> bool:
    if not fields:
        return True
    try:
        (key, query), *pairs = (field.split(":") for field in fields[1:])
        values = [float(fields[0]), *(float(value) for _, value in pairs)]
        places = [int(place) for place, _ in pairs]
        return key == "qid" and int(query) >= 0 and bool(np.isfinite(values).all()) and places == sorted({*places} - {0})
    except ValueError:
        return False


def _present(folder: Path, names: Sequence[str]) -> list[Path] | None:
    """The files of these names, plain or gzipped; None unless all are there."""
    paths = [next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None) for name in names]
    return None if None in paths else paths  # type: ignore[return-value]


def _from_fold(folder: Path, fold: int) -> list[Rows] | None:
    paths = _present(folder / f"Fold{fold}", ("train.txt", "vali.txt", "test.txt"))
    return paths and [read_svmlight(path) for path in paths]  # type: ignore[return-value]


def _from_parts(folder: Path, fold: int) -> list[Rows] | None:
    paths = _present(folder, [f"S{part}.txt" for part in range(1, 6)])
    if paths is None:
        return None
    return _join([read_svmlight(path) for path in paths], fold)


def _from_npz(folder: Path, fold: int) -> list[Rows] | None:
    path = folder / "mq2008.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            rows = archive["X"].astype(np.float64), archive["relevance"].astype(np.float64), archive["qid"].astype(np.int64)
            part = archive["part"]
        return _join([tuple(each[part == number] for each in rows) for number in range(1, 6)], fold)  # type: ignore[misc]
    except (*BROKEN, ValueError, KeyError, IndexError) as error:
        raise UsageError(f"{path}: not an archive of arrays X, relevance, qid and part: {error}") from error


def _join(parts: Sequence[Rows], fold: int) -> list[Rows]:
    train, val, test = fold_parts(fold)
    width = max(rows[0].shape[1] for rows in parts)
    parts = [(np.pad(x, ((0, 0), (0, width - x.shape[1]))), y, q) for x, y, q in parts]
    joined = tuple(np.concatenate([parts[number - 1][item] for number in train]) for item in range(3))
    return [joined, parts[val - 1], parts[test - 1]]  # type: ignore[list-item]


def _refuse_straddling(folder: Path, queries: NDArray, parts: NDArray) -> None:
    seen = [np.unique(queries[parts == part]) for part in (TRAIN, VAL, TEST)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = np.intersect1d(seen[first], seen[second])
        if len(both):
            raise UsageError(f"{folder}: query {both[0]} is in two of the training, validation and test parts")
