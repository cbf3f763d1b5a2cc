"""Completion: the words, and the scripts of the shells that are installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ocd_bench.cli import COMMANDS, main
from ocd_bench.cli.completion import SHELLS, candidates


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ([""], {"run", "list", "completion"}),
        (["ru"], {"run"}),
        (["run", "--pre"], {"--preset"}),
        (["run", "--preset", "q"], {"quick"}),
        (["run", "--task", "tab"], {"tabular"}),
        (["run", "--methods", "base,oracle-"], {"base,oracle-all"}),
        (["run", "--dataset", "diab"], {"diabetes"}),
        (["run", "--set", "ocd.ste"], {"ocd.steps="}),
        (["list", "met"], {"methods"}),
        (["cache", ""], {"list", "verify", "clear"}),
        (["report", "--format", "mark"], {"markdown"}),
        (["run", "--data-dir", ""], set()),
    ],
)
def test_the_words_that_can_follow(words: list[str], some: set[str]) -> None:
    found = set(candidates(words))
    assert some <= found
    assert bool(found) == bool(some)
    assert all(word.startswith(words[-1]) for word in found)


def test_run_folders_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").write_text("{}")
    assert candidates(["report", "ru"]) == ["runs/one"]
    assert candidates(["compare", "runs/one", ""]) == ["runs/one"]


def test_completion_imports_no_torch() -> None:
    code = (
        "import sys; from ocd_bench.cli.completion import candidates; candidates(['run', '--methods', 'o']);"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_shell_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_of_its_shell(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}")
    assert subprocess.run([program, "-n", str(script)], capture_output=True, text=True).stderr == ""


def test_bash_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    program = shutil.which("bash")
    if program is None:
        pytest.skip("no bash")
    main(["completion", "bash"])
    ask = 'COMP_WORDS=(ocd-bench list me); COMP_CWORD=2; _ocd_bench; printf "%s|" "${COMPREPLY[@]}"\n'
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    said = subprocess.run(
        [program, "-c", capsys.readouterr().out + ask], capture_output=True, text=True, env=environment, timeout=60
    )
    assert said.stdout == "methods|"


def test_every_command_is_offered() -> None:
    assert set(candidates([""])) == set(COMMANDS)
