"""``ocd-bench list``: its JSON objects, and the plain table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocd_bench.cli import main

PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar

import ocd_bench

class Wine(ocd_bench.Task):
    name, primary_metric, description = "wine", ("accuracy", "rmse"), "three cultivars"
    presets = {"quick": {"shake.axes": (2,)}}
    def load_data(self, request): ...
    def base_model(self, splits, request): ...
    def loss(self, output, target): ...
    def metrics(self, output, target): ...
    def datasets(self):
        return ocd_bench.Dataset("small", "178 rows", embedded=True), ocd_bench.Dataset("large")

class Beer(Wine):
    name, requires = "beer", ("no_such_module",)
    def datasets(self): raise OSError("no list of beers")

@dataclass(frozen=True)
class ShakeSettings:
    force: float = ocd_bench.setting(1.0, least=0, most=9, unit="newton", help="How hard it is shaken.")
    axes: tuple[int, ...] = (0, 1)

    presets: ClassVar = {"quick": {"force": 2.0}}

class Shake(ocd_bench.Method):
    name, description, section, default, Settings = "shake", "turns it over", "shake", False, ShakeSettings
    def fit(self, context): ...

@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Wine())
    register(Beer())

@ocd_bench.hookimpl
def ocd_bench_register_methods(register):
    register(Shake())
"""

ALL_PLUGINS = {name: value for name, value in os.environ.items() if name != "OCD_BENCH_DISABLE_PLUGINS"}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other plugin, and no built-in method."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCD_BENCH_DISABLE_PLUGINS", "all")
    monkeypatch.setattr("ocd_bench.methods.catalogue.CARDS", ())
    Path("wine.py").write_text(PLUGIN)


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["list", *words, "--json", "--plugin", "wine.py"]) == 0
    return json.loads(capsys.readouterr().out)


def test_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    wine, beer = listed(capsys, "tasks")["tasks"]
    assert wine == {
        "name": "wine",
        "description": "three cultivars",
        "primary_metric": ["accuracy", "rmse"],
        "datasets": ["small", "large"],
        "available": True,
        "reason": None,
        "plugin": "wine.py",
    }
    assert (beer["available"], beer["reason"]) == (False, "unavailable: pip install no_such_module")


def test_datasets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "datasets", "--json", "--plugin", "wine.py"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "datasets": [
            {"name": "small", "task": "wine", "description": "178 rows", "embedded": True, "default": True},
            {"name": "large", "task": "wine", "description": "", "embedded": False, "default": False},
        ]
    }
    assert "task 'beer' of plugin 'wine.py': datasets() failed: OSError: no list of beers" in said.err


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, "methods")["methods"] == [
        {
            "name": "shake",
            "description": "turns it over",
            "default": False,
            "uses_test_labels": False,
            "leads": False,
            "follows": False,
            "chosen": "fixed",
            "section": "shake",
            "plugin": "wine.py",
        }
    ]


def test_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys, "plugins")["plugins"]
    assert [sorted(row) for row in rows] == [["hooks", "name", "origin", "version"]] * 2
    assert rows[1]["hooks"] == ["ocd_bench_register_methods", "ocd_bench_register_tasks"]


def test_everything_without_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(listed(capsys)) == ["tasks", "datasets", "methods", "plugins"]


def test_text_is_plain_and_aligned_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tasks", "--plugin", "wine.py"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "task  plugin   datasets      description",
        "wine  wine.py  small, large  three cultivars",
        "beer  wine.py                unavailable: pip install no_such_module",
    ]


def test_on_a_terminal_it_is_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["list", "methods", "--plugin", "wine.py"]) == 0
    said = capsys.readouterr().out
    assert "shake" in said
    assert "─" in said


def test_without_tasks_it_says_how_to_install_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "no tasks are installed: pip install -r requirements.txt" in capsys.readouterr().out
    assert main(["list", "tasks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"tasks": []}


# -- settings -------------------------------------------------------------------------------------------------------------
def test_settings_of_a_section_under_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    said = listed(capsys, "settings", "shake", "--preset", "quick")
    assert said["preset"] == "quick"
    force, axes = said["settings"]
    assert force == {
        "key": "shake.force",
        "section": "shake",
        "name": "force",
        "type": "float",
        "expected": "a number, 0 to 9",
        "value": 2.0,
        "default": 1.0,
        "tasks": {},
        "limits": {"least": 0, "most": 9},
        "unit": "newton",
        "help": "How hard it is shaken.",
    }
    assert (axes["type"], axes["value"], axes["tasks"], axes["help"]) == ("list of int", [0, 1], {"wine": [2], "beer": [2]}, "")


def test_settings_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "settings", "shake.force", "--plugin", "wine.py"]) == 0
    assert capsys.readouterr().out == "shake.force=1.0  (a number, 0 to 9) [newton]\n    How hard it is shaken.\n"


def test_settings_of_all_sections(capsys: pytest.CaptureFixture[str]) -> None:
    sections = dict.fromkeys(row["section"] for row in listed(capsys, "settings")["settings"])
    assert list(sections) == ["base", "select", "run", "ray", "shake"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shaek"], "no settings 'shaek' (did you mean 'shake'?); sections: base, select, run, ray, shake"),
        (["shake.forse"], "no settings 'shake.forse' (did you mean 'shake.force'?)"),
        (["shake", "--preset", "quik"], "unknown preset 'quik' (did you mean 'quick'?)"),
    ],
)
def test_unknown_settings_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "settings", *words, "--plugin", "wine.py"]) == 2
    assert message in capsys.readouterr().err


def test_list_layers_refuses_an_unknown_task_without_torch() -> None:
    code = (
        "import sys; from ocd_bench.cli import main; code = main(['list', 'layers', '--task', 'nosuch']); "
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ALL_PLUGINS, check=True)
    assert done.stdout == "2 False\n"
    assert done.stderr.startswith("ocd-bench: error: unknown task 'nosuch'; tasks: ")


def test_list_imports_no_torch() -> None:
    """In a process of its own, with every plugin that is installed."""
    code = (
        "import sys; from ocd_bench.cli import main; codes = [main(['list']), main(['list', 'settings'])]; "
        "print(codes, [name for name in ('torch', 'sklearn', 'torchaudio') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ALL_PLUGINS, check=True)
    assert done.stderr.splitlines()[-1] == "[0, 0] []"
