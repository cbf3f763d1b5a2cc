"""The tools around ``results/quick``: tox, the workflow and the page on results are consistent, and their commands work."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest

from ocd_bench.cli import build_parser, main
from ocd_bench.results import read_run
from tests.pages import ROOT, blocks
from tests.test_run import PLUGIN

REFERENCE = ROOT / "results" / "quick"
WORKFLOW = (ROOT / ".github" / "workflows" / "quick.yml").read_text(encoding="utf-8")


def commands(folder: str) -> list[list[str]]:
    """The commands of tox's environment, with its temporary folder filled in."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert tox["testenv:quick"]["ignore_errors"] == "true", "a failed cell must not keep the comparison from being made"
    lines = tox["testenv:quick"]["commands"].strip().splitlines()
    return [shlex.split(line.replace("{env_tmp_dir}", folder).replace("{posargs}", ""))[1:] for line in lines]


def test_the_reference_is_made_by_the_command_that_tox_runs() -> None:
    (words,) = (
        shlex.split(line)
        for block in blocks(ROOT / "results" / "README.md")
        for line in block.text.splitlines()
        if line.startswith("ocd-bench") and "results/quick" in line
    )
    ran = commands("X")[0]
    place = ran.index("--bases")
    assert ran[place + 1] == "results/quick"
    assert [*words[1:-1]] == [*ran[:place], "--keep-bases", *ran[place + 2 : -1]]
    assert words[-1] == "results/quick"


def test_the_workflow_reads_what_tox_writes() -> None:
    written = {word for words in commands(".tox/quick/tmp") for word in words if word.startswith(".tox")}
    assert written == {".tox/quick/tmp/quick", ".tox/quick/tmp/compare.md"}, written
    for path in re.findall(r"\.tox/quick/tmp/[\w*.]+", WORKFLOW):
        assert path in written | {f".tox/quick/tmp/{name}.md" for name in ("*", "base", "speed")}, path
    assert "tox -e quick" in WORKFLOW


def test_the_commands_of_the_workflow_parse() -> None:
    for options in ("", "--format markdown --fail-on never --out x.md"):
        build_parser()[0].parse_args(["compare", "one", "two", *options.split()])
        assert options in WORKFLOW.replace(".tox/quick/tmp/base.md", "x.md")


def test_the_stored_bases_are_those_of_todays_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    words = commands(str(tmp_path))[0]
    assert main([*words, "--dry-run"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(("worse", "code"), [(False, 0), (True, 1)])
def test_the_commands_detect_a_regression_and_pass_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], worse: bool, code: int
) -> None:
    """The same commands on one small task: a reference, then a working tree whose method got worse or did not."""
    method = "\n".join(
        (
            "\n\nclass Flip(ocd_bench.Method):",
            '    """The base\'s outputs, multiplied by FLIP."""',
            '    name = "flip"',
            "    def fit(self, context):",
            "        return lambda inputs: FLIP * context.base(inputs)",
            "\n\n@ocd_bench.hookimpl(specname='ocd_bench_register_methods')\ndef more(register):\n    register(Flip())\n",
        )
    )
    for name, sign in (("before", 1), ("after", -1 if worse else 1)):
        (tmp_path / f"{name}.py").write_text(PLUGIN + method.replace("FLIP *", f"{sign} *"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OCD_BENCH_DISABLE_PLUGINS", "all")
    run, *compares = commands(str(tmp_path / "tmp"))
    run[run.index("all")] = "dots"
    small = ["--methods", "base,flip", "--set", "base.epochs=150", "--set", "base.lr=0.02", "--quiet"]
    place = run.index("--bases")
    reference = [*run[:place], "--keep-bases", *run[place + 2 : -1], "results/quick"]
    assert main([*reference, "--plugin", "before.py", *small]) == 0
    assert main([*run, "--plugin", "after.py", *small]) == 0
    capsys.readouterr()
    assert [main(words) for words in compares] == [0, code]
    table, text = (tmp_path / "tmp" / "compare.md").read_text(), capsys.readouterr().out
    for row, shown in (("| dots default flip |", table), ("\nflip ", text)):
        assert (row in shown.partition("<details>")[0]) == worse
        assert ("1 regression" in shown) == worse
        assert f"{3 - worse} identical" in shown  # base, base-anew, and flip if it is not worse


@pytest.mark.skipif(not REFERENCE.exists(), reason="no reference run is committed yet")
def test_the_reference_is_complete() -> None:
    run = read_run(REFERENCE)
    assert run.info["preset"] == "quick"
    assert run.info["seeds"] == [0, 1, 2]
    for key, cell in run.cells.items():
        assert cell["status"] != "failed", key
        assert cell["status"] != "ok" or run.scores(key, next(iter(cell["metrics"]))) is not None, key
    assert not (REFERENCE / "figures").exists() or "results/*/figures" in (ROOT / ".gitignore").read_text()
