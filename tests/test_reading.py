"""The reading layer: bounds, links, encodings, stray files, and errors that are one printable line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ocd_bench import DataMissing, Dataset, Request, Source, UsageError
from ocd_bench.reading import (
    Notes,
    Sheet,
    SheetOptions,
    Zip,
    check_encoding,
    find_dataset,
    guarded,
    is_stray,
    left_out,
    limits,
    list_folder,
    printable,
    quoted,
    read_bytes,
    read_json,
    read_lines,
    read_npy,
    read_npz,
    read_sheet,
    reading,
    split_name,
)


def said(path: Path, read: object, *arguments: object) -> str:
    """The message of a refusal: it names the file and is one printable line."""
    with pytest.raises(UsageError) as caught:
        list(read(path, *arguments))  # type: ignore[operator]
    message = str(caught.value)
    assert path.name in message
    assert message == printable(message)
    return message


# -- the guard ------------------------------------------------------------------------------------------------------------
class Panic(BaseException):
    """As pyo3 raises where Rust code panics."""


Panic.__module__ = "pyo3_runtime"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "more memory than there is"),
        (RecursionError("deep"), "nested too deeply"),
        (struct.error("unpack requires 4 bytes"), "damaged or of another format"),
        (zipfile.BadZipFile("File is not a zip file"), "damaged"),
        (lzma.LZMAError("Corrupt input data"), "damaged"),
        (OverflowError("int too large"), "damaged"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not valid text"),
        (EOFError(), "damaged, it breaks off"),
        (KeyError("frames"), "'frames' is missing"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (NotImplementedError("That compression method is not supported"), "not supported"),
        (IndexError(), "IndexError"),
        (Panic("a parser in Rust gave up"), "gave up"),
        (ValueError("two\nlines \x1b[31m \u202e \ud800"), r"two lines \\x1b\[31m \\u202e \\ud800"),
    ],
)
def test_whatever_a_parser_raises_is_one_line_with_the_files_name(error: BaseException, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught, reading("a.bin"):
        raise error
    assert str(caught.value).startswith("a.bin: ")
    assert "\n" not in str(caught.value)

    @guarded
    def reader(path: str) -> None:
        raise error

    with pytest.raises(UsageError, match=words):
        reader("b.bin")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), GeneratorExit(), UsageError("row 7: no number")])
def test_what_is_no_fault_of_a_parser_passes_the_guard(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, reading("a.bin"):
        raise error
    assert caught.value is error


def test_a_message_never_holds_what_a_terminal_obeys() -> None:
    assert str(UsageError("a\x00b\x1b]0;title\x07 \u202etxt.exe \u2066 \ud83d \x9b31m")) == (
        r"a\x00b\x1b]0;title\x07 \u202etxt.exe \u2066 \ud83d \x9b31m"
    )
    assert str(UsageError("first\n  second")) == "first second"
    assert printable("Zürich 東京 😀") == "Zürich 東京 😀"
    assert quoted("x" * 100) == f"'{'x' * 80}'…"


# -- files ----------------------------------------------------------------------------------------------------------------
def test_pipes_sockets_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "a named pipe, expected a regular file" in said(tmp_path / "pipe.csv", read_bytes)
    assert "a named pipe" in said(tmp_path / "pipe.csv", read_lines)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    assert "cannot be read" in said(tmp_path / "s", read_bytes)
    server.close()
    assert "a device" in said(Path("/dev/zero"), read_bytes)
    assert "a folder" in said(tmp_path, read_bytes)


def test_links_are_followed_as_long_as_they_lead_somewhere(tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_bytes(b"a\n")
    (tmp_path / "good.csv").symlink_to("there.csv")
    assert read_bytes(tmp_path / "good.csv") == b"a\n"
    (tmp_path / "gone.csv").symlink_to("nowhere.csv")
    assert "a link to 'nowhere.csv', which is not there" in said(tmp_path / "gone.csv", read_bytes)
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert "leads in a circle" in said(tmp_path / "loop.csv", read_bytes)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="loop.csv: a link that leads in a circle"):
        list_folder(tmp_path, (".csv",))
    (tmp_path / "loop.csv").unlink()
    with pytest.raises(UsageError, match="up: a link that leads in a circle"):
        list_folder(tmp_path, (".csv",), 9)
    assert "not a possible file name" in str(pytest.raises(UsageError, read_bytes, Path("a\0b")).value)


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse.csv"
    with path.open("wb") as file:
        file.truncate(2**42)
    assert "takes 4.1e+03 GiB, the limit is 4 GiB; OCD_BENCH_READ_LIMIT sets another one" in said(path, read_bytes)
    (tmp_path / "small").write_bytes(b"12345")
    monkeypatch.setenv(limits.VARIABLE, "4")
    assert "takes 5 bytes, the limit is 4 bytes" in said(tmp_path / "small", read_bytes)
    monkeypatch.setenv(limits.VARIABLE, "1k")
    assert read_bytes(tmp_path / "small") == b"12345"
    monkeypatch.setenv(limits.VARIABLE, "much")
    with pytest.raises(UsageError, match="expected a size in bytes, such as 8G"):
        read_bytes(tmp_path / "small")


@pytest.mark.parametrize(
    ("pack", "name"),
    [(gzip.compress, "a.csv.gz"), (bz2.compress, "a.csv.bz2"), (lzma.compress, "a.csv.xz"), (None, "a.csv.zip")],
)
def test_every_compression_is_read_and_a_bomb_is_not_unpacked(
    tmp_path: Path, pack: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SMALL", 2**16)

    def packed(data: bytes) -> Path:
        if pack is None:
            with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("__MACOSX/._a.csv", b"stray")
                archive.writestr("a.csv", data)
        else:
            (tmp_path / name).write_bytes(pack(data))  # type: ignore[operator]
        return tmp_path / name

    assert list(read_lines(packed(b"x,y\r\n1,2\r\n"))) == ["x,y\r\n", "1,2\r\n"]
    assert "when unpacked" in said(packed(b"1,2\n" * limits.SMALL), read_lines)
    path = packed(np.random.default_rng(0).bytes(2000))
    path.write_bytes(path.read_bytes()[:-300])
    assert said(path, read_lines)


def test_several_compressed_parts_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    for name, pack in (("a.gz", gzip.compress), ("a.bz2", bz2.compress), ("a.xz", lzma.compress)):
        (tmp_path / name).write_bytes(pack(b"one\n") + pack(b"two\n"))
        assert list(read_lines(tmp_path / name)) == ["one\n", "two\n"]


def test_an_xz_dictionary_of_gigabytes_is_not_allocated(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}]
    (tmp_path / "a.xz").write_bytes(lzma.compress(b"hello", filters=filters))
    assert "Memory usage limit" in said(tmp_path / "a.xz", read_lines)


def test_zips_of_several_files_strange_methods_and_passwords_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one.csv", "a")
        archive.writestr("two.csv", "a", zipfile.ZIP_LZMA)
    assert "a zip of 2 files, expected one; unpack it" in said(tmp_path / "a.zip", read_lines)
    with Zip(tmp_path / "a.zip") as archive:
        assert archive.names == ["one.csv", "two.csv"]
        assert archive.read("one.csv") == b"a"
        with pytest.raises(UsageError, match=r"a.zip: two.csv: packed by zip method 14"):
            archive.read("two.csv")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with Zip(tmp_path / "a.zip") as archive, pytest.raises(UsageError, match="encrypted"):
        archive.read("one.csv")
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06 no zip")
    with pytest.raises(UsageError, match="get the zip file again"):
        Zip(tmp_path / "a.zip")


# -- text -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes("größe,東京\n1,2\n".encode(encoding))
    assert list(read_lines(tmp_path / "a.csv")) == ["größe,東京\n", "1,2\n"]
    assert next(read_lines(tmp_path / "a.csv", encoding)) == "größe,東京\n"


def test_another_encoding_is_refused_with_its_line_and_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n" * 5000 + "größe\n".encode("latin-1"))
    assert "line 5001: not utf-8 text; set tabular.encoding, for example latin-1" in said(
        path, read_lines, "auto", "tabular.encoding"
    )
    assert list(read_lines(path, "latin-1"))[-1] == "größe\n"
    path.write_bytes("a,b\n".encode("utf-16-le"))
    assert "NUL characters: no text file, or UTF-16 without its mark" in said(path, read_lines)
    with pytest.raises(UsageError, match="setting tabular.encoding='klingon': no known encoding"):
        check_encoding("tabular.encoding", "klingon")
    check_encoding("tabular.encoding", "auto")


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocd_bench.reading.text.LINE_CHARACTERS", 100)
    (tmp_path / "a.csv").write_bytes(b"short\n" + b"x" * 101)
    assert "line 2: longer than 100 characters" in said(tmp_path / "a.csv", read_lines)


def test_json_is_bounded_in_depth_and_size(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": [1]}')
    assert read_json(path) == {"a": [1]}
    for content, words in ((b"[" * 200_000, "nested too deeply"), (b'{"a": ', "damaged"), (b"\xff", "not valid text")):
        path.write_bytes(content)
        assert words in said(path, read_json)
    path.write_bytes(b" " * (limits.JSON_BYTES + 1))
    assert "the limit is 32 MiB" in said(path, read_json)


# -- arrays ---------------------------------------------------------------------------------------------------------------
def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    size = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + header.encode() + data


def test_arrays_are_those_that_numpy_reads(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "a": random.normal(size=(3, 4)),
        "b": np.asfortranarray(random.integers(0, 9, (2, 3, 4))),
        "c": np.array(5, np.int8),
        "d": np.zeros((0, 3), np.float32),
        "e": np.array(["one", "three"]),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_npz(tmp_path / "a.npz")
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)
            assert found[name].flags.writeable
        assert list(read_npz(tmp_path / "a.npz", ["c"])) == ["c"]
    np.save(tmp_path / "a.npy", arrays["b"])
    assert np.array_equal(read_npy(tmp_path / "a.npy"), arrays["b"])
    assert "no array 'x' in it; it has a, b, c, d, e" in said(tmp_path / "a.npz", read_npz, ["x"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000,), }\n"), "which is not what follows"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }\n", b"1234567"), "which is not what follows"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }\n", b"1234567"), "not what follows"),
        (npy("{'descr': '<U0', 'fortran_order': False, 'shape': (4000000000,), }\n"), "not what follows"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"\x80\x04N."), "Python objects"),
        (npy("{'descr': '<f8'}\n"), "damaged"),
        (npy("{" * 5000), "damaged"),
        (npy("x", version=b"\x09\x00"), "version 9.0"),
        (b"\x80\x04N.", "damaged"),
        (b"", "damaged"),
    ],
)
def test_array_headers_that_promise_what_is_not_there_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    assert words in said(tmp_path / "a.npy", read_npy)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("X.npy", content)
    message = said(tmp_path / "a.npz", read_npz)
    assert words in message
    assert "X.npy" in message


def test_an_npz_that_unpacks_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", X=np.zeros(10_000), y=np.zeros(10_000))
    monkeypatch.setenv(limits.VARIABLE, "100k")
    assert "the limit is 100 KiB" in said(tmp_path / "a.npz", read_npz)
    assert len(read_npz(tmp_path / "a.npz", ["y"])["y"]) == 10_000


# -- names, folders, notes ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["._a.csv", ".DS_Store", "Thumbs.db", "THUMBS.DB", "desktop.ini", "__MACOSX", "a.csv~", "#a.csv#", "~$a.xlsx",
             ".hidden.csv", "a.csv.bak", ".a.csv.swp", "a.csv.part", ".ipynb_checkpoints"]
)  # fmt: skip
def test_stray_files_are_no_data(name: str) -> None:
    assert is_stray(name)
    assert not is_stray("a.csv")
    assert not is_stray("thumbs.csv")


def test_endings_in_any_case_and_compression() -> None:
    assert split_name("Train.CSV.GZ") == ("Train", ".csv", ".gz")
    assert split_name("a.b.jsonl") == ("a.b", ".jsonl", "")
    assert split_name("data.zip") == ("data", "", ".zip")
    assert split_name("README") == ("README", "", "")
    assert split_name(".csv") == (".csv", "", "")


def test_a_folder_is_listed_without_strays_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    for name in (
        "b.csv",
        "a.CSV.gz",
        "c.jfif",
        "d.jfif",
        "e",
        "README.md",
        "LICENSE",
        "._b.csv",
        "sub/x.csv",
        "__MACOSX/y.csv",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list_folder(tmp_path, (".csv",)) == (found := list_folder(tmp_path, (".csv",), 1))
    assert found.files == ("a.CSV.gz", "b.csv")
    assert left_out(found.left_out) == "3 files left out: .jfif, no ending"
    assert list_folder(tmp_path, (".csv",), 2).files == ("a.CSV.gz", "b.csv", "sub/x.csv")
    with pytest.raises(UsageError, match="cannot be read"):
        list_folder(tmp_path / "absent", (".csv",))


def test_notes_are_one_line_and_say_each_thing_once() -> None:
    notes = Notes("8 numbers, 1 date", "")
    notes.add("8 numbers, 1 date")
    notes.left_out(["a.jfif"])
    notes.left_out([])
    notes.add("column \x1b[1m")
    assert str(notes) == r"8 numbers, 1 date; 1 file left out: .jfif; column \x1b[1m"


# -- finding --------------------------------------------------------------------------------------------------------------
def asked(name: str, *folders: Path) -> Request:
    return Request("demo", name, data_dirs=folders)


def test_a_dataset_is_found_as_folder_or_file_whatever_its_case_and_compression(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    for name in ("mslr.txt", "fox.NPZ", "Train.CSV.gz", "whole.zip", "both.csv", "both.csv.gz", "x.csv", "x.tsv", "._mslr.txt"):
        (second / name).write_bytes(b"")
    (first / "scene").mkdir()
    (second / "scene").mkdir()
    (second / "text").mkdir()
    (second / "text" / "SST").mkdir()
    endings = (".csv", ".tsv", ".txt", ".npz", ".zip")
    for name, place in (
        ("mslr", second / "mslr.txt"),
        ("mslr.txt", second / "mslr.txt"),
        ("fox", second / "fox.NPZ"),
        ("train", second / "Train.CSV.gz"),
        ("whole", second / "whole.zip"),
        ("both", second / "both.csv"),
        ("scene", first / "scene"),
    ):
        assert find_dataset(asked(name, first, second), endings) == place
    assert find_dataset(asked("sst", first, second), endings, ["text/sst"]) == second / "text" / "SST"
    with pytest.raises(UsageError, match="x.csv and x.tsv could both be meant by 'x'; rename one"):
        find_dataset(asked("x", second), endings)


def test_a_dataset_that_is_nowhere_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "sales.xlsx").write_bytes(b"")
    with pytest.raises(DataMissing, match=r"sales.xlsx is there, but only .csv, .tsv are read"):
        find_dataset(asked("sales", tmp_path), (".csv", ".tsv"))
    known = [Dataset("mnist", sources=(Source("https://example.org/a", "0", 1, "a"),)), Dataset("sst5")]
    with pytest.raises(DataMissing, match=r"looked in .* for a folder 'mnst', or such a file with .csv .*did you mean 'mnist'"):
        find_dataset(asked("mnst", tmp_path), (".csv",), known=known)
    with pytest.raises(DataMissing, match="run 'ocd-bench data fetch mnist'"):
        find_dataset(asked("mnist", tmp_path), (), known=known)
    with pytest.raises(DataMissing, match="'ocd-bench data list' says where it comes from"):
        find_dataset(asked("sst5", tmp_path), (), ["text/sst5"], known=known)


def test_the_layer_imports_no_torch() -> None:
    code = "import sys, ocd_bench.reading; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_stream_that_lies_about_its_size_is_cut_at_the_limit(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bin", b"\0" * 1_000_000)
    data = bytearray(buffer.getvalue())
    place = data.rindex(b"PK\x01\x02") + 24
    data[place : place + 4] = (10).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data)
    with Zip(tmp_path / "a.zip") as archive, pytest.raises(UsageError, match="a.zip: a.bin"):
        archive.read("a.bin")


# -- sheets ---------------------------------------------------------------------------------------------------------------
OPTIONS = SheetOptions("tabular")


def sheet(folder: Path, content: str | bytes, name: str = "a.csv", options: SheetOptions = OPTIONS) -> Sheet:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_sheet(folder / name, options)


def test_the_delimiter_is_the_one_that_splits_all_rows_alike(tmp_path: Path) -> None:
    assert sheet(tmp_path, 'name;"a, b, c, d";"e, f"\n1;2,5;3\n4;5,5;6\n').header == ("name", "a, b, c, d", "e, f")
    assert sheet(tmp_path, "a|b\n1,5|2\n3,5|4\n").rows == [["1,5", "2"], ["3,5", "4"]]
    assert sheet(tmp_path, "sep=|\r\na|b\r\n1|2\r\n").rows == [["1", "2"]]
    assert sheet(tmp_path, "a b\n1 2\n", options=SheetOptions("tabular", delimiter="space")).header == ("a", "b")
    assert sheet(tmp_path, "a  b\n 1   2 \n  3 4\n", "a.dat").rows == [["1", "2"], ["3", "4"]]
    assert sheet(tmp_path, "# made by hand\n# twice, or so\na,b,c\n1,2,3\n").lines[0] == 4
    assert sheet(tmp_path, "#id,b\n1,2\n").header == ("#id", "b")
    assert sheet(tmp_path, "a,b\r1,2\r").rows == [["1", "2"]]
    with pytest.raises(UsageError, match="setting tabular.delimiter=':': expected"):
        SheetOptions("tabular", delimiter=":")


def test_cells_know_their_line_and_ragged_rows_are_named(tmp_path: Path) -> None:
    found = sheet(tmp_path, 'a,b\n1,"two\nlines"\n\n,\n3,x\n')
    assert [(cell.line, cell.text) for cell in found.column("b")] == [(2, "two\nlines"), (6, "x")]
    with pytest.raises(UsageError, match=r"a.csv, line 4: 3 cells, but the header has 2; separated by ','"):
        sheet(tmp_path, "a,b\n1,2\n3,4\n5,6,7\n")
    with pytest.raises(UsageError, match=r"a.csv, line 2: 3 cells, but the header has 2"):
        sheet(tmp_path, "a,b\n1,2,5\n3,4\n5,6\n")
    assert sheet(tmp_path, "a,b\n1,2,\n3,4,\n").header == ("a", "b", "")
    with pytest.raises(UsageError, match=r"line 3: .*delimiter"):
        sheet(tmp_path, 'a,b\n1,2\n"3"x,4\n')


def test_row_names_of_r_and_rows_without_a_header(tmp_path: Path) -> None:
    found = sheet(tmp_path, '"a" "b"\n"r1" 1 2\n"r2" 3 4\n', options=SheetOptions("tabular", delimiter="space"))
    assert (found.header, found.rows, found.extra) == (("", "a", "b"), [["r1", "1", "2"], ["r2", "3", "4"]], True)
    assert sheet(tmp_path, "5.1,x\n4.9,y\n", options=SheetOptions("tabular", header=False)).header == ("column 1", "column 2")


def test_json_records_keep_their_numbers_as_they_stand(tmp_path: Path) -> None:
    lines = '{"a": 9007199254740993, "b": 1.50}\n\n{"b": null, "c": true, "a": "01"}\n{"c": [1]}\n'
    found = sheet(tmp_path, lines, "a.jsonl")
    assert found.header == ("a", "b", "c")
    assert found.rows == [["9007199254740993", "1.50", ""], ["01", "", "true"], ["", "", '["1"]']]
    assert list(found.lines) == [1, 3, 4]
    assert sheet(tmp_path, '[{"a": 12345678901234567890}]', "a.json").rows == [["12345678901234567890"]]
    with pytest.raises(UsageError, match=r"a.jsonl, line 2: cannot be read"):
        sheet(tmp_path, '{"a": 1}\n{"a": \n', "a.jsonl")
    with pytest.raises(UsageError, match=r"a.jsonl, line 1: .*nested too deeply"):
        sheet(tmp_path, "[" * 100_000, "a.jsonl")
    with pytest.raises(UsageError, match="expected a list of objects"):
        sheet(tmp_path, "{}", "a.json")


def test_parquet_gives_the_same_cells_as_text(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow, the extra named parquet")
    from pyarrow import parquet

    table = arrow.table({"a": [9007199254740993, None], "b": [0.1, 2.0], "c": ["01", "x"], "d": [True, None]})
    parquet.write_table(table, tmp_path / "a.parquet")
    found = read_sheet(tmp_path / "a.parquet", OPTIONS)
    assert found.rows == [["9007199254740993", "0.1", "01", "true"], ["", "2.0", "x", ""]]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(UsageError, match=r"a.parquet: "):
        read_sheet(tmp_path / "a.parquet", OPTIONS)


def test_too_many_columns_or_cells_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="200,001 columns, at most 100,000 are read"):
        sheet(tmp_path, "," * 200_000 + "a\n")
    monkeypatch.setattr("ocd_bench.reading.sheet.CELLS", 10)
    with pytest.raises(UsageError, match="line 5: more than 10 cells"):
        sheet(tmp_path, "a,b\n" + "1,2\n" * 9)
