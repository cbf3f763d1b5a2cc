"""The README of each plugin: commands that parse and name real settings, every setting and dataset explained."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from ocd_bench.cli import build_parser
from ocd_bench.config import check_keys, known_sections, parse_assignment
from ocd_bench.data.page import PLUGINS
from ocd_bench.plugin.manager import Manager, load_plugins
from ocd_bench.runner.cells import parse_variants
from ocd_bench.task import Task
from tests.pages import ROOT, blocks

PAGES = sorted((ROOT / "plugins").glob("*/README.md"))


@pytest.fixture(scope="module")
def manager() -> Manager:
    return load_plugins(only=PLUGINS)


def test_every_plugin_has_a_page() -> None:
    assert {path.parent for path in PAGES} == {path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml")}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.parent.name)
def test_commands_and_settings(path: Path, manager: Manager) -> None:
    task: Task = manager.task(path.parent.name)
    text = path.read_text()
    sections = known_sections(list(manager.tasks.values()), list(manager.methods.values()))
    lines = [line for block in blocks(path) for line in block.text.splitlines() if "ocd-bench run" in line]
    assert lines
    for line in lines:
        words = shlex.split(line.removeprefix("$ "), comments=True)
        arguments = build_parser()[0].parse_args(words[1:])
        check_keys((parse_assignment(setting)[0] for setting in arguments.assignments), sections)
        parse_variants(arguments.corruption, task)
    assert task.Settings is not None
    for field in dataclasses.fields(task.Settings):
        assert re.search(rf"`(?:{task.name}\.)?{field.name}\b", text), f"setting {field.name} is not on {path}"
    for dataset in task.datasets():
        assert f"`{dataset.name}`" in text, f"dataset {dataset.name} is not on {path}"
