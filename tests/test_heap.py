"""Freed memory is kept in a process that computes, and given back before a process is forked."""

from __future__ import annotations

import ctypes
import platform
import resource
from pathlib import Path

import pytest
import torch

from ocd_bench import heap
from ocd_bench.heap import freed_memory, release_freed_memory, trim
from ocd_bench.runner.messages import Message
from ocd_bench.runner.sandbox import run_child

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
NUMBERS = 15_000_000
PAGES = 4 * NUMBERS / resource.getpagesize()


def faults(times: int) -> int:
    """Page faults of so many large tensors, one after the other."""
    torch.set_num_threads(1)  # the threads of the parent's pool do not survive the fork
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(NUMBERS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_in_a_child_tensors_take_the_memory_of_those_before() -> None:
    found: list[Message] = []

    def work(send) -> None:
        send(Message("faults", {"count": faults(40)}))

    assert run_child(work, lambda child, message: found.append(message)).how == "returned"
    # A gap must be a little larger than the tensor, whose start is aligned, so that the first few do not fit.
    assert found[0].values["count"] < 15 * PAGES


def test_freed_memory_is_given_back_on_request() -> None:
    def work(send) -> None:
        torch.set_num_threads(1)
        torch.ones(NUMBERS)
        before = resident()
        release_freed_memory()
        send(Message("pages", {"count": before - resident()}))

    found: list[Message] = []
    run_child(work, lambda child, message: found.append(message))
    assert found[0].values["count"] > 0.9 * PAGES


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc before 2.33 does not tell what is free")
def test_now_and_then_freed_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "LEAST", 2 * NUMBERS)  # less than a tensor

    def work(send) -> None:
        torch.set_num_threads(1)
        clock = [0.0]
        monkeypatch.setattr(heap.time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(heap, "_last", 0.0)
        kept = []
        for clock[0] in (heap.EVERY - 1, heap.EVERY):
            torch.ones(NUMBERS)
            trim()
            kept.append([freed_memory() // (4 * NUMBERS), resident()])
        send(Message("kept", {"kept": kept}))

    found: list[Message] = []
    run_child(work, lambda child, message: found.append(message))
    (free, before), (_, after) = found[0].values["kept"]
    assert free >= 1
    assert before - after > 0.9 * PAGES


def resident() -> int:
    """Pages of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1])
