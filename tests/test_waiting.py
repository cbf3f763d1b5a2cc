"""What a user sees before and during a run: the plan, the bars, the lines of a log; a finished run is shown at once."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocd_bench.cli import main
from ocd_bench.files import seal
from ocd_bench.results import json_bytes
from ocd_bench.runner.cells import Group
from ocd_bench.runner.clock import BASE, DATA, Clock, Times, in_words
from ocd_bench.runner.progress import ConsoleReporter
from ocd_bench.runner.unchanged import note_key

QUICK = ["--task", "tabular", "--dataset", "diabetes", "--preset", "quick", "--methods", "base,tent", "--set", "base.epochs=1"]
GROUP = Group("t", "d", 0, ("base", "ocd"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))


def process(words: list[str]) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which says at the end whether it has imported torch."""
    code = f"import sys; from ocd_bench.cli import main; code = main({words!r}); print('torch:', 'torch' in sys.modules, code)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ.copy())


# -- the plan -------------------------------------------------------------------------------------------------------------
def test_dry_run_writes_nothing_and_needs_no_torch(tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = process(["run", *QUICK, "--dry-run", "--out", str(out)])
    assert said.stdout.splitlines() == [
        "tabular diabetes seed 0: 2 cells; about 9 s",
        "  base model: to train",
        "  to measure: base (?), tent (?)",
        "total: 2 cells, 0 finished, 2 to measure; about 9 s",
        "?: never measured here; counted at 2 s a method with preset quick (two idle cores)",
        f"nothing was measured; run folder: {out}",
        "torch: False 0",
    ]
    assert not out.exists()


def test_the_plan_knows_finished_cells_cached_bases_and_earlier_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "run", ["run", *QUICK, "--dry-run", "--json", "--out"]
    assert main(["run", *QUICK, "--out", str(out), "--quiet"]) == 0
    capsys.readouterr()
    assert main([*words, str(out)]) == 0
    group = json.loads(capsys.readouterr().out)["groups"][0]
    assert [each["method"] for each in group["finished"]] == ["base", "tent"]
    assert (group["base"], group["seconds"], group["to_measure"]) == ("not needed", 0, [])
    assert main([*words, str(tmp_path / "other")]) == 0
    group = json.loads(capsys.readouterr().out)["groups"][0]
    assert (group["base"], group["finished"], group["rough"]) == ("cached", [], False)
    assert [each["rough"] for each in group["to_measure"]] == [False, False]
    assert main([*words, str(tmp_path / "other"), "--set", "base.lr=0.123"]) == 0
    group = json.loads(capsys.readouterr().out)["groups"][0]
    assert (group["base"], group["rough"]) == ("to train", True)


@pytest.mark.parametrize(("methods", "told"), [("base,tent", False), ("base,tent,oracle", True)])
def test_the_plan_says_that_a_changed_method_is_measured_again(
    methods: str, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run is compared with its code for the plan too; a run that goes on is not, since that imports torch."""
    out = str(tmp_path / "run")
    assert main(["run", *QUICK, "--out", out, "--quiet"]) == 0
    capsys.readouterr()
    assert main(["run", *QUICK, "--methods", methods, "--dry-run", "--out", out]) == 0
    assert ("a finished cell is measured again" in capsys.readouterr().out) == told


def test_the_plan_says_which_bases_are_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["run", *QUICK, "--out", str(out), "--quiet", "--keep-bases", "--set", "base.cache=false"]) == 0
    for methods, base in (("tent", "stored"), ("base", "stored; base-anew: to train")):
        words = ["--methods", methods, "--bases", str(out), "--out", str(tmp_path / "other"), "--set", "base.cache=false"]
        capsys.readouterr()
        assert main(["run", *QUICK[:-2], "--set", "base.epochs=1", *words, "--dry-run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["groups"][0]["base"] == base


def test_a_dry_run_refuses_stored_bases_of_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["run", *QUICK, "--out", str(out), "--quiet", "--keep-bases"]) == 0
    words = ["run", *QUICK, "--set", "base.lr=0.1", "--bases", str(out), "--out", str(tmp_path / "other"), "--quiet"]
    said = []
    for more in ([], ["--dry-run"]):
        capsys.readouterr()
        assert main([*words, *more]) == 2
        said.append(capsys.readouterr().err)
    assert "was made with other settings (base.lr 0.003 and 0.1)" in said[1]
    assert said[1] in said[0]


def test_a_dry_run_refuses_to_repeat_a_run_under_other_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["run", *QUICK, "--out", str(out), "--quiet"]) == 0
    earlier = json.loads((out / "run.json").read_text())
    earlier["tasks"]["tabular"]["config"]["tent"]["lr"] = 0.123
    (tmp_path / "run.json").write_bytes(json_bytes(seal({key: value for key, value in earlier.items() if key != "sha256"})))
    said = []
    for more in ([], ["--dry-run"]):
        capsys.readouterr()
        assert main(["run", "--config", str(tmp_path / "run.json"), "--out", str(tmp_path / "again"), "--quiet", *more]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert "another version wrote it, whose setting differs: tabular: tent.lr" in said[0]


def test_a_wrong_name_is_an_error_in_a_dry_run_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--task", "tabula", "--dry-run"]) == 2
    assert "did you mean 'tabular'?" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_dry_run_refuses_the_folders_that_a_run_refuses(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = ["run", *QUICK, "--out", str(tmp_path / place), "--quiet"]
    said = []
    for more in ([], ["--dry-run"]):
        assert main([*words, *more]) == 2
        said.append(capsys.readouterr())
    assert said[0] == said[1]
    assert "cannot write there: Not a directory; choose another folder" in said[0].err


def test_a_dry_run_refuses_a_folder_of_another_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_bytes(json_bytes(seal({"schema": 99})))
    assert main(["run", *QUICK, "--out", str(out), "--dry-run"]) == 2
    assert "holds a run of another schema" in capsys.readouterr().err


# -- a finished run ---------------------------------------------------------------------------------------------------------
def test_a_finished_run_is_shown_again_without_torch_until_something_changes(tmp_path: Path) -> None:
    words = ["run", *QUICK, "--out", str(tmp_path / "run")]
    first = process(words)
    assert first.stdout.splitlines()[-1] == "torch: True 0"
    assert first.stderr.splitlines()[0] == "ocd-bench: loading PyTorch"
    again = process(words)
    assert again.stdout.splitlines()[-1] == "torch: False 0"
    assert again.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]
    assert "tabular diabetes base seed 0" in again.stderr
    assert "(reused)" in again.stderr
    cell = tmp_path / "run" / "cells" / "tabular-diabetes-base-s0.json"
    cell.write_text(cell.read_text().replace('"n_test": 88', '"n_test": 87'))
    assert process(words).stdout.splitlines()[-1] == "torch: True 0"


def test_the_note_of_a_finished_run_depends_on_settings_files_and_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ocd_bench.plugin.manager import load_plugins
    from ocd_bench.runner.order import RunRequest
    from ocd_bench.runner.run import plan

    data, package = tmp_path / "data", tmp_path / "package"
    (data / "mine").mkdir(parents=True)
    package.mkdir()
    table, code = data / "mine" / "mine.csv", package / "a.py"
    table.write_text("a,b\n1,2\n")
    code.write_text("")
    manager = load_plugins(only=["tabular"], declared=True)
    monkeypatch.setattr(manager, "folders", lambda: [package])
    monkeypatch.setattr(sys, "path", [*sys.path, str(package)])

    def key(**changed: object) -> str | None:
        request = RunRequest(("tabular",), "mine", data_dirs=(data,), preset="quick", methods=("base",), **changed)  # type: ignore[arg-type]
        return note_key(request, plan(request, manager, try_import=False)[0], tmp_path / "run", manager)

    first = key()
    assert first is not None
    assert first == key()
    seen = {first, key(seeds=(1,)), key(overrides={"base.lr": 0.5}), key(device="cpu")}
    for change in (
        lambda: table.write_text("a,b\n1,3000\n"),
        lambda: (data / "mine" / "more.csv").write_text("a"),
        lambda: code.write_text("x = 1"),
        lambda: (package / "some-1.0.dist-info").mkdir(),
        lambda: monkeypatch.setenv("OCD_BENCH_X", "1"),
    ):
        change()  # type: ignore[no-untyped-call]
        seen.add(key())
    assert len(seen) == 9
    monkeypatch.setattr(manager, "folders", lambda: None)  # a --plugin file
    assert key() is None


def test_data_that_cannot_be_looked_at_leave_no_note(tmp_path: Path) -> None:
    from ocd_bench.plugin.manager import load_plugins
    from ocd_bench.runner.order import RunRequest
    from ocd_bench.runner.run import plan

    manager = load_plugins(only=["tabular"], declared=True)
    request = RunRequest(("tabular",), "elsewhere", data_dirs=(tmp_path,), preset="quick")
    assert note_key(request, plan(request, manager, try_import=False)[0], tmp_path / "run", manager) is None


def test_a_run_that_cannot_begin_leaves_no_folder_and_says_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["run", "--task", "images", "--dataset", "mnst", "--preset", "quick", "--seeds", "3", "--methods", "base"]
    assert main([*words, "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.count("ocd-bench: error:") == 1
    assert "run folder" not in err
    assert not out.exists()


def test_a_folder_with_cells_of_another_task_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.runs import make_run

    out = make_run(tmp_path / "run", {"base": 0.0}, (0,))
    assert main(["run", *QUICK, "--methods", "base", "--out", str(out)]) == 0
    assert f"ocd-bench: {out} has cells of images too; they stay beside the new ones" in capsys.readouterr().err


# -- progress -------------------------------------------------------------------------------------------------------------
class Hand:
    """A clock that a test moves by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_the_clock_counts_down_and_remembers() -> None:
    hand, times = Hand(), Times("quick")
    clock = Clock([GROUP], times, now=hand)
    assert clock.rough
    assert clock.seconds_left() == 1 + 4 + 2 + 2
    clock.begin(GROUP, DATA)
    hand.time += 0.5
    assert clock.seconds_left() == 8.5
    clock.begin(GROUP, BASE)
    hand.time += 10  # longer than expected: judged by its progress
    clock.progress(GROUP, 0.25)
    assert clock.seconds_left() == 30 + 2 + 2
    clock.begin(GROUP, "base")
    clock.end(GROUP)
    assert clock.seconds_left() == 0
    assert (times.expected(GROUP, DATA), times.expected(GROUP, BASE), times.expected(GROUP, "ocd")) == (0.5, 10, None)
    times.remember(GROUP, BASE, 0.1)  # from the cache
    assert times.expected(GROUP, BASE) == 10
    again = Clock([Group("t", "d", 7, ("base",))], times, now=hand)
    assert not again.rough
    assert again.seconds_left() == 10.5
    assert Times("quick", {"base.epochs": 3}).expected(GROUP, DATA) is None


def test_a_group_that_is_cut_short_leaves_no_times() -> None:
    times = Times("quick")
    clock = Clock([GROUP], times)
    clock.begin(GROUP, DATA)
    clock.end(GROUP, kept=False)
    assert times.expected(GROUP, DATA) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (8, "8 s"), (62, "60 s"), (200, "3 min"), (7800, "2 h 10 min"), (7100, "2 h"), (90000, "25 h")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_log_is_told_after_a_silence_what_is_being_done(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleReporter(2, clock=Clock([GROUP], Times("quick")), silence=0.05) as reporter:
        reporter.begin(GROUP, "ocd")
        reporter.progress(GROUP, "hypernetwork", 3, 10)
        assert capsys.readouterr().err == ""
        time.sleep(0.06)
        reporter.tick()
        reporter.tick()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("... t d seed 0 ocd: hypernetwork 3/10; 0 of 2 cells, 1 s so far, about ")
    assert lines[0].endswith(" left (rough)")


def test_quiet_says_nothing_after_a_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleReporter(2, quiet=True, clock=Clock([GROUP], Times("quick")), silence=0) as reporter:
        reporter.begin(GROUP, "ocd")
        reporter.tick()
    assert capsys.readouterr().err == ""


def test_the_bars_name_task_dataset_seed_method_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "150")
    reporter = ConsoleReporter(2, clock=Clock([GROUP], Times("quick")))

    def shown() -> list[str]:
        assert reporter._live is not None
        capsys.readouterr()
        reporter.console.print(reporter._live.get_renderable())
        return [" ".join(line.split()) for line in capsys.readouterr().err.splitlines() if line.strip()]

    reporter.begin(GROUP, BASE)
    reporter.begin(GROUP, "ocd")
    reporter.progress(GROUP, "hypernetwork", 3, 10)
    everything, step = shown()
    assert everything.startswith("all cells")
    assert "0/2" in everything
    assert "about" in everything
    assert step.startswith("t d seed 0 ocd: hypernetwork")
    assert "3/10" in step
    reporter.end(GROUP)
    assert len(shown()) == 1
