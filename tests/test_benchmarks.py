"""The scripts of ``benchmarks/`` that wrap the command line: their settings exist, and bad input gets one line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ocd_bench.config import parse_assignment, resolve
from ocd_bench.methods import builtin
from tests.toy import ToyClasses

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_lever_of_the_ablation_changes_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)  # as Python does for the script itself
    methods = [method for method in builtin() if method.name == "ocd"]
    usual = resolve(ToyClasses(), methods, "quick").section("ocd")
    levers = load("ablation").LEVERS
    assert levers["default"][1] == []
    for name, (_, settings) in levers.items():
        changed = resolve(ToyClasses(), methods, "quick", dict(map(parse_assignment, settings))).section("ocd")
        assert (changed == usual) is (name == "default"), name


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("ablation", ["--only", "default,magic"], "error: --only magic: expected default, imitation"),
        ("ablation", ["--task", "nowhere"], "nowhere"),
        ("layer_selection", ["--task", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_gets_a_line(script: str, arguments: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, FOLDER / f"{script}.py", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
