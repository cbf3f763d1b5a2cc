"""How numbers, dates, codes and gaps of a table are read: the right value, or a refusal that names cell and setting."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ocd_bench import DataMissing, Request, UsageError
from ocd_bench_tabular import Tabular
from ocd_bench_tabular.csvfile import read_csv_files
from ocd_bench_tabular.dates import read_dates
from ocd_bench_tabular.settings import TabularSettings
from ocd_bench_tabular.sources import read_any, read_table
from ocd_bench_tabular.table import TEST, TRAIN, VAL, Table


def table(folder: Path, text: str | bytes, name: str = "d.csv", **settings: object) -> Table:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_csv_files({None: folder / name}, TabularSettings(**settings))  # type: ignore[arg-type]


def column(folder: Path, cells: list[str], delimiter: str = ";", beside: str = "7", **settings: object) -> list[object]:
    """The values of a column ``x`` of these cells, beside a column of ``beside``."""
    rows = [delimiter.join(("x", "y", "target")), *(delimiter.join((cell, beside, str(i))) for i, cell in enumerate(cells))]
    return table(folder, "\n".join(rows), **{"kind": "regression", **settings}).columns[0].values.tolist()


def refused(folder: Path, cells: list[str], delimiter: str = ";", beside: str = "7", **settings: object) -> str:
    with pytest.raises(UsageError) as caught:
        column(folder, cells, delimiter, beside, **settings)
    return str(caught.value)


# -- numbers --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["377,19", "-396,31", "1.921,27", "12"], [377.19, -396.31, 1921.27, 12]),
        (["1,234.5", "1,234,567.25", "3"], [1234.5, 1234567.25, 3]),
        (["1 234,5", "1\u00a0234\u202f567,5"], [1234.5, 1234567.5]),
        (["1'234.50", "99"], [1234.5, 99]),
        (["0,5", "12,25", "-,5"], [0.5, 12.25, -0.5]),
        (["1e3", "-2.5E-1", "+.5", "7."], [1000, -0.25, 0.5, 7]),
        (["1,5e3", "2,0"], [1500, 2]),
        (["12%", "7.5 %"], [12, 7.5]),
        (["$1,234.50", "-$2.00", "$ 3"], [1234.5, -2, 3]),
        (["5,50 €", "1.005,00 €"], [5.5, 1005]),
        (["EUR 5.5", "EUR 6.25"], [5.5, 6.25]),
        (["\u22125", "\uff11\uff12", "\u0663\u066b\u0665"], [-5, 12, 3.5]),
        (["007.5", "08.25"], [7.5, 8.25]),
        (["9007199254740991", "1"], [9007199254740991, 1]),
        (["1e-400", "5"], [0, 5]),
    ],
)
def test_numbers_whose_format_is_certain_are_read(tmp_path: Path, cells: list[str], values: list[float]) -> None:
    assert column(tmp_path, cells) == values


@pytest.mark.parametrize(
    ("cells", "cell", "words"),
    [
        (["5,259", "10,042"], "'5,259'", "can be read as 5.259 or as 5259; set tabular.decimal or tabular.thousands"),
        (["1.234", "5.678"], "'1.234'", "can be read as 1.234 or as 1234"),
        (["1,234,567", "2"], "'1,234,567'", "thousands marks"),
        (["1 234", "56"], "'1 234'", "thousands marks"),
        (["377,19", "1.921"], "'1.921'", "thousands marks"),
        (["1,5", "2.5"], "'1,5'", "is not written with decimal '.', as '2.5' is"),
        (["1.234,5", "1,234.5"], "'1.234,5'", "is not written with decimal '.' and thousands ',', as '1,234.5' is"),
        (["$5", "6", "7"], "'6'", "has not the sign or unit of '$5'"),
        (["5 €", "5 $"], "'5 $'", "has not the sign"),
        (["12%", "0.12"], "'0.12'", "has not the sign or unit of '12%'"),
        (["(123)", "5", "6"], "'(123)'", "a negative number as accountants write it"),
        (["5-", "5", "6"], "'5-'", "a number with its sign behind it"),
        (["1_000", "5", "6"], "'1_000'", "a number with underscores"),
        (["0x1F", "5", "6"], "'0x1F'", "a hexadecimal number"),
        (["1.5D+03", "2.5"], "'1.5D+03'", "Fortran"),
        (["12 kg", "7 kg", "9 kg", "10 kg"], "'12 kg'", "the unit 'kg'"),
        (["1.2M", "300k", "5k", "7k"], "'1.2M'", "the unit 'M'"),
        (["9007199254740993", "5"], "'9007199254740993'", "an integer that a float64 may not hold exactly"),
        (["1e999", "5", "6", "7"], "'1e999'", "not a finite number"),
        (["5", "6", "high"], "'high'", "is not a number, and 67% of that column are"),
        (["5", "6", "<7"], "'<7'", "is not a number"),
    ],
)
def test_numbers_in_another_format_are_refused_with_cell_and_cure(
    tmp_path: Path, cells: list[str], cell: str, words: str
) -> None:
    said = refused(tmp_path, cells)
    place = next(line for line, each in enumerate(cells, start=2) if repr(each) == cell)
    assert f"d.csv, line {place}, column 'x': {cell}" in said
    assert words in said
    assert "tabular." in said


@pytest.mark.parametrize(
    ("cells", "settings", "values"),
    [
        (["5,259", "10,042"], {"thousands": ","}, [5259, 10042]),
        (["5,259", "10,042"], {"decimal": ","}, [5.259, 10.042]),
        (["5,259", "10,042"], {"decimal": "."}, [5259, 10042]),
        (["1.234", "5.678"], {"decimal": "."}, [1.234, 5.678]),
        (["1.234", "5.678"], {"decimal": ","}, [1234, 5678]),
        (["1.234", "5.678"], {"thousands": "."}, [1234, 5678]),
        (["1 234", "56"], {"thousands": "space"}, [1234, 56]),
        (["1'234", "56"], {"thousands": "'"}, [1234, 56]),
        (["9007199254740993", "5"], {"numeric": ("x",)}, [9007199254740992, 5]),
        (["007", "012"], {"numeric": ("x",)}, [7, 12]),
        (["-999", "5"], {"missing": ("-999",)}, [None, 5]),
        (["5", "6"], {"categorical": ("x",)}, ["5", "6"]),
    ],
)
def test_a_setting_decides(tmp_path: Path, cells: list[str], settings: dict[str, object], values: list[object]) -> None:
    found = column(tmp_path, cells, **settings)
    assert [None if value != value else value for value in found] == values


def test_a_setting_that_a_cell_contradicts_is_refused(tmp_path: Path) -> None:
    assert "'1.5'" in refused(tmp_path, ["1.5", "2,5"], decimal=",")
    assert "'1,234.5'" in refused(tmp_path, ["1,234.5", "2"], thousands="none")
    with pytest.raises(UsageError, match="the same as tabular.decimal"):
        TabularSettings(decimal=",", thousands=",")


def test_three_decimals_are_decimals_where_nothing_speaks_for_a_decimal_comma(tmp_path: Path) -> None:
    assert column(tmp_path, ["1.234", "5.678"], ",") == [1.234, 5.678]
    assert column(tmp_path, ["1.234", "5.678"], ";", beside="0.5") == [1.234, 5.678]
    assert "1.234 or as 1234" in refused(tmp_path, ["1.234", "5.678"], "\t", beside="0,5")


def test_the_german_table_equals_its_plain_twin(tmp_path: Path) -> None:
    numbers = [(i * 137.31 - 999, i / 7) for i in range(40)]

    def german(value: float, group: bool) -> str:
        text = f"{value:,.2f}".translate(str.maketrans(",.", ".,"))
        return text if group else text.replace(".", "")

    tables = [
        table(
            tmp_path,
            "\n".join(["a;b;target", *(f"{german(a, group)};{german(b, group)};{german(a, False)}" for a, b in numbers)]),
        )
        for group in (True, False)
    ]
    for one, two in zip(tables[0].columns, tables[1].columns, strict=True):
        assert np.array_equal(one.values, two.values)
    assert np.array_equal(tables[0].target, tables[1].target)
    assert "a: decimal ',' and thousands '.'" in tables[0].note


# -- codes, labels, dates, truth values -----------------------------------------------------------------------------------
def test_codes_with_leading_zeros_stay_texts(tmp_path: Path) -> None:
    assert column(tmp_path, ["01", "02", "10", "01"]) == ["01", "02", "10", "01"]
    assert column(tmp_path, ["00", "01", "A1", "02"]) == ["00", "01", "A1", "02"]
    many = [f"{i:05d}" for i in range(100)]
    assert "'00000' has a leading zero, and the column 100 different codes; name it in tabular.numeric" in refused(
        tmp_path, many
    )
    assert column(tmp_path, many, categorical=("x",)) == many


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["9007199254740993", "9007199254740994", "9007199254740992"], None),
        (["01", "1", "001"], ("001", "01", "1")),
        (["1", "2.0", "3"], ("1", "2", "3")),
        (["1.0", "1", "2"], ("1", "2")),
        (["true", "false", "true"], ("false", "true")),
        (["NA", "DE", "FR"], ("DE", "FR", "NA")),
    ],
)
def test_class_labels_are_compared_as_they_stand(tmp_path: Path, labels: list[str], classes: tuple[str, ...] | None) -> None:
    rows = ["x,target", *(f"{i},{labels[i % 3]}" for i in range(30))]
    found = table(tmp_path, "\n".join(rows))
    assert tuple(found.classes) == (classes or tuple(sorted(labels)))
    expected = classes or tuple(sorted(labels))
    normal = {"2.0": "2", "1.0": "1"} if classes in (("1", "2", "3"), ("1", "2")) else {}
    assert [expected[code] for code in found.target] == [normal.get(labels[i % 3], labels[i % 3]) for i in range(30)]


def test_very_long_cells_and_exponents_take_no_time(tmp_path: Path) -> None:
    long = "1 " * 50_000 + "x"
    assert column(tmp_path, [long, "a", "b"]) == [long, "a", "b"]
    labels = ["1e-999999999", "5"]
    found = table(tmp_path, "\n".join(["x,target", *(f"{i},{labels[i % 2]}" for i in range(20))]))
    assert tuple(found.classes) == ("1E-999999999", "5")


def test_a_large_integer_to_regress_on_must_be_asked_for(tmp_path: Path) -> None:
    rows = "\n".join(["x,target", *(f"{i},{2**53 + 2 * i}" for i in range(30))])
    with pytest.raises(UsageError, match="30 different values in 30 rows: too many for classes"):
        table(tmp_path, rows)
    assert table(tmp_path, rows, kind="regression").target[1] == 2**53 + 2


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (["1970-01-02", "1970-02-01"], [1, 31]),
        (["1970-01-02 12:00", "1970-01-02T18:00:00"], [1.5, 1.75]),
        (["1970-01-02T00:00:00+06:00", "1970-01-01T00:00:00Z"], [0.75, 0]),
        (["02.01.1970", "1.2.1970"], [1, 31]),
        (["1/2/1970", "13/1/1970"], [31, 12]),
        (["1/2/1970", "1/13/1970"], [1, 12]),
        (["2 Jan 1970", "1 Feb 1970"], [1, 31]),
        (["06:30", "12:00:36"], [6.5, 12.01]),
        (["1970-01", "1970-02"], [0, 31]),
    ],
)
def test_dates_are_days_and_times_are_hours(tmp_path: Path, cells: list[str], days: list[float]) -> None:
    assert column(tmp_path, cells) == pytest.approx(days)
    assert (
        "1 number, 1 date"
        in table(tmp_path, "\n".join(["x;y;target", *(f"{c};7;{i}" for i, c in enumerate(cells))]), kind="regression").note
    )


@pytest.mark.parametrize(
    ("cells", "cell", "words"),
    [
        (["1/2/2024", "3/4/2024"], "'1/2/2024'", "does not say which number is the day; tabular.dates"),
        (["01.02.24", "03.04.24"], "'01.02.24'", "a year of two digits"),
        (["2024-02-30", "2024-02-28"], "'2024-02-30'", "not a possible date"),
        (["2024-02-01", "2024-02-02", "soon"], "'soon'", "has another form than '2024-02-01'"),
        (["2024-02-01", "01.02.2024"], "'01.02.2024'", "has another form"),
        (["2024-02-01 10:00Z", "2024-02-01 10:00"], "'2024-02-01 10:00'", "has another form"),
    ],
)
def test_dates_that_are_not_certain_are_refused(tmp_path: Path, cells: list[str], cell: str, words: str) -> None:
    said = refused(tmp_path, cells)
    assert f"column 'x': {cell}" in said
    assert words in said
    assert column(tmp_path, cells, dates="text") == cells


def test_the_order_of_a_date_is_a_setting() -> None:
    assert read_dates(["1/2/1970"], "dmy") == {"1/2/1970": 31}
    assert read_dates(["1/2/1970"], "mdy") == {"1/2/1970": 1}
    assert read_dates(["70/01/02"], "ymd") == {"70/01/02": 1}


def test_truth_values_are_one_category_each_whatever_their_case(tmp_path: Path) -> None:
    assert column(tmp_path, ["True", "FALSE", "true", ""]) == ["true", "false", "true", None]


# -- header, index, rows --------------------------------------------------------------------------------------------------
def test_an_index_that_pandas_or_r_wrote_is_left_out_and_said(tmp_path: Path) -> None:
    for head, first in ((",x,target", "{i}"), ("Unnamed: 0,x,target", "{i}"), ('"","x","target"', '"{n}"')):
        rows = [head, *(f"{first.format(i=i, n=i + 1)},{i / 3},{i / 7}" for i in range(20))]
        found = table(tmp_path, "\n".join(rows))
        assert list(found.names) == ["x"]
        assert "first column without a name (row numbers) left out" in found.note
    rows = ['"x" "target"', *(f'"row {i}" {i / 3} {i / 7}' for i in range(20))]
    assert list(table(tmp_path, "\n".join(rows), delimiter="space").names) == ["x"]
    rows = [",x,target", *(f"{'ab'[i % 2]},{i / 3},{i / 7}" for i in range(20))]
    assert list(table(tmp_path, "\n".join(rows)).names) == ["column 1", "x"]
    rows = ["id,x,target", *(f"{i},{i / 3},{i / 7}" for i in range(20))]
    assert list(table(tmp_path, "\n".join(rows), index="id").names) == ["x"]
    assert "id counts the rows (tabular.drop leaves it out)" in table(tmp_path, "\n".join(rows)).note
    rows = [",x,target", *(f"{i},{i / 3},{i / 7}" for i in range(20))]
    assert list(table(tmp_path, "\n".join(rows), index="none").names) == ["column 1", "x"]


def test_a_column_of_nothing_is_left_out_and_numbers_are_no_header(tmp_path: Path) -> None:
    found = table(tmp_path, "\n".join(["x,target,", *(f"{i / 3},{i / 7}," for i in range(20))]))
    assert list(found.names) == ["x"]
    assert "without name and content left out" in found.note
    rows = "\n".join(f"{i / 3:.2f},{i / 7:.2f},a" for i in range(20))
    with pytest.raises(UsageError, match=r"expected a header line of column names, found numbers .*tabular.header=false"):
        table(tmp_path, rows, target="a")
    assert list(table(tmp_path, rows, header=False, target="column 2").names) == ["column 1", "column 3"]


def test_encodings_and_excels_first_line(tmp_path: Path) -> None:
    rows = "größe;target\n" + "\n".join(f"{i},5;{i / 7:.3f}".replace(".", ",") for i in range(20))
    for encoding, setting in (("utf-8-sig", "auto"), ("utf-16", "auto"), ("cp1252", "cp1252"), ("utf-16-le", "utf-16-le")):
        assert list(table(tmp_path, rows.encode(encoding), encoding=setting).names) == ["größe"]
    assert list(table(tmp_path, f"sep=;\r\n{rows}").names) == ["größe"]
    with pytest.raises(UsageError, match="line 1: not utf-8 text; set tabular.encoding"):
        table(tmp_path, rows.encode("cp1252"))


# -- any known form under any name ----------------------------------------------------------------------------------------
def plain(count: int = 30) -> str:
    return "\n".join(["x,target", *(f"{i / 3},{i / 7}" for i in range(count))]) + "\n"


def test_any_form_is_found_by_name(tmp_path: Path) -> None:
    def find(name: str) -> Table:
        return read_table(Request("tabular", name, data_dirs=(tmp_path,)), TabularSettings())

    (tmp_path / "a.CSV.gz").write_bytes(gzip.compress(plain().encode()))
    (tmp_path / "b.tsv.xz").write_bytes(lzma.compress(plain().replace(",", "\t").encode()))
    (tmp_path / "c.jsonl.bz2").write_bytes(bz2.compress(b"".join(b'{"x": %d, "target": %d.5}\n' % (i, i) for i in range(30))))
    (tmp_path / "d.json").write_text(json.dumps([{"x": i / 3, "target": i / 7} for i in range(30)]))
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("inner/e.csv", plain())
        archive.writestr("__MACOSX/inner/._e.csv", "x")
    np.savez(tmp_path / "f.npz", X=np.arange(60.0).reshape(30, 2), y=np.arange(30) % 3 + 2**60)
    (tmp_path / "g/data").mkdir(parents=True)
    (tmp_path / "g/data/part.txt").write_text(plain().replace(",", ";"))
    for name in ("._g.csv", ".DS_Store", "g/Thumbs.db", "g/data/notes.pdf"):
        (tmp_path / name).write_text("")
    for name in "abcdeg":
        assert list(find(name).names) == ["x"], name
        assert len(find(name)) == 30
    assert find("f").classes == (str(2**60), str(2**60 + 1), str(2**60 + 2))
    with pytest.raises(DataMissing, match=r"'h' of task 'tabular' not found: looked in .* for a folder 'h', or such a file"):
        find("h")


def test_ranking_data_and_svmlight_under_any_name(tmp_path: Path) -> None:
    lines = [f"{i % 3} qid:{i // 4} 1:{i} 3:0.5 # doc {i}" for i in range(80)]
    (tmp_path / "mslr.txt").write_text("\ufeff" + "\n".join(lines))
    found = read_table(Request("tabular", "mslr", data_dirs=(tmp_path,)), TabularSettings())
    assert list(found.names) == ["1", "2", "3"]
    assert "20 queries, split by query" in found.note
    queries = np.arange(80) // 4
    assert found.parts is not None
    for query in range(20):
        assert len(set(found.parts[queries == query])) == 1
    assert [int((found.parts == part).sum()) for part in (TRAIN, VAL, TEST)] == [56, 8, 16]
    (tmp_path / "web").mkdir()
    for part in range(1, 6):
        (tmp_path / f"web/s{part}.TXT").write_text("\n".join(f"1 qid:{10 * part + i} 1:{i}" for i in range(4)))
    found = read_any(tmp_path / "web", "web", TabularSettings(fold=2))
    assert "official fold 2" in found.note
    (tmp_path / "plain.svm").write_text("\n".join(f"{i / 7} 1:{i} 2:1" for i in range(30)))
    assert "30 rows without queries" in read_table(Request("tabular", "plain", data_dirs=(tmp_path,)), TabularSettings()).note


def test_a_feature_number_of_hundreds_of_millions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1 qid:1 1:1\n1 qid:2 400000000:1\n")
    with pytest.raises(UsageError, match="feature number 400,000,000, at most 100,000 are read"):
        read_any(tmp_path / "x.txt", "x", TabularSettings())


def test_parts_by_file_name_in_any_case_and_what_is_left_out(tmp_path: Path) -> None:
    for name, count in (("Adult-TRAIN.csv", 20), ("adult_test.csv.gz", 10), ("adult.dev.csv", 5)):
        data = plain(count).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (tmp_path / "codebook.xlsx").write_bytes(b"")
    found = read_any(tmp_path, "adult", TabularSettings())
    assert found.parts is not None
    assert [int((found.parts == part).sum()) for part in (TRAIN, VAL, TEST)] == [20, 5, 10]
    assert "1 file left out: .xlsx" in found.note


# -- splits by a column ---------------------------------------------------------------------------------------------------
def test_test_rows_of_another_year(tmp_path: Path) -> None:
    rows = "\n".join(["x,year,target", *(f"{i / 3},{2010 + i % 4},{i / 7}" for i in range(40))])
    found = table(tmp_path, rows, split_column="year", test_values=("2013",), val_values=("2012",))
    assert list(found.names) == ["x"]
    assert found.parts is not None
    assert [int((found.parts == part).sum()) for part in (TRAIN, VAL, TEST)] == [20, 10, 10]
    assert "test rows: year 2013" in found.note
    found = table(tmp_path, rows, split_column="year", test_values=("2013",), train_values=("2010",))
    assert len(found) == 20
    assert "20 rows of other values left out" in found.note
    for settings, words in (
        ({"test_values": ("2031",)}, "setting tabular.test_values='2031': no row has it in 'year'; it has 2010, 2011"),
        ({"test_values": ("2013",), "train_values": ("2013",)}, "named for two parts"),
        ({}, "name the test rows with tabular.test_values"),
    ):
        with pytest.raises(UsageError, match=words):
            table(tmp_path, rows, split_column="year", **settings)  # type: ignore[arg-type]


def gas(folder: Path, **changed: object) -> None:
    arrays = {
        "x": np.arange(700 * 3, dtype=np.float32).reshape(700, 3),
        "gas": (np.arange(700) % 6 + 1).astype(np.int8),
        "batch": (np.arange(700) % 5 + 1).astype(np.int8),
        "concentration": np.zeros(700, np.float32),
    }
    folder.mkdir(exist_ok=True)
    np.savez(folder / "gas_drift.npz", **{**arrays, **changed})  # type: ignore[arg-type]


def test_gas_sensors_are_tested_on_later_batches(tmp_path: Path) -> None:
    gas(tmp_path / "gas_sensor_drift")
    request = Request("tabular", "gas_sensor_drift", data_dirs=(tmp_path,))
    found = read_table(request, TabularSettings())
    assert found.parts is not None
    assert [int((found.parts == part).sum()) for part in (TRAIN, VAL, TEST)] == [280, 0, 420]
    assert found.classes[0] == "ethanol"
    splits = Tabular().load_data(request)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [252, 28, 420]
    one = read_table(request, TabularSettings(test_values=("4",)))
    assert (one.parts == TEST).sum() == 140
    with pytest.raises(UsageError, match="expected one of the test batches 3, 4, 5"):
        read_table(request, TabularSettings(test_values=("1",)))
    gas(tmp_path / "gas_sensor_drift", gas=np.full(700, 9))
    with pytest.raises(UsageError, match="gas is not numbered 1 to 6"):
        read_table(request, TabularSettings())


def test_bikes_are_tested_on_the_second_year(tmp_path: Path) -> None:
    names = (
        "instant,dteday,season,yr,mnth,hr,holiday,weekday,workingday,weathersit,temp,atemp,hum,windspeed,casual,registered,cnt"
    )
    (tmp_path / "bike_sharing").mkdir()
    rows = [f"{i},2011-01-{1 + i // 6:02},1,{i % 2},1,{i % 24},0,6,0,1,0.24,0.28,0.81,0,3,13,{i}" for i in range(60)]
    (tmp_path / "bike_sharing/hour.csv.gz").write_bytes(gzip.compress("\n".join([names, *rows]).encode()))
    found = read_table(Request("tabular", "bike_sharing", data_dirs=(tmp_path,)), TabularSettings())
    assert len(found.names) == 11
    assert not {"instant", "yr", "casual", "registered", "cnt", "dteday"} & set(found.names)
    assert found.target.tolist() == np.log1p(np.arange(60)).tolist()
    assert found.parts is not None
    assert found.parts.tolist() == [TRAIN, TEST] * 30
    assert found.groups is not None
    assert found.groups.tolist() == [i // 6 for i in range(60)], "the hours of a day are one group"
