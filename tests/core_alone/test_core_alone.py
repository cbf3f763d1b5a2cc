"""Run by ``tox -e core``: the core is installed, torch and the plugins are not."""

import importlib.util
import json
import subprocess

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="meant for an environment without torch")


def ocd_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ocd-bench", *arguments], capture_output=True, text=True, timeout=60)


def test_help_works() -> None:
    answer = ocd_bench("--help")
    assert answer.returncode == 0
    assert "run" in answer.stdout
    assert "compare" in answer.stdout


def test_list_tasks_reports_that_no_task_is_installed() -> None:
    answer = ocd_bench("list", "tasks", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["tasks"] == []


def test_run_without_a_plugin_is_one_line_and_exit_2() -> None:
    answer = ocd_bench("run", "--task", "images")
    assert answer.returncode == 2
    assert "images" in answer.stderr
    assert "Traceback" not in answer.stderr
