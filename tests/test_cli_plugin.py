"""``ocd-bench plugin``: new and check, their lines and exit codes."""

from pathlib import Path

import pytest

from ocd_bench.cli import main

HEAD = """
import torch
import ocd_bench
from ocd_bench.testing.toy import ToyClasses

class Toy(ToyClasses):
    name = "toy"

@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Toy())
"""

METHOD = """
import ocd_bench

class Plain(ocd_bench.Method):
    name = "plain"
    def fit(self, context):
        FIT

@ocd_bench.hookimpl
def ocd_bench_register_methods(register):
    register(Plain())
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ocd_bench.methods.builtin", list)


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    code = main(["plugin", "check", *words])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def test_new_writes_a_plugin_and_refuses_to_do_it_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "new", "wine"]) == 0
    said = capsys.readouterr()
    assert "ocd-bench-wine/pyproject.toml" in said.out.splitlines()
    assert "pip install -e ocd-bench-wine" in said.err
    assert main(["plugin", "new", "wine"]) == 2
    assert "ocd-bench-wine exists already" in capsys.readouterr().err


def test_check_of_a_sound_task_is_one_line_per_check(capsys: pytest.CaptureFixture[str]) -> None:
    Path("toy.py").write_text(HEAD)
    code, lines, said = check(capsys, "toy.py")
    assert code == 0
    assert "task toy  ok    layer: hidden" in lines
    assert len(lines) >= 15
    assert all(line.startswith("task toy  ok    ") for line in lines)
    assert said == "all checks passed\n"


def test_check_of_a_bad_task_says_what_to_change_and_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    Path("toy.py").write_text(HEAD + "\nToy.loss = lambda self, o, t: torch.nn.functional.cross_entropy(o, t)\n")
    code, lines, said = check(capsys, "toy.py")
    assert code == 3
    failed = [line for line in lines if line.startswith("task toy  FAIL  loss")]
    assert "use reduction='none'" in failed[0]
    assert "checks failed" in said


def test_check_of_methods(capsys: pytest.CaptureFixture[str]) -> None:
    Path("good.py").write_text(METHOD.replace("FIT", "return lambda inputs: context.base(inputs)"))
    code, lines, _ = check(capsys, "good.py")
    assert code == 0
    assert "method plain  ok    base-unchanged" in lines
    Path("bad.py").write_text(METHOD.replace("FIT", "return context.base.train()"))
    code, lines, _ = check(capsys, "bad.py")
    assert code == 3
    assert any(line.startswith("method plain  FAIL  base-unchanged: on toy-classes:") for line in lines)


def test_a_plugin_that_cannot_be_loaded_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.py").write_text("1 / 0")
    for name, message in (("broken.py", "ZeroDivisionError"), ("none.py", "no such file"), ("wime", "no plugin 'wime'")):
        code, lines, said = check(capsys, name)
        assert code == 2
        assert lines == []
        assert message in said


def test_loading_faults_of_the_checked_plugin_fail_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    Path("quiet.py").write_text("def ocd_bench_load_data(task, request): ...\n")
    code, lines, _ = check(capsys, "quiet.py")
    assert code == 3
    assert lines == ["FAIL  plugin 'quiet.py': ocd_bench_load_data() is never called: mark it with @ocd_bench.hookimpl"]


def test_a_plugin_of_hooks_alone_has_nothing_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    Path("swap.py").write_text("import ocd_bench\n@ocd_bench.hookimpl\ndef ocd_bench_load_data(task): ...\n")
    code, lines, _ = check(capsys, "swap.py")
    assert code == 0
    assert lines == ["plugin swap.py: no task or method to check; hooks: ocd_bench_load_data"]
