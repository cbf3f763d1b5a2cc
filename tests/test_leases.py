"""Many processes with one folder and one cache: each unit of work is done once, also if two machines share the folder."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from ocd_bench.runner.lease import BEAT, PATIENCE, Lease
from tests.faulty import command, numbers, write_plugin


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_holds_a_lease_and_the_next_gets_it_when_it_is_given_back(tmp_path: Path) -> None:
    one, two = Lease(tmp_path / "a" / "x"), Lease(tmp_path / "a" / "x")
    assert one.acquire()
    assert one.acquire()
    assert not two.acquire()
    assert str(os.getpid()) in two.owner()
    one.release()
    assert two.acquire()
    one.release()  # it has none: that of the other stays
    assert not one.acquire()
    two.release()
    assert list((tmp_path / "a").iterdir()) == []


def test_a_lease_ends_with_its_owner(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        Lease(tmp_path / "x").acquire()
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "x").exists()
    assert Lease(tmp_path / "x").acquire()


def test_a_process_of_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "x")
    assert lease.acquire()
    owner = json.loads((tmp_path / "x").read_text())
    (tmp_path / "x").write_text(json.dumps({**owner, "started": "1"}))
    assert Lease(tmp_path / "x").acquire()


def test_between_two_machines_a_lease_ends_when_it_is_not_renewed(tmp_path: Path) -> None:
    here, there = Clock(), Clock()
    there.now = -5e6  # the clocks of two machines need not agree
    owner, other = Lease(tmp_path / "x", "one", there), Lease(tmp_path / "x", "two", here)
    assert owner.acquire()
    for step in range(1, 100):
        there.now += BEAT + 1
        os.utime(tmp_path / "x", ns=(step, step))  # what renew does, at a known time
        owner.renew()
        os.utime(tmp_path / "x", ns=(step, step))
        here.now += BEAT + 1
        assert not other.acquire()
    here.now += PATIENCE / 2
    assert not other.acquire()
    here.now += PATIENCE
    assert other.acquire()
    owner.release()
    assert (tmp_path / "x").exists()  # the new owner's


def test_renewing_touches_the_file(tmp_path: Path) -> None:
    clock = Clock()
    lease = Lease(tmp_path / "x", clock=clock)
    assert lease.acquire()
    os.utime(tmp_path / "x", ns=(1, 1))
    lease.renew()
    assert (tmp_path / "x").stat().st_mtime_ns == 1
    clock.now += BEAT
    lease.renew()
    assert (tmp_path / "x").stat().st_mtime_ns > 1


def test_a_lease_whose_owner_died_before_it_wrote_its_name_ends_too(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "x").write_bytes(b"")
    lease = Lease(tmp_path / "x", clock=clock)
    assert not lease.acquire()
    clock.now += PATIENCE
    assert lease.acquire()


def test_of_many_processes_that_remove_an_abandoned_lease_one_gets_it(tmp_path: Path) -> None:
    for _ in range(20):
        gone = os.fork()
        if gone == 0:
            Lease(tmp_path / "x").acquire()
            os._exit(0)
        os.waitpid(gone, 0)
        ready, go = os.pipe()
        children = []
        for _ in range(6):
            pid = os.fork()
            if pid == 0:
                os.close(go)
                os.read(ready, 1)  # all at once
                got = Lease(tmp_path / "x").acquire()
                if got:
                    import time

                    time.sleep(0.2)
                os._exit(1 if got else 0)
            children.append(pid)
        os.close(ready)
        os.close(go)
        assert sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children) == 1
        (tmp_path / "x").unlink(missing_ok=True)


def test_without_a_writable_folder_every_process_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Lease(tmp_path / "file" / "x").acquire()


@pytest.mark.parametrize(
    ("size", "same_folder"),
    [(3, True), pytest.param(8, True, marks=pytest.mark.long), pytest.param(8, False, marks=pytest.mark.long)],
)
def test_a_crowd_does_each_piece_of_work_once(
    size: int, same_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, count = write_plugin(tmp_path / "plugin"), tmp_path / "count"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ("--methods", "base,scaled,fits,fits-again", "--seeds", "2", "--quiet")
    environment = {**os.environ, "COUNT": str(count), "PAUSE": "1", "OCD_BENCH_CACHE": str(tmp_path / "cache")}
    outs = [tmp_path / ("out" if same_folder else f"out{i}") for i in range(size)]
    crowd = [
        subprocess.Popen(command(plugin, *words, "--out", str(out)), env=environment, stdout=subprocess.DEVNULL) for out in outs
    ]
    assert [process.wait(timeout=600) for process in crowd] == [0] * size
    done = Counter(count.read_text().splitlines())
    assert done["base 0"] == done["base 1"] == 1
    if same_folder:
        assert set(done.values()) == {1}
    alone = {**environment, "OCD_BENCH_CACHE": str(tmp_path / "cache1"), "COUNT": str(tmp_path / "count1")}
    subprocess.run(command(plugin, *words, "--out", str(tmp_path / "alone")), env=alone, check=True, stdout=subprocess.DEVNULL)
    for out in set(outs):
        assert numbers(out) == numbers(tmp_path / "alone")
        assert not list(out.rglob("*.tmp"))
        assert not (out / ".locks").exists()
    assert not list((tmp_path / "cache" / "bases").glob("*.lease"))
