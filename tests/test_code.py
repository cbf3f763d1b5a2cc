"""Fingerprints cover imported code without running it, and a file of it that cannot be read is an error."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocd_bench.errors import UsageError
from ocd_bench.runner import code
from ocd_bench.runner.code import code_of, file_of
from tests.faulty import PLUGIN, numbers, run_here, write_plugin


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A loaded package ``garden``. Its ``bed`` and ``shed`` are imported only inside functions, so they are not loaded."""
    files = {
        "__init__.py": "from garden.plan import area\n",
        "plan.py": "def area():\n    from garden.bed import width\n    from garden.shed import tools\n    import xgboost\n",
        "bed.py": "raise RuntimeError('this code must not run')\nwidth = 2\n",
        "shed/__init__.py": "raise ImportError('this package cannot be imported')\n",
        "shed/tools.py": "import pyarrow\n",
    }
    folder = tmp_path / "garden"
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("garden")
    code.forget()
    yield folder
    code.forget()
    for name in [name for name in sys.modules if name.partition(".")[0] == "garden"]:
        del sys.modules[name]


def test_imports_are_followed_without_running_them(package: Path) -> None:
    found = code_of(["garden.plan"])
    assert sorted(found.sources) == ["garden.bed", "garden.plan", "garden.shed", "garden.shed.tools"]
    assert found.packages == {"pyarrow", "xgboost"}
    assert sorted(name for name in sys.modules if name.startswith("garden")) == ["garden", "garden.plan"]


def test_a_name_that_is_no_module_has_no_file(package: Path) -> None:
    assert [file_of(name) for name in ("garden.plan.area", "garden.weeds", "no_such_garden", "sys", "", ".plan")] == [None] * 6


def test_a_file_that_cannot_be_read_is_an_error_and_is_read_again_later(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise OSError(24, "Too many open files", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(UsageError, match=r"plan\.py: cannot read .* module garden\.plan \(Too many open files\)"):
            code_of(["garden.plan"])
    assert "xgboost" in code_of(["garden.plan"]).packages


@pytest.mark.parametrize("left", ["def area(:\n", "\0\0"])
def test_half_of_a_loaded_file_is_an_error(package: Path, left: str) -> None:
    (package / "plan.py").write_text(left)
    with pytest.raises(UsageError, match=r"plan\.py: .*it is not Python"):
        code_of(["garden.plan"])


def test_a_loaded_file_that_is_gone_is_an_error(package: Path) -> None:
    (package / "plan.py").unlink()
    with pytest.raises(UsageError, match=r"plan\.py: .*the file is gone"):
        code_of(["garden.plan"])


def test_code_for_another_python_that_is_not_loaded_is_no_error(package: Path) -> None:
    (package / "bed.py").write_text("print 'Python 2'\n")
    assert "garden.bed" in code_of(["garden.plan"]).sources


def test_a_run_that_cannot_read_the_code_stops_and_keeps_the_finished_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The task's file is away for a moment, as while an editor or git replaces it."""
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    plugin, out = write_plugin(tmp_path / "plugin"), tmp_path / "out"
    assert run_here(plugin, "--methods", "base", "--out", str(out)) == 0
    before = numbers(out)
    read = Path.read_bytes

    def absent(path: Path) -> bytes:
        if path.name == plugin.name:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return read(path)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", absent)
        assert run_here(plugin, "--methods", "base", "--out", str(out)) == 2
    said = capsys.readouterr().err
    assert len([line for line in said.splitlines() if "dots_plugin.py: cannot read the code" in line]) == 1
    assert "measured again" not in said
    assert run_here(plugin, "--methods", "base", "--out", str(out)) == 0
    assert "measured again" not in capsys.readouterr().err
    assert numbers(out) == before


def test_a_file_replaced_during_a_run_makes_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The plugin's file is half written from the moment when the first sample is loaded, in a worker of its own."""
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    text = PLUGIN.replace("        random =", "        open(__file__, 'w').write('class Dots(')\n        random =", 1)
    out, plugin = tmp_path / "out", write_plugin(tmp_path / "plugin", text)
    for _ in range(2):
        write_plugin(plugin.parent, text)
        assert run_here(plugin, "--methods", "base", "--seeds", "2", "--out", str(out)) == 0
        assert plugin.read_text() == "class Dots("
    assert "measured again" not in capsys.readouterr().err
