"""CSV files: types of columns and targets, splits, and error messages with file, line and column."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from ocd_bench import DataMissing, Request, UsageError
from ocd_bench.reading import SheetOptions, read_sheet
from ocd_bench_tabular import Tabular
from ocd_bench_tabular.csvfile import read_csv_folder
from ocd_bench_tabular.settings import TabularSettings


def load(folder: Path, dataset: str = "mine", seed: int = 0, **settings: object):
    request = Request("tabular", dataset, TabularSettings(**settings), seed=seed, data_dirs=(folder,))  # type: ignore[arg-type]
    return Tabular().load_data(request)


def write(folder: Path, text: str, name: str = "mine/data.csv") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def houses(count: int = 60) -> list[str]:
    rows = ["area,rooms,town,target"]
    rows += [f"{50 + 3 * i},{i % 5},{'north' if i % 3 else 'south'},{10.5 + 2 * i}" for i in range(count)]
    return rows


def problem(folder: Path, **settings: object) -> str:
    with pytest.raises(UsageError) as caught:
        load(folder, "mine", 0, **settings)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is read ---------------------------------------------------------------------------------------------------------
def test_numbers_categories_and_regression(tmp_path: Path) -> None:
    write(tmp_path, "\n".join(houses()))
    splits = load(tmp_path, features="standard")
    assert splits.extras["features"] == ("area", "rooms", "town=north", "town=south")
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [43, 5, 12]
    assert splits.train.targets.shape == (43, 2)
    rows = splits.extras["rows"]
    assert sorted(np.concatenate(list(rows.values()))) == list(range(60))
    area = splits.train.inputs[:, 0].numpy()
    raw = 50 + 3 * rows["train"]
    np.testing.assert_allclose(area, (raw - raw.mean()) / raw.std(), rtol=1e-5, atol=1e-6)
    values = splits.extras["mean"] + splits.extras["scale"] * splits.test.targets[:, 0].numpy()
    np.testing.assert_allclose(values, 10.5 + 2 * rows["test"], rtol=1e-5)
    assert "data.csv" in splits.note
    assert "regression, inferred" in splits.note


def test_test_rows_do_not_depend_on_the_runs_seed(tmp_path: Path) -> None:
    write(tmp_path, "\n".join(houses()))
    first, second = load(tmp_path, seed=0), load(tmp_path, seed=5)
    assert np.array_equal(first.extras["rows"]["test"], second.extras["rows"]["test"])
    other = load(tmp_path, split_seed=1)
    assert set(first.extras["rows"]["test"]) != set(other.extras["rows"]["test"])


def test_missing_cells_become_the_median_and_a_column(tmp_path: Path) -> None:
    rows = houses()
    rows[4], rows[9], rows[14] = (
        row.replace(row.split(",")[0], gap, 1) for row, gap in zip(rows[4:15:5], ("", "NA", "?"), strict=True)
    )
    write(tmp_path, "\n".join(rows))
    splits = load(tmp_path, features="standard")
    names, train = splits.extras["features"], splits.extras["rows"]["train"]
    assert names[:2] == ("area", "area is empty")
    empty = np.isin(train, (3, 8, 13))
    assert empty.any()
    raw = np.where(empty, np.nan, 50.0 + 3 * train)
    filled = np.where(empty, np.nanmedian(raw), raw)
    np.testing.assert_allclose(splits.train.inputs[:, 0].numpy(), (filled - filled.mean()) / filled.std(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(splits.train.inputs[:, 1].numpy(), (empty - empty.mean()) / 0.5, atol=1e-6)


def test_unseen_rare_and_empty_categories(tmp_path: Path) -> None:
    lines = [f"{('red', 'red', 'red', 'blue', 'blue', '')[i % 6]},{i},{i * 1.5}" for i in range(60)]
    write(tmp_path, "\n".join(["colour,size,target", *lines]), "mine/train.csv")
    write(tmp_path, "colour,size,target\ngreen,3,4.5\nblue,4,6.5\n", "mine/test.csv")
    splits = load(tmp_path)
    assert splits.extras["features"] == ("colour=red", "colour=blue", "colour is empty", "size")
    flags = splits.test.inputs[:, :3] > 0
    by_row = dict(zip(splits.extras["rows"]["test"].tolist(), flags.sum(1).tolist(), strict=True))
    assert by_row == {60: 0, 61: 1}, "an unseen category is none of the known ones"
    assert len(load(tmp_path, max_categories=1).extras["features"]) == 2


def test_train_and_test_files_keep_their_parts(tmp_path: Path) -> None:
    write(tmp_path, "\n".join(houses(40)), "mine/train.csv")
    reordered = ["target,town,rooms,area", *(",".join(reversed(row.split(","))) for row in houses(12)[1:])]
    write(tmp_path, "\n".join(reordered), "mine/test.csv")
    splits = load(tmp_path)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [36, 4, 12]
    assert set(splits.extras["rows"]["test"]) == set(range(40, 52))


@pytest.mark.parametrize(
    ("targets", "kind", "classes"),
    [
        (["yes", "no"], "auto", ("no", "yes")),
        (["0", "1"], "auto", ("0", "1")),
        (["1", "2", "3"], "auto", ("1", "2", "3")),
        (["3", "4", "5"], "auto", ()),
        (["3", "4", "5"], "classification", ("3", "4", "5")),
        (["0", "1", "2"], "regression", ()),
        (["0.5", "1.5", "2.5"], "auto", ()),
        ([str(i) for i in range(12)], "auto", ()),
        (["1000001", "1000002"], "auto", ("1000001", "1000002")),
        (["None", "Apnea"], "auto", ("Apnea", "None")),
    ],
)
def test_kind_of_target(tmp_path: Path, targets: list[str], kind: str, classes: tuple[str, ...]) -> None:
    write(tmp_path, "\n".join(["x,y", *(f"{i},{targets[i % len(targets)]}" for i in range(60))]))
    splits = load(tmp_path, target="y", kind=kind)
    assert splits.extras["classes"] == classes
    assert splits.train.targets.is_floating_point() == (not classes)
    if classes:
        expected = [classes.index(targets[row % len(targets)]) for row in splits.extras["rows"]["test"]]
        assert splits.test.targets.tolist() == expected
        counts = np.bincount(expected, minlength=len(classes))
        assert counts.max() - counts.min() <= 1, "the test split is drawn class by class"


def test_separators_gzip_and_decimal_comma(tmp_path: Path) -> None:
    write(tmp_path, "\n".join(["a;b;target", *(f"{i},5;{i}e-1;{i},25" for i in range(20))]))
    table = read_csv_folder(tmp_path / "mine", TabularSettings())
    np.testing.assert_allclose(table.columns[0].values, np.arange(20) + 0.5)
    np.testing.assert_allclose(table.target, np.arange(20) + 0.25)
    path = tmp_path / "rows.tsv.gz"
    path.write_bytes(gzip.compress('\ufeffa\tnote, long\n1\t"two\nlines"\n\n3\tx\n'.encode()))
    sheet = read_sheet(path, SheetOptions("tabular"))
    assert (sheet.header, sheet.rows, list(sheet.lines)) == (("a", "note, long"), [["1", "two\nlines"], ["3", "x"]], [2, 5])


def test_a_given_file_needs_a_dataset_name_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join(houses()), "anywhere.csv")
    assert len(load(tmp_path, "houses", csv=str(path)).test) == 12
    with pytest.raises(UsageError, match="--dataset"):
        load(tmp_path, "diabetes", csv=str(path))


def test_dropped_and_forced_categories(tmp_path: Path) -> None:
    write(tmp_path, "\n".join(houses()))
    names = load(tmp_path, drop=("area",), categorical=("rooms",)).extras["features"]
    assert set(names) == {*(f"rooms={i}" for i in range(5)), "town=north", "town=south"}


def test_rows_of_one_value_of_the_column_of_groups_are_one_group(tmp_path: Path) -> None:
    write(tmp_path, "\n".join(houses()))
    splits = load(tmp_path, groups="rooms")
    assert "rooms" not in splits.extras["features"]
    assert "5 groups by rooms" in splits.note
    assert splits.test.groups.tolist() == [int(row) % 5 for row in splits.extras["rows"]["test"]]
    assert len(load(tmp_path).test.groups.unique()) == len(load(tmp_path).test)
    with pytest.raises(UsageError, match="tabular.groups"):
        load(tmp_path, groups="street")
    with pytest.raises(UsageError, match="has its own groups"):
        load(tmp_path, "diabetes", groups="rooms")


def test_neighbours_on_the_map_are_one_tile() -> None:
    import numpy as np

    from ocd_bench_tabular.california import FEATURES, tiles

    rows = np.zeros((4, len(FEATURES)))
    rows[:, -2:] = [[34.01, -118.01], [34.24, -118.24], [34.26, -118.01], [-34.01, 118.01]]
    found = tiles(rows)
    assert found[0] == found[1]
    assert len(set(found.tolist())) == 3


# -- what is refused ------------------------------------------------------------------------------------------------------
def test_text_in_a_number_column_is_named(tmp_path: Path) -> None:
    rows = houses()
    rows[17] = rows[17].replace(rows[17].split(",")[0], "ninety", 1)
    path = write(tmp_path, "\n".join(rows))
    said = problem(tmp_path)
    for part in (str(path), "line 18", "'area'", "'ninety'"):
        assert part in said


def test_a_column_that_is_half_numbers_is_refused_and_a_setting_makes_it_a_category(tmp_path: Path) -> None:
    rows = ["x,target", *(f"{'abc' if i % 5 == 0 else i % 3},{i * 0.5}" for i in range(50))]
    write(tmp_path, "\n".join(rows))
    said = problem(tmp_path)
    for part in (
        "line 2",
        "'x'",
        "'abc' is not a number, and 80% of that column are",
        "tabular.categorical",
        "tabular.missing",
    ):
        assert part in said
    assert "x=abc" in load(tmp_path, categorical=("x",)).extras["features"]
    assert load(tmp_path, missing=("ABC",)).extras["features"] == ("x", "x is empty")
    rows = ["x,target", *(f"{'abc' if i % 5 else i % 3},{i * 0.5}" for i in range(50))]
    write(tmp_path, "\n".join(rows))
    assert "x=abc" in load(tmp_path).extras["features"], "two numbers in ten cells are texts"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("empty",)),
        ("\n \n", ("empty",)),
        ("a,target\n", ("no rows",)),
        ("1,2\n3,4\n", ("line 1", "header")),
        ("a,a,target\n1,2,3\n", ("'a'", "twice", "columns 1, 2")),
        ("a,target\n1,2\n1,2,3\n", ("line 3", "3 cells")),
        ("target\n" + "\n".join("123456789012"), ("no column is left",)),
        ("a,target\n1,2\n", ("one value only",)),
        ("a,target\n1,2\n3,4\n5,6.5\n7,8\n", ("too few rows",)),
        ("a,target\n" + "\n".join(f"{i},{i / 7}" for i in range(30)) + "\n31,\n", ("line 32", "'target'", "missing")),
        ("a,target\n" + "\n".join(f"{i},{i / 7}" for i in range(30)) + "\n31,inf\n", ("line 32", "'inf'")),
        ("a,target\n" + "\n".join(f"{i},{i / 7}" for i in range(30)) + "\n31,1_0\n", ("line 32", "'1_0'")),
        ("a,target\n" + "\n".join(f"{i},name{i}" for i in range(30)), ("30 different values", "too many for classes")),
        ('a,target\n1,"2\n', ("line 2",)),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    path = write(tmp_path, text)
    said = problem(tmp_path)
    for part in (path.name, *parts):
        assert part in said


def test_unknown_columns_get_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, "\n".join(houses()))
    assert "did you mean 'area'" in problem(tmp_path, target="aera")
    assert "tabular.drop" in problem(tmp_path, drop=("nothing",))
    write(tmp_path, "\n".join(houses()).replace("target", "price"))
    assert "tabular.target=COLUMN" in problem(tmp_path)


def test_missing_folder_and_files(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="nowhere"):
        load(tmp_path, "nowhere")
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataMissing, match="no CSV or TSV"):
        load(tmp_path)
    with pytest.raises(DataMissing, match="no such file"):
        load(tmp_path, csv=str(tmp_path / "absent.csv"))
    write(tmp_path, "x,target", "mine/one.csv")
    write(tmp_path, "x,target", "mine/two.csv")
    assert "2 files" in problem(tmp_path)
    (tmp_path / "mine/one.csv").rename(tmp_path / "mine/train.csv")
    (tmp_path / "mine/two.csv").rename(tmp_path / "mine/test.csv")
    write(tmp_path, "x,target", "mine/test.tsv")
    assert "3 files" in problem(tmp_path)


def test_files_with_different_columns_are_refused(tmp_path: Path) -> None:
    rows = ["x,target", *(f"{i},{'ab'[i % 2]}" for i in range(30))]
    write(tmp_path, "\n".join(rows), "mine/train.csv")
    write(tmp_path, "x,target\n1,a\n2,c\n", "mine/test.csv")
    assert "class 'c'" in problem(tmp_path)
    write(tmp_path, "x,z,target\n1,2,a\n", "mine/test.csv")
    assert "'z' is in one of them only" in problem(tmp_path)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    write(tmp_path, "").write_bytes(b"a,target\n\xff\xfe,1\n")
    said = problem(tmp_path)
    assert "line 2: not utf-8 text; set tabular.encoding" in said
    write(tmp_path, "").write_bytes(b"\x1f\x8b torn")
    assert "data.csv: cannot be read: damaged" in problem(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", "tree"), ("features", "log"), ("kind", "rank"), ("encoder", "x"), ("fold", 6), ("dropout", 1.0), ("depth", 0)],
)
def test_settings_out_of_range(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"tabular.{name}"):
        TabularSettings(**{name: value})  # type: ignore[arg-type]


def test_a_target_setting_is_refused_for_data_with_their_own_target(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has its own target"):
        load(tmp_path, "wine", target="alcohol")
