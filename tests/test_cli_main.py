"""The command line as a whole: light imports, one-line errors, exit codes."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from ocd_bench import DataMissing, __version__
from ocd_bench.cli import BROKEN_PIPE, COMMANDS, DEFECT, DEPENDENCIES, main

HEAVY = {"torch", "numpy", "scipy", "rich", "pooch", "xgboost", "trimesh", "torchaudio", "matplotlib"}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_help_imports_nothing_heavy_and_names_every_command() -> None:
    said = python(
        "import sys\n"
        "from ocd_bench.cli import COMMANDS, main\n"
        "codes = [main(['--help']), *(main([name, '--help']) for name in COMMANDS)]\n"
        "print(codes, sorted({name.partition('.')[0] for name in sys.modules} & " + repr(HEAVY) + "))"
    )
    assert said.splitlines()[-1] == f"{[0] * (len(COMMANDS) + 1)} []"
    for name in COMMANDS:
        assert f"usage: ocd-bench {name} " in said


def test_every_command_is_a_module_with_add_parser_and_run() -> None:
    for name in COMMANDS:
        module = import_module(f"ocd_bench.cli.{name}")
        assert callable(module.add_parser)
        assert callable(module.run)


def test_the_package_itself_is_light() -> None:
    assert python(f"import sys, ocd_bench; print(sorted({HEAVY!r} & set(sys.modules)))").strip() == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ocd-bench {__version__}\n"


def test_the_end_of_a_command_collects_no_objects() -> None:
    said = python(
        "import atexit, gc\n"
        "from ocd_bench.cli import main\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000))\n"  # called last
        "main(['--version'])"
    )
    assert said.splitlines()[-1] == "True True"


def test_python_m() -> None:
    assert python("import runpy, sys; sys.argv[1:] = ['--version']\n"
                  "try: runpy.run_module('ocd_bench', run_name='__main__')\n"
                  "except SystemExit as stop: print(stop.code)") == f"ocd-bench {__version__}\n0\n"  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lst"], "unknown 'lst' (did you mean 'list'?); choose from run, list, config, data, report, compare, merge, plugin"),
        (
            ["list", "task"],
            "list: argument tasks|datasets|methods|plugins|settings|layers: unknown 'task' (did you mean 'tasks'?)",
        ),
        (["list", "--jsn"], "list: unknown option '--jsn' (did you mean '--json'?) (see ocd-bench list --help)"),
        (["list", "--js"], "list: unknown option '--js'"),  # no abbreviations
        (["list", "tasks", "methods"], "list: unknown argument 'methods'"),
        (["list", "tasks", "--preset", "quick"], "list: --preset is only for settings"),
        (["run"], "run: give --task NAME"),
        (["run", "--task", "x", "--presset=quick"], "unknown option '--presset' (did you mean '--preset'?)"),
        (["run", "--jobs", "two"], "run: argument --jobs: expected a whole number, not 'two' (see ocd-bench run --help)"),
        (["run", "--cell-timeout", "long"], "run: argument --cell-timeout: expected a number, not 'long'"),
        (["run", "--resume"], "run: unknown option '--resume' (see ocd-bench run --help)"),
        (["plugin", "chek", "x"], "plugin: argument new|check: unknown 'chek' (did you mean 'check'?)"),
        (["plugin", "check", "x", "--dataste", "y"], "plugin check: unknown option '--dataste' (did you mean '--dataset'?)"),
        ([], "the following arguments are required: COMMAND (see ocd-bench --help)"),
        (["run", "--task", "x", "--corruption", ""], "run: --corruption: empty; give a value, or leave it out"),
        (["run", "--task", "x", "--seeds="], "run: --seeds: empty; give a value, or leave it out"),
        (["run", "--out", "", "--task", "x"], "run: --out: empty; give a value, or leave it out"),
        (["compare", "", "x"], "compare: an empty argument (see ocd-bench compare --help)"),
        (["plugin", "check", ""], "plugin: an empty argument"),
    ],
)
def test_unknown_words_are_one_line_errors_with_a_suggestion(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("ocd-bench: error: ")
    assert said.err.count("\n") == 1
    assert message in said.err


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(args: object) -> int:
        raise error

    monkeypatch.setattr("ocd_bench.cli.list.run", run)
    return main(["list"])


def test_our_own_errors_are_one_line_with_their_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(DataMissing("no data\n  here"), monkeypatch) == 2
    assert capsys.readouterr().err == "ocd-bench: error: no data here\n"


def test_a_defect_keeps_its_traceback_and_does_not_look_like_a_regression(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(KeyError("lost"), monkeypatch) == DEFECT == 70
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "KeyError: 'lost'" in said


def test_a_missing_dependency_of_the_core_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"), monkeypatch) == 2
    assert capsys.readouterr().err == "ocd-bench: error: torch is not installed: pip install torch\n"
    assert raising(ModuleNotFoundError("No module named 'tensor'", name="tensor"), monkeypatch) == DEFECT


def test_the_dependencies_are_those_that_are_declared() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(re.match(r"[\w-]+", text)[0] for text in project["dependencies"]) == sorted(DEPENDENCIES)  # type: ignore[index]


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert raising(KeyboardInterrupt(), monkeypatch) == 130


def test_a_closed_pipe_is_no_error() -> None:
    words = [sys.executable, "-m", "ocd_bench", "list", "plugins"]
    command = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert command.stdout is not None
    command.stdout.close()
    said = command.communicate(timeout=60)[1]
    assert command.returncode == BROKEN_PIPE
    assert "Broken" not in said
