"""``ocd-bench run`` from a user's view: tables, run folders, exit codes, continuing; on a task of a --plugin file."""

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from ocd_bench.cli import main

PLUGIN = '''
import time
import weakref
import torch
import ocd_bench


class Dots(ocd_bench.Task):
    name, primary_metric = "dots", "accuracy"
    presets = {"quick": {"base.epochs": 3, "select.draws": 5}}
    corruptions = ("jitter",)

    def load_data(self, request):
        random = request.generator("data")
        x = torch.randn(120, 2, generator=random)
        y = (x[:, 0] * x[:, 1] > 0).long()
        return ocd_bench.Splits((x[:60], y[:60]), (x[60:80], y[60:80]), (x[80:], y[80:]), note="forty dots to test on")

    def base_model(self, splits, request):
        return torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))

    def loss(self, output, target):
        return torch.nn.functional.cross_entropy(output, target, reduction="none")

    def metrics(self, output, target):
        return {"accuracy": (output.argmax(1) == target).float(), "cross_entropy": self.loss(output, target)}

    def logits(self, output):
        return output

    def corrupt(self, inputs, kind, severity, generator):
        return inputs + 0.1 * severity * torch.randn(inputs.shape, generator=generator)


class Broken(ocd_bench.Method):
    name, default = "broken", False
    def fit(self, context):
        raise ZeroDivisionError("on purpose")


class Never(ocd_bench.Method):
    name, default = "never", False
    def fit(self, context):
        raise ocd_bench.NotApplicable("not on this planet")


class Slow(ocd_bench.Method):
    name, default = "slow", False
    def fit(self, context):
        time.sleep(60)


class Draws(ocd_bench.Method):
    """Scores that show the stream of random numbers."""
    name, default = "draws", False
    def fit(self, context):
        noise = context.generator(self.name, "noise")
        return lambda inputs: context.base(inputs) + torch.randn(len(inputs), 2, generator=noise)


class Large:
    """A value that a method shares, with a reference back to its context."""
    def __init__(self, context):
        self.context = context


class Hoards(ocd_bench.Method):
    name, default = "hoards", False
    kept = []
    def fit(self, context):
        alive = [one() for one in self.kept if one() is not None]
        large = context.shared("large", lambda: Large(context))
        self.kept.append(weakref.ref(large))
        if alive:
            raise RuntimeError("what was shared under another seed is still in memory")
        return lambda inputs: context.base(inputs)


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    register(Dots())


@ocd_bench.hookimpl
def ocd_bench_register_methods(register):
    for method in (Broken(), Never(), Slow(), Draws(), Hoards()):
        register(method)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "dots_plugin.py"
    path.write_text(textwrap.dedent(PLUGIN))
    return str(path)


def run(plugin: str, *arguments: str) -> int:
    return main(["run", "--plugin", plugin, "--task", "dots", "--preset", "quick", *arguments])


def cell(folder: Path, method: str, seed: int = 0, dataset: str = "default") -> dict:
    return json.loads((folder / "cells" / f"dots-{dataset}-{method}-s{seed}.json").read_text())


def test_a_run_writes_the_documented_folder(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(plugin, "--methods", "base,never,oracle", "--seeds", "2", "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert "base" in printed.out
    assert "not on this planet" in printed.out
    assert "forty dots" in printed.out
    assert "embedded default data" in printed.out
    written = json.loads((out / "run.json").read_text())
    assert written["schema"] == 1
    assert written["seeds"] == [0, 1]
    assert written["tasks"]["dots"]["config"]["base"]["epochs"] == 3
    assert {"python", "torch", "device", "cpu", "git"} <= set(written["environment"])
    base, oracle, never = (cell(out, method) for method in ("base", "oracle", "never"))
    assert base["status"] == oracle["status"] == "ok"
    assert never["status"] == "not-applicable"
    assert never["reason"] == "not on this planet"
    assert never["metrics"] == {}
    assert base["fingerprint"]["base"] == oracle["fingerprint"]["base"]
    assert base["n_test"] == 40
    assert base["metrics"]["accuracy"]["primary"]
    assert {"fit_s", "adapt_s", "samples_per_s", "peak_memory_mb", "parameters"} <= set(base["cost"])
    scores = np.load(out / "scores" / "dots-default-base-s0.npz", allow_pickle=False)
    assert scores["accuracy"].mean() == pytest.approx(base["metrics"]["accuracy"]["value"])
    assert set(base["detail"]["entropies"]) == set(oracle["detail"]["entropies"]) >= {base["layer"]}
    assert oracle["metrics"]["cross_entropy"]["value"] < base["metrics"]["cross_entropy"]["value"]
    assert "| base" in (out / "table.md").read_text()


def test_shared_values_are_freed_before_the_next_seed(plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCD_BENCH_IN_PROCESS", "1")  # in a child process, all memory is freed when it ends
    gc.disable()  # it would free the cycle only at some later time
    try:
        assert run(plugin, "--methods", "hoards", "--seeds", "3", "--out", str(tmp_path / "out"), "--quiet") == 0
    finally:
        gc.enable()


def test_finished_cells_are_kept_and_the_rest_is_added(plugin: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(plugin, "--methods", "base", "--out", str(out), "--quiet") == 0
    before = (out / "cells" / "dots-default-base-s0.json").stat().st_mtime_ns
    assert run(plugin, "--methods", "base,oracle", "--out", str(out), "--quiet") == 0
    assert (out / "cells" / "dots-default-base-s0.json").stat().st_mtime_ns == before
    assert cell(out, "oracle")["status"] == "ok"


def test_another_configuration_never_overwrites(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(plugin, "--methods", "base", "--out", str(out), "--quiet") == 0
    before = cell(out, "base")
    described = (out / "run.json").read_bytes()
    capsys.readouterr()
    # Also where only the base is another one, on which the new row would not be comparable with those that are there.
    for methods, more in (("base", ()), ("oracle", ()), ("oracle", ("--dry-run",))):
        assert run(plugin, "--methods", methods, "--out", str(out), "--set", "base.epochs=4", *more) == 2
        expected = "task 'dots' was measured there with another configuration (base.epochs 3 and 4); choose another --out"
        assert expected in capsys.readouterr().err
    assert run(plugin, "--methods", "oracle", "--out", str(out), "--preset", "default") == 2
    assert f"--out {out}: holds a run of preset quick; choose another --out" in capsys.readouterr().err
    assert cell(out, "base") == before
    assert (out / "run.json").read_bytes() == described


def test_a_folder_may_be_continued_with_other_settings_where_no_number_is(plugin: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(plugin, "--methods", "broken", "--out", str(out), "--quiet", "--set", "base.epochs=4") == 3
    assert run(plugin, "--methods", "base", "--out", str(out), "--quiet") == 0
    assert run(plugin, "--methods", "oracle", "--out", str(out), "--quiet", "--set", "base.cache=false") == 0


def test_the_head_of_a_continued_folder_keeps_the_settings_of_its_numbers(plugin: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run(plugin, "--methods", "base,ocd", "--out", str(out), "--quiet", "--set", "ocd.steps=5") == 0
    assert run(plugin, "--methods", "t3a", "--out", str(out), "--quiet", "--set", "ocd.steps=7") == 0  # t3a has no such setting
    head = "OCD-Bench 0.1.0, preset quick, ocd.steps=5, seed 0, "
    assert [line[: len(head)] for line in capsys.readouterr().out.splitlines() if "preset" in line] == [head, head]


def test_the_same_command_finds_its_own_folder(plugin: str, tmp_path: Path) -> None:
    for _ in range(2):
        assert run(plugin, "--methods", "base", "--quiet") == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_failed_cell_does_not_affect_others(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(plugin, "--methods", "broken,base", "--out", str(out)) == 3
    assert cell(out, "base")["status"] == "ok"
    failed = cell(out, "broken")
    assert failed["status"] == "failed"
    assert failed["reason"].startswith("ZeroDivisionError: on purpose")
    assert "Traceback" in (out / "errors" / "dots-default-broken-s0.txt").read_text()
    assert "Traceback" not in capsys.readouterr().err


def test_nothing_measured_is_exit_4(plugin: str) -> None:
    assert run(plugin, "--methods", "never", "--quiet") == 4


def test_adding_a_method_or_seed_changes_no_numbers(plugin: str, tmp_path: Path) -> None:
    assert run(plugin, "--methods", "draws", "--seeds", "1,", "--out", str(tmp_path / "a"), "--quiet") == 0
    assert run(plugin, "--methods", "tent-layer,base,draws", "--seeds", "2", "--out", str(tmp_path / "b"), "--quiet") == 0
    assert cell(tmp_path / "a", "draws", 1)["metrics"] == cell(tmp_path / "b", "draws", 1)["metrics"]
    assert cell(tmp_path / "b", "draws", 0)["metrics"] != cell(tmp_path / "b", "draws", 1)["metrics"]


def test_corruptions_share_the_fit_and_the_clean_base(plugin: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(plugin, "--methods", "base", "--corruption", "none,jitter:5", "--seeds", "2", "--out", str(out), "--quiet") == 0
    clean, shifted = cell(out, "base"), cell(out, "base", dataset="default+jitter-5")
    assert clean["fingerprint"]["base"] == shifted["fingerprint"]["base"]
    assert clean["fingerprint"]["data"] != shifted["fingerprint"]["data"]
    assert shifted["metrics"]["cross_entropy"]["value"] != clean["metrics"]["cross_entropy"]["value"]


def test_with_json_stdout_has_only_json(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(plugin, "--methods", "base", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == 0
    assert answer["cells"][0]["method"] == "base"


def test_workers_measure_what_one_process_measures(plugin: str, tmp_path: Path) -> None:
    for name, jobs in (("one", "1"), ("two", "2")):
        arguments = ("--methods", "base", "--seeds", "2", "--out", str(tmp_path / name), "--jobs", jobs, "--quiet")
        assert run(plugin, *arguments) == 0
    for seed in (0, 1):
        one, two = (cell(tmp_path / name, "base", seed) for name in ("one", "two"))
        assert one["metrics"] == two["metrics"]
        assert one["fingerprint"] == two["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "bass"), "did you mean 'base'"),
        (("--set", "base.epoch=1"), "did you mean 'epochs'"),
        (("--set", "base.epochs=few"), "base.epochs='few'"),
        (("--preset", "quikc"), "did you mean 'quick'"),
        (("--data-dir", "nowhere"), "no such folder"),
        (("--seeds", "x"), "--seeds"),
        (("--shard", "3/2"), "--shard"),
        (("--device", "cuda:99"), "CUDA device"),
        (("--device", "cdua"), "expected auto, cpu, cuda or cuda:i"),
        (("--corruption", "jittr:1"), "did you mean 'jitter'"),
        *(((option, ""), f"{option}: empty") for option in ("--dataset", "--corruption", "--stream", "--methods", "--seeds")),
        (("--dataset", ","), "--dataset: expected at least one name"),
        (("--out", "/proc/nope"), "cannot write there"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    plugin: str, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(plugin, *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_unknown_task_is_one_line_and_exit_2(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--plugin", plugin, "--task", "dotz"]) == 2
    assert "did you mean 'dots'" in capsys.readouterr().err


def test_interrupting_keeps_what_is_finished(plugin: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ocd_bench", "run", "--plugin", plugin, "--task", "dots", "--preset", "quick"]
    process = subprocess.Popen(
        [*command, "--methods", "base,slow", "--out", str(out)], stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    deadline = time.monotonic() + 120
    while not (out / "cells" / "dots-default-base-s0.json").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert cell(out, "base")["status"] == "ok"


def test_a_run_is_repeated_from_its_run_json(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    words = ("--methods", "draws,base", "--seeds", "1,4", "--set", "base.epochs=2", "--corruption", "none,jitter:2")
    assert run(plugin, *words, "--out", str(one), "--quiet") == 0
    assert main(["run", "--config", str(one / "run.json"), "--out", str(two), "--quiet"]) == 0
    assert sorted(path.name for path in (one / "cells").iterdir()) == sorted(path.name for path in (two / "cells").iterdir())
    for seed in (1, 4):
        for dataset in ("default", "default+jitter-2"):
            first, second = (cell(folder, "draws", seed, dataset) for folder in (one, two))
            assert first["metrics"] == second["metrics"]
            assert first["scores_sha256"] == second["scores_sha256"]
    assert main(["run", "--config", str(one / "run.json"), "--seeds", "1,", "--out", str(tmp_path / "three"), "--quiet"]) == 0
    assert len(list((tmp_path / "three" / "cells").iterdir())) == 4
    capsys.readouterr()
    (one / "run.json").write_text((one / "run.json").read_text().replace('"base.epochs": "2"', '"base.epochs": "3"'))
    assert main(["run", "--config", str(one / "run.json")]) == 2
    assert "damaged" in capsys.readouterr().err
    for text, message in (("{", "not valid JSON"), ("[]", "expected the run.json"), ('{"tasks": {}}', "did not store")):
        (one / "run.json").write_text(text)
        assert main(["run", "--config", str(one / "run.json")]) == 2
        assert message in capsys.readouterr().err


def test_a_setting_whose_default_has_changed_is_not_repeated_in_silence(
    plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ocd_bench.files import seal

    out = tmp_path / "out"
    assert run(plugin, "--methods", "base", "--out", str(out), "--quiet") == 0
    info = json.loads((out / "run.json").read_text())
    info["tasks"]["dots"]["config"]["base"]["lr"] = 0.5
    (out / "run.json").write_text(json.dumps(seal(info)))
    assert main(["run", "--config", str(out / "run.json"), "--out", str(tmp_path / "two")]) == 2
    assert "base.lr 0.5 and 0.001" in capsys.readouterr().err


def test_the_number_of_threads_is_a_setting_and_not_the_machine_s(plugin: str, tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run(plugin, "--methods", "base", "--out", str(tmp_path / "one"), "--quiet") == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert cell(tmp_path / "one", "base")["made_by"]["threads"] == 1
    assert json.loads((tmp_path / "one" / "run.json").read_text())["environment"]["threads"] == 1
    assert run(plugin, "--methods", "base", "--set", "run.threads=2", "--out", str(tmp_path / "two"), "--quiet") == 0
    assert cell(tmp_path / "two", "base")["made_by"]["threads"] == 2
    assert cell(tmp_path / "two", "base")["made_by"]["base"] != cell(tmp_path / "one", "base")["made_by"]["base"]


def test_a_child_that_computes_with_several_threads_is_not_forked() -> None:
    """It would wait for ever for the threads of its parent's pool."""
    import torch

    from ocd_bench.runner.sandbox import can_isolate

    assert can_isolate(torch.device("cpu"), 1)
    assert not can_isolate(torch.device("cpu"), 2)


def test_on_a_machine_with_a_gpu_nothing_is_forked_even_if_the_run_is_on_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autograd has a thread for each GPU, and in a forked child it refuses to work."""
    import torch

    from ocd_bench.runner.sandbox import can_isolate

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert not can_isolate(torch.device("cpu"), 1)


def test_in_one_process_the_numbers_are_the_same(plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--methods", "base,draws,oracle,ocd-nn", "--quiet")
    assert run(plugin, *words, "--out", str(tmp_path / "many")) == 0
    monkeypatch.setenv("OCD_BENCH_IN_PROCESS", "1")
    assert run(plugin, *words, "--out", str(tmp_path / "one")) == 0
    for method in ("base", "draws", "oracle", "ocd-nn"):
        first, second = (cell(tmp_path / name, method) for name in ("many", "one"))
        assert first["scores_sha256"] == second["scores_sha256"]
        assert first["detail"] == second["detail"]
