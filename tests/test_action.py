"""The composite action for repositories of plugins: it parses, and its shell steps work when run in their order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pages import ROOT
from tests.test_run import PLUGIN

ACTION = ROOT / ".github" / "actions" / "compare" / "action.yml"
FLIP = """

class Flip(ocd_bench.Method):
    name = "flip"
    def fit(self, context):
        return lambda inputs: SIGN * context.base(inputs)

@ocd_bench.hookimpl(specname='ocd_bench_register_methods')
def more(register):
    register(Flip())
"""


def action() -> dict[str, Any]:
    return yaml.safe_load(ACTION.read_text(encoding="utf-8"))


def test_every_input_is_declared_and_used() -> None:
    text = ACTION.read_text(encoding="utf-8")
    assert set(re.findall(r"inputs\.([a-z]+)", text)) == set(action()["inputs"])
    for step in action()["runs"]["steps"]:
        assert "shell" in step or "uses" in step, step["name"]
        assert "${{" not in step.get("run", ""), "an expression in a script can be an injection: pass it by env"


def test_the_documented_workflow_uses_declared_inputs() -> None:
    page = (ROOT / "docs" / "comparing.md").read_text(encoding="utf-8")
    (block,) = (part for part in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "actions/compare" in part)
    steps = [step for job in yaml.safe_load(block)["jobs"].values() for step in job["steps"]]
    (step,) = (step for step in steps if "actions/compare" in step.get("uses", ""))
    assert set(step["with"]) <= set(action()["inputs"])


def shell_steps(folder: Path, inputs: dict[str, str]) -> dict[str, int]:
    """Run the action's scripts as GitHub would, with this environment's commands; exit codes by step."""
    values = {name: entry.get("default", "") for name, entry in action()["inputs"].items()} | inputs
    codes = {}
    for step in action()["runs"]["steps"]:
        if "run" not in step or "comment" in step["name"].lower() or (values["reference"] and "reference" in step["name"]):
            continue
        given = {k: re.sub(r"\$\{\{ inputs\.([a-z]+) \}\}", lambda m: values[m[1]], v) for k, v in step["env"].items()}
        files = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=folder, env={**os.environ, **given, **files, "PATH": path}, check=False, capture_output=True, text=True,
        )  # fmt: skip
        codes[step["name"]] = done.returncode
        if done.returncode:
            break
    return codes


@pytest.mark.parametrize(("sign", "code"), [(1, 0), (-1, 1)])
def test_the_steps_find_a_regression_and_pass_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: int, code: int
):
    monkeypatch.setenv("OCD_BENCH_DISABLE_PLUGINS", "all")
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    base = tmp_path / ".ocd-bench-base"  # the checkout of the base branch
    base.mkdir()
    for folder, value in ((base, 1), (tmp_path, sign)):
        (folder / "mine.py").write_text(PLUGIN + FLIP.replace("SIGN", str(value)))
    run = "--task dots --plugin mine.py --preset quick --methods base,flip --seeds 2 --set base.epochs=60 --quiet"
    run += " --set base.lr=0.02"
    codes = shell_steps(tmp_path, {"run": run, "install": "true"})
    assert codes == {"Run the reference": 0, "Run the working tree": 0, "Compare": code}
    assert f"code={code}" in (tmp_path / "GITHUB_OUTPUT").read_text()
    summary = (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert ("1 regression" in summary) == (code == 1)
