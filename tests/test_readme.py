"""Runs the commands of the README. With ``OCD_BENCH_TEST_INSTALL=1`` also those that install packages."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ocd_bench.plugin.manager import load_plugins
from ocd_bench.task import Task
from tests.pages import ROOT, WRITE, Block, blocks

README = ROOT / "README.md"
TOX = "&& .venv/bin/tox"
"""The end of the command that runs this very test."""


def installs(block: Block) -> bool:
    """Whether a console block makes or uses an environment of its own."""
    return ".venv" in block.text


def console(installing: bool) -> list[str]:
    """The commands of the README's console blocks, in order."""
    found = [block for block in blocks(README) if block.language == "console" and installs(block) == installing]
    return [command for block in found for command, _ in block.commands]


def run(command: str, folder: Path, limit: float) -> subprocess.CompletedProcess[str]:
    """One line in a shell, in ``folder``, with this environment's programs first and a cache of its own."""
    environment = {key: value for key, value in os.environ.items() if key not in ("OCD_BENCH_DATA", "PYTHONPATH")}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", "")))
    environment["OCD_BENCH_CACHE"] = str(folder / ".cache")
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit)


def test_commands_of_the_readme_succeed(tmp_path: Path) -> None:
    commands = console(installing=False)
    assert any(command.startswith("ocd-bench run") for command in commands)
    for command in commands:
        result = run(command, tmp_path, 900)
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        assert result.stdout.strip(), command
    assert (tmp_path / "runs" / "first" / "run.json").is_file()


def test_two_lines_do_everything() -> None:
    """One installs and runs the main job, one installs and runs the tests; each works on a fresh machine."""
    commands = console(installing=True)
    assert len(commands) == 2
    assert all(command.startswith("python3 -m venv .venv && .venv/bin/pip install ") for command in commands)


def test_the_pictures_are_those_of_the_committed_results() -> None:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "benchmarks" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.pictures(ROOT / "results" / "quick").items():
        path = ROOT / "docs" / "pictures" / name
        if WRITE:
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text, "run python benchmarks/pictures.py"
        assert f"docs/pictures/{name}" in README.read_text(encoding="utf-8")
        assert path.stat().st_size < 50_000


def test_the_example_plugin_is_registered(tmp_path: Path) -> None:
    code = [block.text for block in blocks(README) if block.language == "python"]
    assert len(code) == 1
    (tmp_path / "wine.py").write_text(code[0])
    task = load_plugins([str(tmp_path / "wine.py")], only=()).task("wine")
    assert isinstance(task, Task)


def test_tox_has_the_documented_environments() -> None:
    assert any(command.endswith(TOX) for command in console(installing=True))
    settings = configparser.ConfigParser()
    settings.read(ROOT / "tox.ini")
    names = [name.strip() for name in settings["tox"]["env_list"].replace("\n", ",").split(",") if name.strip()]
    assert {"lint", "core", "docs", "py311"} <= set(names)
    for name in names:
        assert re.fullmatch(r"py3\d+", name) or f"testenv:{name}" in settings, f"tox.ini has no environment {name!r}"


def copy_of_checkout(folder: Path) -> Path:
    """The tracked files as they are now, nothing built and nothing ignored."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.mark.skipif(not os.environ.get("OCD_BENCH_TEST_INSTALL"), reason="set OCD_BENCH_TEST_INSTALL=1: builds an environment")
def test_installing_works_as_written(tmp_path: Path) -> None:
    folder = copy_of_checkout(tmp_path / "checkout")
    shown = ""
    for command in console(installing=True):
        if command.endswith(TOX):
            continue
        result = run(command, folder, 3000)
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        shown += result.stdout
    for heading in ("images, digits", "images, digits+contrast-4", "tabular, diabetes", "tabular, breast-cancer"):
        assert heading in shown
