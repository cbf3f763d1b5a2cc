"""The training loop: learning rates, batches, and the weights that are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from ocd_bench.engine.condition import Condition
from ocd_bench.engine.forms import FullForm
from ocd_bench.engine.hypernetwork import ScaleNetwork
from ocd_bench.engine.learn import Trainee, Training, learn
from ocd_bench.engine.ocd import LossSettings, fast_hypernetwork, losses
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.shuffled import Shuffled
from ocd_bench.engine.targets import Targets
from ocd_bench.progress import Progress
from tests.toy_engine import QUICK


def test_the_rate_warms_up_then_follows_a_half_cosine_or_is_constant():
    how = Training(steps=200, lr=1.0)
    assert [how.rate(step) for step in (0, 9, 19)] == pytest.approx([0.05, 0.5, 1.0])
    assert how.rate(110) == pytest.approx(0.5)
    assert 0 < how.rate(199) < 1e-3
    assert replace(how, lr_schedule="constant").rate(199) == 1
    assert Training(steps=1, lr=1.0).rate(0) == 1
    assert Training(steps=100_000, lr=1.0).rate(99) == 1


def test_batches_are_permutations_of_equal_size():
    batches = Shuffled(10, 4, torch.Generator().manual_seed(0))
    drawn = [next(batches) for _ in range(4)]
    assert [len(batch) for batch in drawn] == [4, 4, 4, 4]
    for first, second in (drawn[:2], drawn[2:]):
        assert len(torch.cat([first, second]).unique()) == 8
    assert len(next(Shuffled(3, 128, torch.Generator()))) == 3


def fit_line(how: Training, validate=None):
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 1

    def loss(trainee: Trainee) -> dict[str, torch.Tensor]:
        assert trainee.training
        halves = (trainee.network(x) - y).square().chunk(2)
        return {"first": halves[0].sum() / len(x), "second": halves[1].sum() / len(x)}

    def left(trainee: Trainee) -> float:
        assert not trainee.training
        assert not torch.is_grad_enabled()
        return float((trainee.network(x) - y).square().mean())

    told: list[tuple[int, int]] = []
    net = nn.Sequential(nn.Linear(3, 1))
    best, history = learn(Trainee(net, None), loss, validate or left, how, Progress(lambda *step: told.append(step)))
    assert told == [(step, how.steps) for step in range(1, how.steps + 1)]
    return net, best, history, left


def test_a_linear_function_is_learned_and_the_history_is_recorded():
    _, best, history, left = fit_line(Training(steps=300, lr=0.1, ema=0.9, evaluations=3))
    assert [record.step for record in history] == [100, 200, 300]
    assert history[0].train > history[1].train > history[2].train
    with torch.no_grad():
        assert left(Trainee(best, None).eval()) == pytest.approx(history[-1].val)
    assert history[-1].val < 1e-4
    assert not any(parameter.requires_grad for parameter in best.parameters())


def test_the_evaluation_of_least_loss_is_kept_or_with_one_the_last():
    answers = iter([3.0, 1.0, 2.0])
    weights: list[torch.Tensor] = []

    def validate(trainee: Trainee) -> float:
        weights.append(trainee.network[0].weight.clone())
        return next(answers)

    _, best, history, _ = fit_line(Training(steps=30, lr=0.1, ema=0.5, evaluations=3), validate)
    assert [record.val for record in history] == [3.0, 1.0, 2.0]
    assert torch.equal(best[0].weight, weights[1])
    net, last, history, _ = fit_line(Training(steps=30, lr=0.1, ema=0.0, evaluations=1), lambda net: float("nan"))
    assert len(history) == 1
    torch.testing.assert_close(last[0].weight, net[0].weight.detach())


def test_more_evaluations_than_steps_are_allowed():
    assert [record.step for record in fit_line(Training(steps=3, lr=0.1, evaluations=10))[2]] == [1, 2, 3]


def test_in_bf16_the_loss_is_computed_in_bfloat16_and_the_weights_stay_float32():
    seen: list[torch.dtype] = []

    class Watched(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(super().forward(x).dtype)
            return super().forward(x).float()

    def loss(trainee: Trainee) -> dict[str, torch.Tensor]:
        return {"all": trainee.network(torch.ones(4, 3)).square().mean()}

    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        seen.clear()
        how = Training(steps=2, lr=0.1, evaluations=1, precision=precision)
        best, history = learn(Trainee(nn.Sequential(Watched(3, 1)), None), loss, lambda trainee: 0.0, how)
        assert seen == [dtype, dtype]
        assert {parameter.dtype for parameter in best.parameters()} == {torch.float32}
        assert history[0].train > 0


def test_settings_contain_the_training_configuration():
    settings = OCDSettings(steps=7, lr=0.3, weight_decay=0.2, lr_schedule="constant", ema=0.4, evaluations=2)
    assert Training.of(settings) == Training(7, 0.3, 0.2, "constant", 0.4, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_step_waits_for_the_gpu():
    """From the second step on: the first may set things up. Targets come from memory, as where they were made beforehand."""
    device = torch.device("cuda")
    features, form, how = {"input": torch.randn(64, 6)}, FullForm((4, 6)), replace(QUICK, task_weight=0.0, batch_size=16)
    bank = Targets(features, torch.randn(64, form.size))
    network = fast_hypernetwork(
        how, form, lambda width: Condition.like(features, None, width, None), lambda width: ScaleNetwork(width)
    )
    network.calibrate(bank)
    indices, noise, steps = Shuffled(64, 16, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(0), [0]

    def loss(trainee: Trainee) -> dict[str, torch.Tensor]:
        steps[0] += 1
        torch.cuda.set_sync_debug_mode("error" if steps[0] > 1 else "default")
        return losses(trainee, bank.take(next(indices)).to(device), None, LossSettings.of(how), noise)

    def validate(trainee: Trainee) -> float:
        torch.cuda.set_sync_debug_mode("default")
        return 0.0

    try:
        learn(Trainee(network, None).to(device), loss, validate, Training(steps=4, lr=1e-3, evaluations=1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps == [4]


def test_a_training_of_so_many_minutes_ends_in_time_with_an_evaluation_and_is_continued_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 10_000, 20))  # a step takes 20 seconds
    monkeypatch.setattr("ocd_bench.engine.learn.time.monotonic", lambda: float(next(clock)))

    class Killed(Exception):
        pass

    class Kept(Progress):
        state, killed_at = None, 0

        def resume(self):
            return self.state

        def save(self, state, finished=False):
            Kept.state = state()
            if self.state["step"] == self.killed_at:
                raise Killed

    def steps_of_records() -> list[int]:
        trainee = Trainee(nn.Sequential(nn.Linear(3, 1)), None)
        how = Training(steps=1000, lr=0.1, evaluations=250, minutes=2.3)
        _, history = learn(
            trainee, lambda it: {"all": it.network(torch.ones(1, 3)).square().mean()}, lambda it: 0.0, how, Kept()
        )
        return [record.step for record in history]

    Kept.killed_at = 5
    with pytest.raises(Killed):
        steps_of_records()
    Kept.killed_at = 0
    assert steps_of_records() == [4, 7]
    assert steps_of_records() == [4, 7], "a finished one does no step more"
