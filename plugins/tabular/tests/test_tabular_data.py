"""Known datasets: California housing, LETOR and the embedded ones, from files made here and from the real ones."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ocd_bench import DataMissing, Request, UsageError
from ocd_bench_tabular import Tabular
from ocd_bench_tabular.california import FEATURES, RAW, read_california
from ocd_bench_tabular.letor import fold_parts, read_letor, read_svmlight
from ocd_bench_tabular.prepare import encode, split_rows
from ocd_bench_tabular.settings import TabularSettings
from ocd_bench_tabular.table import TEST, TRAIN, VAL, numeric_table

STATLIB = ["-122.23,37.88,41,880,129,322,126,8.3252,452600", "-122.22,37.86,21,7099,1106,2401,1138,8.3014,358500"]


def real(name: str) -> Path:
    """The folder of a real dataset. If it is missing, the test is skipped, and the reason lists the searched folders."""
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    for folder in (Path(os.environ["OCD_BENCH_DATA"]) if os.environ.get("OCD_BENCH_DATA") else None, beside):
        if folder is not None and (folder / name).is_dir():
            return folder / name
    pytest.skip(f"real data {name!r}: neither $OCD_BENCH_DATA nor {beside.parent.name}/data beside the checkout has it")


def request(dataset: str, *folders: Path, **settings: object) -> Request:
    return Request("tabular", dataset, TabularSettings(**settings), data_dirs=folders)  # type: ignore[arg-type]


# -- embedded -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "rows", "features", "classes"), [("diabetes", 442, 10, 0), ("breast-cancer", 569, 30, 2), ("wine", 178, 13, 3)]
)
def test_embedded(name: str, rows: int, features: int, classes: int) -> None:
    splits = Tabular().load_data(request(name, features="standard"))
    assert len(splits.train) + len(splits.val) + len(splits.test) == rows
    assert splits.train.inputs.shape[1] == features
    assert len(splits.extras["classes"]) == classes
    assert splits.train.inputs.mean(0).abs().max() < 1e-6
    np.testing.assert_allclose(splits.train.inputs.std(0, correction=0).numpy(), 1, atol=1e-5)
    assert f"{rows} rows" in splits.note


def test_quantiles_are_monotone_and_nearly_normal() -> None:
    values = np.random.default_rng(0).lognormal(sigma=2, size=(2000, 1))
    table = numeric_table(values, values[:, 0], ["x"])
    train = np.arange(1500)
    inputs, _ = encode(table, train, "quantile", 8)
    assert (np.diff(inputs[np.argsort(values[:, 0]), 0]) >= 0).all()
    assert abs(np.mean(inputs[train, 0] < 1) - 0.8413) < 0.02
    plain, _ = encode(table, train, "standard", 8)
    assert plain.max() > inputs.max() + 5


def test_constant_columns_stay_finite() -> None:
    table = numeric_table(np.array([[3.0, np.nan]] * 20), np.arange(20.0), ["same", "never"])
    inputs, names = encode(table, np.arange(10), "standard", 8)
    assert np.isfinite(inputs).all()
    assert names == ("same", "never", "never is empty")
    assert not inputs.any()


def test_every_class_keeps_a_training_row() -> None:
    target = np.array([0] * 30 + [1] * 2 + [2])
    table = numeric_table(np.arange(33.0)[:, None], target, ["x"], classes=("a", "b", "c"))
    for seed in range(10):
        train, val, test = split_rows(table, "d", seed)
        assert set(target[train]) == {0, 1, 2}
        assert (len(test), len(val)) == (7, 3)


def test_split_is_pinned() -> None:
    """After a change of the draw, stored results could not be compared with new ones."""
    table = numeric_table(np.zeros((20, 1)), np.arange(20.0), ["x"])
    _, val, test = split_rows(table, "d", 0)
    assert (val.tolist(), test.tolist()) == ([19, 13], [8, 9, 11, 10])


# -- California housing ---------------------------------------------------------------------------------------------------
def test_statlib_rows_as_scikit_learn_derives_them(tmp_path: Path) -> None:
    (tmp_path / "cal_housing.data").write_text("\n".join(STATLIB) + "\n")
    table = read_california(tmp_path)
    assert tuple(table.names) == FEATURES
    first = [column.values[0] for column in table.columns]
    # The first row of sklearn.datasets.fetch_california_housing, as its documentation shows it.
    np.testing.assert_allclose(first, [8.3252, 41.0, 6.98412698, 1.02380952, 322.0, 2.55555556, 37.88, -122.23], rtol=1e-8)
    np.testing.assert_allclose(table.target, [4.526, 3.585])


def test_statlib_forms_agree(tmp_path: Path) -> None:
    text = "\n".join([",".join(RAW), *STATLIB])
    for name in ("plain", "gz", "tgz", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "plain/cal_housing.data").write_text(text)
    (tmp_path / "gz/cal_housing.data.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "folder/CaliforniaHousing").mkdir()
    (tmp_path / "folder/CaliforniaHousing/cal_housing.data").write_text("\n".join(STATLIB))
    with tarfile.open(tmp_path / "tgz/cal_housing.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("CaliforniaHousing/cal_housing.data")
        content = "\n".join(STATLIB).encode()
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    tables = [read_california(tmp_path / name) for name in ("plain", "gz", "tgz", "folder")]
    for table in tables[1:]:
        for ours, first in zip(table.columns, tables[0].columns, strict=True):
            assert np.array_equal(ours.values, first.values)


def test_damaged_california(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="california_housing.npz"):
        read_california(tmp_path)
    path = tmp_path / "cal_housing.data"
    for text, said in (("", "no rows"), ("\n".join([STATLIB[0], "1,2,x,4,5,6,7,8,9"]), "line 2"), ("1,2,3\n", "line 1")):
        path.write_text(text)
        with pytest.raises(UsageError, match=said):
            read_california(tmp_path)
    for content in (b"", b"PK\x03\x04 torn", b"not an archive"):
        (tmp_path / "california_housing.npz").write_bytes(content)
        with pytest.raises(UsageError, match=r"california_housing\.npz"):
            read_california(tmp_path)
    np.savez(tmp_path / "california_housing.npz", X=np.zeros((3, 8)), y=np.array([1.0, np.nan, 2.0]))
    with pytest.raises(UsageError, match="not finite"):
        read_california(tmp_path)


def test_real_california_from_text_equals_the_arrays() -> None:
    folder = real("california_housing")
    from ocd_bench_tabular.california import _derive, _read_npz, _read_statlib

    features, target = _derive(_read_statlib(folder / "cal_housing.data.gz"))
    other, other_target = _read_npz(folder / "california_housing.npz")
    assert features.shape == (20640, 8)
    np.testing.assert_allclose(features, other, rtol=1e-12)
    np.testing.assert_allclose(target, other_target, rtol=1e-12)


def test_real_california_splits() -> None:
    folder = real("california_housing")
    splits = Tabular().load_data(request("california_housing", folder.parent))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [14861, 1651, 4128]


# -- LETOR ----------------------------------------------------------------------------------------------------------------
def letor_line(relevance: int, query: int, values: list[float]) -> str:
    pairs = " ".join(f"{place}:{value}" for place, value in enumerate(values, start=1))
    return f"{relevance} qid:{query} {pairs} #docid = G{query}-{relevance} inc = 1 prob = 0.5"


def make_parts(folder: Path) -> None:
    for part in range(1, 6):
        lines = [letor_line(row % 3, 10 * part + row // 3, [part, row, 0.5]) for row in range(6)]
        (folder / f"S{part}.txt").write_text("\n".join(lines) + "\n")


def test_official_folds(tmp_path: Path) -> None:
    assert fold_parts(1) == ((1, 2, 3), 4, 5)
    assert fold_parts(3) == ((3, 4, 5), 1, 2)
    make_parts(tmp_path)
    table = read_letor(tmp_path, 3)
    parts = table.columns[0].values
    for official, expected in ((TRAIN, {3, 4, 5}), (VAL, {1}), (TEST, {2})):
        assert set(parts[table.parts == official]) == expected
    assert table.target.tolist()[:3] == [0, 1, 2]
    assert "official fold 3, 10 queries" in table.note


def test_fold_folders_and_gzip(tmp_path: Path) -> None:
    make_parts(tmp_path)
    (tmp_path / "web/Fold1").mkdir(parents=True)
    for name, parts in (("train", (1, 2, 3)), ("vali", (4,)), ("test", (5,))):
        text = "".join((tmp_path / f"S{part}.txt").read_text() for part in parts)
        (tmp_path / f"web/Fold1/{name}.txt.gz").write_bytes(gzip.compress(text.encode()))
    ours, theirs = read_letor(tmp_path / "web", 1), read_letor(tmp_path, 1)
    for first, second in zip(ours.columns, theirs.columns, strict=True):
        assert np.array_equal(first.values, second.values)
    with pytest.raises(DataMissing, match="Fold2"):
        read_letor(tmp_path / "web", 2)


def test_an_omitted_feature_is_zero(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1 qid:3 2:0.5\n0 qid:3 1:2 3:1 # a: comment\n")
    features, relevance, queries = read_svmlight(tmp_path / "x.txt")
    assert features.tolist() == [[0, 0.5, 0], [2, 0, 1]]
    assert (relevance.tolist(), queries.tolist()) == ([1, 0], [3, 3])


@pytest.mark.parametrize(
    "line",
    [
        "2 1:0.5",
        "x qid:1 1:0.5",
        "1 qid:1 1:y",
        "1 qid:1 0:3",
        "1 qid:1 2:1 1:1",
        "1 qid:z 1:1",
        "1 qid:1 1:nan",
        "1",
        "1 qid:1 1",
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "S1.txt"
    path.write_text(f"{letor_line(1, 1, [0.1, 0.2])}\n{line}\n")
    with pytest.raises(UsageError, match=r"S1\.txt, line 2: .*qid:Q"):
        read_svmlight(path)


def test_other_damage(tmp_path: Path) -> None:
    make_parts(tmp_path)
    (tmp_path / "S2.txt").write_text((tmp_path / "S2.txt").read_text() + (tmp_path / "S5.txt").read_text())
    with pytest.raises(UsageError, match="query 5. is in two"):
        read_letor(tmp_path, 1)
    (tmp_path / "S2.txt").write_text("")
    with pytest.raises(UsageError, match="no rows"):
        read_letor(tmp_path, 1)
    (tmp_path / "S2.txt").rename(tmp_path / "S2.txt.gz")
    (tmp_path / "S2.txt.gz").write_bytes(b"\x1f\x8b torn")
    with pytest.raises(UsageError, match="S2.txt.gz: cannot be read: damaged"):
        read_letor(tmp_path, 1)
    (tmp_path / "mq2008.npz").write_bytes(b"torn")
    with pytest.raises(UsageError, match="mq2008"):
        read_letor(tmp_path, 1)


def test_real_letor_arrays_equal_the_text() -> None:
    folder = real("letor_mq2008")
    from ocd_bench_tabular.letor import _from_npz

    arrays = _from_npz(folder, 5)
    assert arrays is not None
    # Fold 5 tests on part 4.
    features, relevance, queries = read_svmlight(folder / "S4.txt.gz")
    np.testing.assert_allclose(arrays[2][0], features, atol=1e-6)
    assert np.array_equal(arrays[2][1], relevance)
    assert np.array_equal(arrays[2][2], queries)


def test_real_letor_folds() -> None:
    folder = real("letor_mq2008")
    sizes = {1: 2933, 2: 3635, 3: 3062, 4: 2707, 5: 2874}
    for fold in (1, 4):
        splits = Tabular().load_data(request("letor_mq2008", folder.parent, fold=fold))
        train, val, test = fold_parts(fold)
        assert [len(part) for part in (splits.train, splits.val, splits.test)] == [
            sum(sizes[part] for part in train),
            sizes[val],
            sizes[test],
        ]
        assert splits.train.inputs.shape[1] == 46
