"""Runs on a real ray cluster: three machines on the loopback, each with a cache of its own; one is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faulty import numbers, write_plugin

pytest.importorskip("ray", reason="ray is not installed; 'tox -e long' installs it")
pytestmark = pytest.mark.long

SOON = 2.0
"""Seconds that an interrupted run may take on a machine that does nothing else."""


class Machines:
    """A running cluster."""

    def __init__(self, folder: Path, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ray_cluster.py")), str(folder), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "BEGAN": str(folder / "began")},  # for the method "slow" of tests/faulty.py
        )
        self.address = self._answer()

    def kill_one(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self._answer() == "killed"

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    cluster = Machines(tmp_path_factory.mktemp("machines"), 3)
    yield cluster
    cluster.close()


def start(out: Path, *words: str) -> subprocess.Popen[str]:
    """A run whose processes, on all machines of this one, can be recognised by the variable OCD_BENCH_TEST."""
    variables = {"OCD_BENCH_CACHE": str(out.parent / f"{out.name}-cache"), "OCD_BENCH_TEST": str(out), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "ocd_bench", "run", "--preset", "quick", "--offline", "--out", str(out), *words],
        stdout=subprocess.PIPE,
        stderr=(out.parent / f"{out.name}.err").open("w"),
        text=True,
        env={**os.environ, **variables},
    )


def said(out: Path) -> str:
    return (out.parent / f"{out.name}.err").read_text()


def wait_until(out: Path, process: subprocess.Popen[str], text: str, count: int = 1) -> None:
    end = time.monotonic() + 300
    while said(out).count(text) < count:
        assert process.poll() is None, said(out)
        assert time.monotonic() < end, said(out)
        time.sleep(0.1)


def processes_with(text: bytes) -> list[int]:
    """Processes, not ended, with these bytes in their environment or command."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                known = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if text in known and state != "Z" and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def gone(text: bytes, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while processes_with(text):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def soon() -> float:
    return SOON * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def stop(process: subprocess.Popen[str], out: Path, number: signal.Signals, code: int) -> None:
    """Send a signal to a run, which ends soon, with the table and this exit code."""
    begin = time.monotonic()
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert time.monotonic() - begin < soon()
    assert process.returncode == code
    assert "dots, default" in printed
    assert "the same command continues" in said(out)
    assert "Traceback" not in said(out)


def test_ctrl_c_and_termination_end_the_run_on_all_machines(machines: Machines, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path / "plugin")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out = tmp_path / f"out{code}"
        words = ("--plugin", str(plugin), "--task", "dots", "--methods", "base,slow", "--seeds", "2")
        process = start(out, *words, "--executor", "ray", "--set", f"ray.address={machines.address}")
        wait_until(out, process, " base ", 2)
        stop(process, out, number, code)
        assert gone(b"ocd_bench.runner.executors.interpreter")
        assert not (out / ".locks").exists()


def test_a_killed_machine_costs_only_its_cells_and_numbers_are_those_of_one_machine(machines: Machines, tmp_path: Path) -> None:
    words = ("--task", "images", "--dataset", "digits", "--methods", "base,ocd,ocd-x5,tent", "--seeds", "3")
    out = tmp_path / "cluster"
    process = start(out, *words, "--executor", "ray", "--set", f"ray.address={machines.address}")
    wait_until(out, process, "digits base ", 3)  # each machine has a seed, and fits it
    machines.kill_one()
    printed, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said(out)
    assert "images, digits" in printed
    assert said(out).count("was lost (its machine is gone (127.0.0.1)); measured again: ocd, ocd-x5, tent") == 1
    assert said(out).count("digits base ") == 3  # no base cell was measured twice
    cells = [json.loads(path.read_text()) for path in (out / "cells").glob("*.json")]
    for seed in range(3):
        assert len({cell["cost"]["base_fit_s"] for cell in cells if cell["seed"] == seed}) == 1  # its base was trained once
    local = start(tmp_path / "local", *words, "--jobs", "2")
    local.communicate(timeout=900)
    assert numbers(out) == numbers(tmp_path / "local")


def test_methods_of_one_group_are_measured_on_several_machines(machines: Machines, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path / "plugin")
    words = ("--plugin", str(plugin), "--task", "dots", "--methods", "base,tent-layer,oracle,ocd")
    words += ("--set", "base.epochs=3")  # a base that no machine has from another test
    process = start(tmp_path / "cluster", *words, "--executor", "ray", "--set", f"ray.address={machines.address}")
    process.communicate(timeout=300)
    assert process.returncode == 0, said(tmp_path / "cluster")
    start(tmp_path / "local", *words).communicate(timeout=300)
    assert numbers(tmp_path / "cluster") == numbers(tmp_path / "local")
    cells = [json.loads(path.read_text()) for path in (tmp_path / "cluster" / "cells").glob("*.json")]
    assert len({cell["cost"]["base_fit_s"] for cell in cells if cell["status"] == "ok"}) == 1


def test_a_ray_of_its_own_ends_with_the_run(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path / "plugin")
    words = ("--plugin", str(plugin), "--task", "dots", "--methods", "base,scaled,oracle", "--seeds", "2", "--jobs", "2")
    process = start(tmp_path / "ray", *words, "--executor", "ray")
    process.communicate(timeout=300)
    assert process.returncode == 0, said(tmp_path / "ray")
    assert gone(f"OCD_BENCH_TEST={tmp_path / 'ray'}".encode())
    start(tmp_path / "local", *words).communicate(timeout=300)
    assert numbers(tmp_path / "ray") == numbers(tmp_path / "local")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_ends_soon_with_the_ray_that_it_started(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEGAN", str(tmp_path / "began"))
    plugin = write_plugin(tmp_path / "plugin")
    out = tmp_path / "out"
    words = ("--plugin", str(plugin), "--task", "dots", "--methods", "base,slow", "--seeds", "2", "--jobs", "2")
    process = start(out, *words, "--executor", "ray")
    wait_until(out, process, " base ", 2)
    stop(process, out, number, code)
    assert gone(f"OCD_BENCH_TEST={out}".encode(), 1.0)


def test_a_killed_run_leaves_no_process_of_the_ray_that_it_started(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path / "plugin")
    out = tmp_path / "out"
    process = start(out, "--plugin", str(plugin), "--task", "dots", "--methods", "base,slow", "--executor", "ray")
    wait_until(out, process, " base ")
    process.kill()
    process.communicate()
    assert gone(b"ocd_bench.runner.executors.interpreter")
    assert gone(f"OCD_BENCH_TEST={out}".encode(), 120.0)  # helpers of ray wait a minute for their head


def test_a_server_that_is_no_cluster_costs_one_line_within_30_s(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path / "plugin")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        words = ("--quiet", "--plugin", str(plugin), "--task", "dots", "--executor", "ray", "--set", f"ray.address={address}")
        process = start(tmp_path / "out", *words)
        process.communicate(timeout=60)
        assert time.monotonic() - begin < 30 + soon()
    assert process.returncode == 2
    assert said(tmp_path / "out").splitlines() == [
        f"ocd-bench: error: --executor ray: ray.address={address}: no answer of a ray cluster within 15 s (ray.timeout); "
        "is it a cluster of this version of ray, and this machine part of it?"
    ]
