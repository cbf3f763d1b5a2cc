"""Learning to rank as regression on relevance (paper, section 4), and other SVMlight text.

Known layouts of a folder, whatever its name: the five parts ``S1.txt`` .. ``S5.txt``, of which fold k takes three for training
and one each for validation and test (T. Qin and T.-Y. Liu, Introducing LETOR 4.0 Datasets, 2013, table 3); folders ``Fold1`` ..
``Fold5`` of ``train.txt``, ``vali.txt`` and ``test.txt``; one such folder; or a single file, whose queries are split by a draw.
Any file may be compressed. The documents of a query are never in two splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocd_bench import DataMissing, UsageError
from ocd_bench.reading import check_size, explain, guarded, list_folder, open_unpacked, quoted, read_lines, read_npz, split_name
from ocd_bench.reading.limits import COLUMNS
from ocd_bench.seeds import derive
from ocd_bench_tabular.table import TEST, TRAIN, VAL, Table, numeric_table

ENDINGS = (".txt", ".dat", ".data", ".svm", ".libsvm", ".svmlight", ".letor")
TEST_SHARE, VAL_SHARE = 0.2, 0.1
Rows = tuple[NDArray, NDArray, NDArray]
"""Features (N, D), relevance (N,), query numbers (N,), empty where lines have none."""


def read_letor(folder: Path, fold: int) -> Table:
    """The official fold 1 to 5 of the dataset in ``folder``.

    Raises:
        DataMissing: if its files are not there.
        UsageError: if one is damaged, naming the line, or a query is in two splits.
    """
    pieces = find_letor(folder, fold)
    if pieces is None:
        raise DataMissing(f"{folder}: neither Fold{fold}/train.txt, vali.txt, test.txt nor S1.txt .. S5.txt (or .gz) is there")
    return pieces


@guarded
def find_letor(folder: Path, fold: int) -> Table | None:
    """As :func:`read_letor`; None if the folder has no such layout."""
    pieces = _from_fold(folder / f"Fold{fold}") or _from_npz(folder, fold) or _from_parts(folder, fold) or _from_fold(folder)
    if pieces is None:
        return None
    features = _stacked(folder, [rows[0] for rows in pieces])
    parts = np.repeat(np.array([TRAIN, VAL, TEST], np.int8), [len(rows[1]) for rows in pieces])
    queries = np.concatenate([rows[2] for rows in pieces])
    _refuse_straddling(folder, queries, parts)
    note = f"official fold {fold}, {len(np.unique(queries))} queries, target relevance"
    relevance = np.concatenate([rows[1] for rows in pieces])
    return numeric_table(features, relevance, _names(features), parts=parts, note=note, groups=queries)


def read_letor_file(path: Path, dataset: str, split_seed: int) -> Table:
    """One file of SVMlight lines; where they have queries, a fifth of these is test and a tenth of the others validation.

    Raises:
        UsageError: if it is damaged, naming the line, or has too few queries.
    """
    features, relevance, queries = read_svmlight(path, needs_query=False)
    if not len(queries):
        return numeric_table(features, relevance, _names(features), note=f"{path.name}, {len(relevance)} rows without queries")
    known = np.unique(queries)
    if len(known) < 10:
        raise UsageError(f"{path}: {len(known)} queries; at least 10 are needed to split them")
    order = np.random.RandomState(derive("tabular", dataset, "split", split_seed) % 2**32).permutation(known)
    tests = max(1, round(TEST_SHARE * len(known)))
    held = max(1, round(VAL_SHARE * (len(known) - tests)))
    parts = np.full(len(queries), TRAIN, np.int8)
    parts[np.isin(queries, order[:tests])] = TEST
    parts[np.isin(queries, order[tests : tests + held])] = VAL
    note = f"{path.name}, {len(relevance)} rows, {len(known)} queries, split by query"
    return numeric_table(features, relevance, _names(features), parts=parts, note=note, groups=queries)


def looks_like_svmlight(path: Path) -> bool:
    """Whether the first line that is not a comment is ``NUMBER [qid:Q] PLACE:VALUE ..``.

    Raises:
        UsageError: if the file cannot be read.
    """
    for line in islice(read_lines(path), 100):
        fields = line.partition("#")[0].split()
        if fields:
            return len(fields) > 1 and all(field.count(":") == 1 for field in fields[1:])
    return False


def fold_parts(fold: int) -> tuple[tuple[int, ...], int, int]:
    """Parts (1 to 5) of an official fold: three for training, one for validation, one for test."""
    order = [(fold - 1 + step) % 5 + 1 for step in range(5)]
    return tuple(order[:3]), order[3], order[4]


@guarded
def read_svmlight(path: Path, needs_query: bool = True) -> Rows:
    """Lines ``relevance qid:Q 1:v 2:v .. #comment``; a feature that a line leaves out is 0.

    Args:
        needs_query: whether a line must have ``qid:Q``; a file has it in every line or in none.

    Raises:
        UsageError: for a line of another shape, naming file and line, or a feature number beyond ``COLUMNS``.
    """
    from sklearn.datasets import load_svmlight_file

    try:
        with open_unpacked(path) as file:
            if file.peek(3)[:3] == b"\xef\xbb\xbf":  # type: ignore[attr-defined]
                file.read(3)
            features, relevance, queries = load_svmlight_file(file, query_id=True, zero_based=False)
    except UsageError:
        raise
    except Exception as error:  # the fast reader stumbles in many ways
        raise _explain(path, explain(error), needs_query) from error
    if not len(relevance):
        raise UsageError(f"{path}: holds no rows")
    straying = len(queries) != len(relevance) and (needs_query or len(queries) > 0)
    if straying or not (np.isfinite(features.data).all() and np.isfinite(relevance).all()):
        raise _explain(path, "not SVMlight lines with a qid and finite numbers", needs_query or len(queries) > 0)
    if features.shape[1] > COLUMNS:
        raise UsageError(f"{path}: feature number {features.shape[1]:,}, at most {COLUMNS:,} are read")
    check_size(path, 8 * features.shape[0] * features.shape[1])
    return features.toarray(), relevance, queries


def _explain(path: Path, problem: str, needs_query: bool) -> UsageError:
    """The error for a damaged file: scikit-learn's fast reader does not say in which line."""
    for number, line in enumerate(read_lines(path), start=1):
        if not _well_formed(line.partition("#")[0].split(), needs_query):
            query = "qid:Q " if needs_query else "[qid:Q] "
            return UsageError(f"{path}, line {number}: expected 'relevance {query}1:v 2:v ..'; found {quoted(line.strip())}")
    return UsageError(f"{path}: {problem}")


def _well_formed(fields: Sequence[str], needs_query: bool) -> bool:
    if not fields:
        return True
    try:
        pairs = [field.split(":") for field in fields[1:]]
        if needs_query or (pairs and pairs[0][0] == "qid"):
            key, query = pairs.pop(0)
            if key != "qid" or not 0 <= int(query) < 2**63:
                return False
        values = [float(fields[0]), *(float(value) for _, value in pairs)]
        places = [int(place) for place, _ in pairs]
        return bool(np.isfinite(values).all()) and places == sorted({*places} - {0}) and max(places, default=1) < 2**31
    except (ValueError, IndexError):
        return False


def _present(folder: Path, names: Sequence[str]) -> list[Path] | None:
    """The files of these names, in any case and compression; None unless all are there."""
    if not folder.is_dir():
        return None
    listing = list_folder(folder, (".txt",))
    found = {(split_name(name).stem + split_name(name).ending).lower(): folder / name for name in reversed(listing.files)}
    paths = [found.get(name.lower()) for name in names]
    return None if None in paths else paths  # type: ignore[return-value]


def _from_fold(folder: Path) -> list[Rows] | None:
    for validation in ("vali", "valid", "val"):
        paths = _present(folder, ("train.txt", f"{validation}.txt", "test.txt"))
        if paths and looks_like_svmlight(paths[0]):
            return [read_svmlight(path) for path in paths]
    return None


def _from_parts(folder: Path, fold: int) -> list[Rows] | None:
    paths = _present(folder, [f"S{part}.txt" for part in range(1, 6)])
    if paths is None:
        return None
    return _join([read_svmlight(path) for path in paths], fold)


def _from_npz(folder: Path, fold: int) -> list[Rows] | None:
    path = folder / "mq2008.npz"
    return _read_parts(path, fold) if path.is_file() else None


@guarded
def _read_parts(path: Path, fold: int) -> list[Rows]:
    arrays = read_npz(path, ("X", "relevance", "qid", "part"))
    rows = arrays["X"].astype(np.float64), arrays["relevance"].astype(np.float64), arrays["qid"].astype(np.int64)
    part = arrays["part"]
    if rows[0].ndim != 2 or any(each.shape != (len(rows[0]),) for each in (*rows[1:], part)):
        raise UsageError(f"{path}: X {rows[0].shape}, relevance, qid and part are not (N, D) and (N,)")
    if not (np.isfinite(rows[0]).all() and np.isfinite(rows[1]).all()):
        raise UsageError(f"{path}: X or relevance holds values that are not finite")
    if sorted({*part.tolist()}) != [1, 2, 3, 4, 5]:
        raise UsageError(f"{path}: part does not number the five parts 1 to 5")
    return _join([tuple(each[part == number] for each in rows) for number in range(1, 6)], fold)  # type: ignore[misc]


def _stacked(place: Path, features: Sequence[NDArray]) -> NDArray:
    """Parts of different widths below each other, features that a part does not know being 0."""
    width = max(each.shape[1] for each in features)
    check_size(place, 8 * width * sum(len(each) for each in features))
    return np.concatenate([np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in features])


def _names(features: NDArray) -> list[str]:
    return [str(place) for place in range(1, features.shape[1] + 1)]


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
