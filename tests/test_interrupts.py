"""Kills, interrupts, full disks: no finished cell is lost, no process is left running, and the same command then gives the same
numbers."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocd_bench.cli import main
from ocd_bench.files import write_atomic
from tests.faulty import cell, command, numbers, run, run_here, write_plugin

SOON = 2.0
"""Seconds that an interrupted run may take on a machine that does nothing else."""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("BEGAN", str(tmp_path / "began"))
    return write_plugin(tmp_path / "plugin")


def start(plugin: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(plugin, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def descendants(plugin: Path) -> list[int]:
    """Processes that run this test's plugin."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(plugin).encode() in words and state != "Z":
                found.append(int(entry.name))
    return found


def gone(plugin: Path) -> bool:
    end = time.monotonic() + 5
    while descendants(plugin):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_shows_what_is_finished_and_leaves_nothing(
    number: signal.Signals, code: int, jobs: str, plugin: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(plugin, "--methods", "base,slow", "--seeds", "2", "--jobs", jobs, "--out", str(out))
    wait_for(tmp_path / "began", process)
    begin = time.monotonic()
    process.send_signal(number)
    printed, err = process.communicate(timeout=60)
    assert time.monotonic() - begin < SOON * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert process.returncode == code
    assert "dots, default" in printed
    assert "base" in printed
    assert "the same command continues" in err
    assert "Traceback" not in err
    assert gone(plugin)
    assert (out / "table.md").exists()
    assert not (out / ".locks").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_in_one_process_as_with_a_gpu_a_stopped_method_has_not_failed(
    number: signal.Signals, code: int, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCD_BENCH_IN_PROCESS", "1")
    out = tmp_path / "out"
    process = start(plugin, "--methods", "base,slow", "--out", str(out))
    wait_for(tmp_path / "began", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert [path.name for path in (out / "cells").iterdir()] == ["dots-default-base-s0.json"]


def test_ctrl_c_in_a_terminal_reaches_every_process_and_leaves_none(plugin: Path, tmp_path: Path) -> None:
    process = start(plugin, "--methods", "base,slow", "--seeds", "2", "--jobs", "2", "--out", str(tmp_path / "out"))
    wait_for(tmp_path / "began", process)
    for _ in range(3):  # an impatient user
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    printed, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "base" in printed
    assert "Traceback" not in err
    assert gone(plugin)


def test_a_stopped_run_with_json_prints_the_finished_cells(plugin: Path, tmp_path: Path) -> None:
    process = start(plugin, "--methods", "base,slow", "--json", "--quiet", "--out", str(tmp_path / "out"))
    wait_for(tmp_path / "began", process)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    answer = json.loads(printed)
    assert answer["exit_code"] == process.returncode == 130
    assert [entry["method"] for entry in answer["cells"]] == ["base"]


def test_no_worker_survives_a_killed_run_and_the_same_command_continues(plugin: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--seeds", "2", "--jobs", "2", "--out", str(out))
    process = start(plugin, "--methods", "base,slow", *words)
    wait_for(tmp_path / "began", process)
    process.kill()
    process.communicate()
    assert gone(plugin)
    first = out / "cells" / "dots-default-base-s0.json"
    before = first.stat().st_mtime_ns if first.exists() else 0
    said = run(plugin, "--methods", "base,scaled", *words)
    assert cell(out, "scaled", 1)["status"] == "ok"
    if before:
        assert first.stat().st_mtime_ns == before, said


def test_a_killed_worker_costs_only_the_cell_it_was_measuring(plugin: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(plugin, "--methods", "base,slow,scaled", "--seeds", "2", "--out", str(out), "--cell-timeout", "200")
    wait_for(tmp_path / "began", process)
    workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    (tmp_path / "began").unlink()
    os.kill(workers[0], signal.SIGKILL)
    wait_for(tmp_path / "began", process)  # of the second seed: its method is killed this time
    worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    method = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()[0]
    os.kill(int(method), signal.SIGKILL)
    printed, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "Traceback" not in err
    for seed in (0, 1):
        assert cell(out, "base", seed)["status"] == cell(out, "scaled", seed)["status"] == "ok"
        assert "SIGKILL" in cell(out, "slow", seed)["reason"]
    assert "dots, default" in printed


@pytest.mark.parametrize("number", [*range(5), *(pytest.param(i, marks=pytest.mark.long) for i in range(5, 50))])
def test_a_run_that_is_killed_at_any_time_ends_bit_identical(number: int, plugin: Path, tmp_path: Path) -> None:
    words = ("--methods", "base,fits,fits-again,oracle", "--seeds", "2")
    run(plugin, *words, "--out", str(tmp_path / "whole"))
    out = tmp_path / "out"
    draw = random.Random(number)
    process = start(plugin, *words, "--out", str(out))
    wait_for(out / "cells", process)
    time.sleep(draw.uniform(0.0, 3.0))
    process.kill()
    process.communicate()
    run(plugin, *words, "--out", str(out))
    assert numbers(out) == numbers(tmp_path / "whole")
    assert not list(out.rglob("*.tmp"))


# -- full disks --------------------------------------------------------------------------------------------------------------
@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Writes to files whose path contains one of these words fail, as on a full disk."""
    words: list[str] = []

    def write(path: Path, data: bytes) -> None:
        if any(word in str(path) for word in words):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomic(path, data)

    monkeypatch.setattr("ocd_bench.runner.store.write_atomic", write)
    monkeypatch.setattr("ocd_bench.opened.write_atomic", write)
    return words


def test_a_full_disk_is_reported_and_finished_cells_are_kept(plugin: Path, tmp_path: Path, full: list[str], capsys) -> None:
    out = tmp_path / "out"
    assert run_here(plugin, "--methods", "base", "--out", str(out), "--quiet") == 0
    full.append("scaled")
    assert run_here(plugin, "--methods", "base,scaled,fits", "--out", str(out)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("cells could not be written: No space left on device") == 1
    assert "Traceback" not in captured.err
    assert "fits" in captured.out
    assert cell(out, "base")["status"] == cell(out, "fits")["status"] == "ok"
    full.clear()
    assert run_here(plugin, "--methods", "base,scaled,fits", "--out", str(out), "--quiet") == 0
    assert cell(out, "scaled")["status"] == "ok"


def test_a_disk_that_is_full_for_a_while_loses_no_cell(plugin: Path, tmp_path: Path, full: list[str], monkeypatch) -> None:
    full.append("dots-default-base")
    monkeypatch.setattr("ocd_bench.runner.supervisor.Supervisor._once", lambda self, text: full.clear())
    assert run_here(plugin, "--methods", "base,scaled", "--out", str(tmp_path / "out"), "--quiet") == 0
    assert cell(tmp_path / "out", "base")["status"] == "ok"


def test_a_table_that_cannot_be_written_is_named_and_printed(plugin: Path, tmp_path: Path, full: list[str], capsys) -> None:
    full.append("table.md")
    assert run_here(plugin, "--methods", "base", "--out", str(tmp_path / "out")) == 2
    captured = capsys.readouterr()
    assert "table.md: No space left on device" in captured.err
    assert "dots, default" in captured.out


@pytest.mark.parametrize(
    "words", [["report", "RUN"], ["compare", "RUN", "RUN"], ["list", "methods"], ["cache", "list", "--json"]]
)
def test_a_full_stdout_is_one_line(words: list[str], plugin: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_here(plugin, "--methods", "base", "--out", str(out), "--quiet") == 0
    with open("/dev/full", "w") as full_device:
        done = subprocess.run(
            [*command(plugin)[:3], *(str(out) if word == "RUN" else word for word in words)],
            stdout=full_device,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_huge_numbers_of_seeds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("99999999999999999999", "10001", "0,99999999999999999999", "9" * 5000):
        assert main(["run", "--task", "any", "--seeds", text]) == 2
        captured = capsys.readouterr()
        assert "--seeds" in captured.err
        assert len(captured.err) < 300
