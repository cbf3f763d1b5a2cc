"""Kept states of unfinished work: a loop that was killed at any step and continued ends bit-identical to an unbroken one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ocd_bench.cache import entry_path, listed, pack, unpack
from ocd_bench.compose import led
from ocd_bench.config import BaseSettings
from ocd_bench.engine.controls.capacity import fit_plain
from ocd_bench.engine.ocd import fit
from ocd_bench.engine.shuffled import Shuffled
from ocd_bench.methods.ocd import OCD
from ocd_bench.progress import Progress
from ocd_bench.runner import stages
from ocd_bench.runner.stages import Stage, Stages, plain
from ocd_bench.runner.training import train
from ocd_bench.samples import Samples, Splits
from ocd_bench.task import Request, Task
from ocd_bench.testing.toy import ToyClasses, toy_context
from tests.toy_engine import QUICK, data, problem


class Killed(BaseException):
    """Stands for SIGKILL."""


class Kept(Progress):
    """Keeps the state of every step of one loop as bytes, and kills the process after so many steps."""

    def __init__(self, store: dict[Hashable, bytes], key: Hashable, left: list[float]) -> None:
        super().__init__()
        self.store, self.key, self.left = store, key, left

    def resume(self) -> Mapping[str, Any] | None:
        if self.key not in self.store:
            return None
        content = unpack(self.store[self.key])
        torch.set_rng_state(content["random"])
        return content["state"]

    def save(self, state: Callable[[], Mapping[str, Any]], finished: bool = False) -> None:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise Killed  # the work of this step is lost
        self.store[self.key] = pack({"state": state(), "random": torch.get_rng_state()})


def broken(work: Callable[[Callable[[str, Hashable], Progress]], Any], every: int) -> tuple[Any, int]:
    """The result of ``work`` that is killed after every so many steps, and how often it was."""
    store: dict[Hashable, bytes] = {}
    for kills in range(100):
        left: list[float] = [every]
        try:
            return work(lambda what, key: Kept(store, (what, key), left)), kills  # noqa: B023
        except Killed:
            pass
    raise AssertionError("it never ended")


def whole(work: Callable[[Callable[[str, Hashable], Progress]], Any]) -> Any:
    return work(lambda what, key: Progress())


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


SETTINGS = replace(QUICK, steps=24, batch_size=16, evaluations=4, dropout=0.2, task_weight=1.0, auxiliary=0.5, task_batch=8)


def noisy(x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return x + 0.1 * torch.randn(x.shape, generator=generator), y


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, replace(SETTINGS, passes=2, form="basis", basis=4), replace(SETTINGS, passes=1, augment=False)],
    ids=["new targets", "a bank and a basis", "a bank"],
)
@pytest.mark.parametrize("every", [1, 7])
def test_a_fit_that_is_killed_after_every_few_steps_ends_the_same(settings: Any, every: int) -> None:
    def work(stage: Callable[[str, Hashable], Progress]) -> Any:
        fitted = fit(problem(count=600, val=data(40, seed=3), augment=noisy, stage=stage), settings)
        return fitted, fitted.choose_gain(2)

    (one, gain), ((other, again), kills) = whole(work), broken(work, every)
    assert kills >= 24 // every
    assert same(one.network, other.network)
    assert one.history == other.history
    assert gain == again
    inputs = data(10, seed=4)[0]
    assert torch.equal(one.predict(inputs), other.predict(inputs))


def test_a_plain_network_that_is_killed_ends_the_same() -> None:
    def work(stage: Callable[[str, Hashable], Progress]) -> Any:
        return fit_plain(problem(count=50, augment=noisy, stage=stage), SETTINGS)

    one, (other, kills) = whole(work), broken(work, 5)
    assert kills == 4
    assert same(one.network, other.network)
    assert one.history == other.history


class Points(Task):
    """Two classes of points, with augmentation."""

    name = "points"

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target, reduction="none")

    def augment(self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Any:
        return noisy(inputs, targets, generator)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("count", [64, 65])  # 65: the last batch is of one sample, and is left out
@pytest.mark.parametrize("every", [1, 5])
def test_a_base_that_is_killed_in_its_training_ends_the_same(optimizer: str, count: int, every: int) -> None:
    samples = [Samples(*data(size, seed=size)) for size in (count, 20, 4)]
    settings = BaseSettings(epochs=3, batch_size=16, optimizer=optimizer, augment=True, lr=0.05)

    def work(stage: Callable[[str, Hashable], Progress]) -> nn.Module:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.3), nn.Linear(12, 3))
        request = Request("points", "default", seed=2)
        return train(model, Points(), Splits(*samples), request, settings, torch.device("cpu"), stage("base", None))

    one, (other, kills) = whole(work), broken(work, every)
    assert kills >= 2
    assert same(one, other)


def test_the_place_in_a_permutation_can_be_kept() -> None:
    batches = Shuffled(10, 4, torch.Generator().manual_seed(0))
    expected = [next(batches) for _ in range(7)]
    for done in range(7):
        first, second = (Shuffled(10, 4, torch.Generator().manual_seed(0)) for _ in range(2))
        for _ in range(done):
            next(first)
        second.set_state(first.get_state())
        for batch in expected[done:]:
            assert torch.equal(next(second), batch)


# -- states in the cache ------------------------------------------------------------------------------------------------------
class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("OCD_BENCH_KEEP_EVERY", raising=False)
    clock = Clock()
    monkeypatch.setattr(stages, "time", clock)
    return clock


def stage(notes: list[str] | None = None, seconds: list[float] | None = None) -> Stage:
    def note(text: str) -> None:
        assert notes is not None, text
        notes.append(text)

    take = (lambda value: None) if seconds is None else seconds.append
    return Stages("toy-data-s0", "w" * 64, note).loop("steps", ("key", 1), lambda done, total: None, take)


def never() -> dict[str, Any]:
    raise AssertionError("a state that is not due costs nothing")


def test_a_state_is_kept_every_twenty_seconds_of_work(clock: Clock) -> None:
    assert stage().resume() is None
    loop = stage()
    for step in range(1, 20):
        clock.now = float(step)
        loop.save(never)
    clock.now = 20.0
    loop.save(lambda: {"step": 20})
    clock.now = 39.0
    loop.save(never)
    seconds: list[float] = []
    later = stage(seconds=seconds)
    assert later.resume() == {"step": 20}
    assert seconds == [20.0]
    clock.now += 20.0
    later.save(lambda: {"step": 40})
    last = stage()
    assert last.resume() == {"step": 40}
    assert last.earlier == 40.0


def test_the_last_state_is_kept_after_three_seconds_and_short_work_is_not(clock: Clock) -> None:
    loop = stage()
    clock.now = 2.9
    loop.save(never, finished=True)
    clock.now = 3.0
    loop.save(lambda: {"step": 3}, finished=True)
    assert stage().resume() == {"step": 3}


def test_a_large_state_is_kept_less_often(clock: Clock) -> None:
    large = torch.zeros(20_000_000)  # 80 MB: 0.4 s to write, which is 1 % of 40 s
    loop, kept = stage(), []

    def state() -> dict[str, Any]:
        kept.append(clock.now)
        return {"large": large}

    for second in range(100):
        clock.now = float(second)
        loop.save(state)
    assert kept == [20.0, 41.0, 82.0]  # the first time its size is learned
    assert stage().resume() is not None


def test_a_slow_disk_is_written_less_often(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*words: Any) -> bool:
        clock.now += 0.5
        return True

    monkeypatch.setattr(stages, "keep", slow)
    loop, kept = stage(), []

    def state() -> dict[str, Any]:
        kept.append(clock.now)
        return {}

    for _ in range(130):
        clock.now += 1.0
        loop.save(state)
    assert kept == [20.0, 70.5, 121.0]


def test_a_user_can_set_how_often_states_are_kept(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCD_BENCH_KEEP_EVERY", "0")
    loop = stage()
    loop.save(lambda: {"step": 1})
    loop.save(lambda: {"step": 2})
    assert stage().resume() == {"step": 2}


def kept(clock: Clock, state: Mapping[str, Any], draw: bool = False) -> Path:
    torch.manual_seed(0)
    loop = stage()
    if draw:
        torch.rand(1)
    clock.now += 100.0
    loop.save(lambda: state)
    (entry,) = listed(("stages",), verify=True)
    assert not entry.problem
    return entry.path


@pytest.mark.parametrize("draw", [True, False])
def test_the_global_generator_goes_on_if_the_loop_drew_from_it(clock: Clock, draw: bool) -> None:
    kept(clock, {"step": 1}, draw)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    mine = torch.get_rng_state()
    stage().resume()
    assert torch.equal(torch.get_rng_state(), after if draw else mine)


def test_a_damaged_state_is_named_and_not_used(clock: Clock) -> None:
    path = kept(clock, {"step": 1})
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    notes: list[str] = []
    assert stage(notes).resume() is None
    assert len(notes) == 1
    assert path.name in notes[0]
    assert "does not match its sha256; computed again" in notes[0]


def test_a_state_of_other_work_is_not_found(clock: Clock) -> None:
    kept(clock, {"step": 1})

    def loop(work: str = "w" * 64, what: str = "steps", key: Hashable = ("key", 1)) -> Stage:
        return Stages("toy-data-s0", work, print).loop(what, key, lambda done, total: None)

    assert loop().resume() is not None
    assert loop(work="x" * 64).resume() is None
    assert loop(work="w" * 63 + "x").resume() is None
    assert loop(what="other").resume() is None
    assert loop(key=("key", 2)).resume() is None


def test_a_fit_on_what_another_method_adapts_has_loops_of_its_own() -> None:
    asked: list[Any] = []
    context, _ = toy_context(ToyClasses(), OCD(), {})
    context = replace(context, loops=lambda what, key: asked.append(plain(key)) or Progress())
    context.stage("training", "ocd")
    led(context, "tent", context.base, {}).stage("training", "ocd")
    led(context, "bn", context.base, {}).stage("training", "ocd")
    other = replace(context, base=nn.Linear(2, 2))
    other.stage("training", "ocd")
    assert len({repr(key) for key in asked}) == len(asked) == 4


def test_finished_work_leaves_no_state_and_others_keep_theirs(clock: Clock) -> None:
    path = kept(clock, {"step": 1})
    other = entry_path("stages", "toy-data-s0-abcd-steps", "0" * 64)
    other.write_bytes(b"")
    Stages("toy-data-s0", "w" * 64, print).discard()
    assert not path.exists()
    assert other.exists()


@dataclass(frozen=True)
class Pair:
    first: int
    second: Any


def test_keys_are_the_same_in_every_process() -> None:
    assert plain((1, "a", 0.1, None, Pair(2, plain), Path("a/b"))) == [
        1,
        "a",
        0.1,
        None,
        [f"{__name__}.Pair", {"first": 2, "second": "ocd_bench.runner.stages.plain"}],
        "a/b",
    ]
    for key in (lambda: None, torch.zeros(1), object()):
        with pytest.raises(TypeError, match="the key of a stage holds"):
            plain(key)
