"""The `finetune` control against a plain training loop, and the count of what a fit costs against torch's own counter."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ocd_bench.engine.banks import validation
from ocd_bench.engine.controls.finetune import fit_finetuned
from ocd_bench.engine.cost import multiplications, samples_of_fit
from ocd_bench.engine.learn import Trainee
from ocd_bench.engine.ocd import LossSettings, fit, losses
from ocd_bench.seeds import seeded
from tests.toy_engine import QUICK, base, data, problem, stream

PLAIN = replace(QUICK, steps=7, ema=0.0, lr_schedule="constant", weight_decay=0.01, batch_size=16)


def without_dropout() -> nn.Module:
    model = base()
    model.drop.p = 0.0
    return model


def noisy(x, y, generator):
    return x + 0.3 * torch.randn(x.shape, generator=generator), y


def test_it_is_plain_training_on_the_hypernetworks_copies():
    model = without_dropout()
    task = problem(model=copy.deepcopy(model), count=60, augment=noisy)
    found = fit_finetuned(task, PLAIN, (3e-3,))
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.01)
    order, draw = torch.Generator(), torch.Generator()
    order.manual_seed(seeded(task.seed, "order").initial_seed())
    draw.manual_seed(seeded(task.seed, "augment").initial_seed())
    batches = [part for _ in range(3) for part in torch.randperm(60, generator=order)[:48].split(16)]
    for chosen in batches[:7]:
        x, y = noisy(task.train[0][chosen], task.train[1][chosen], draw)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    for name in ("first.weight", "norm.running_var", "norm.weight", "hidden.weight", "last.bias"):
        # Not the bias before the batch norm: it has no effect, so its gradient is rounding error, which Adam makes large.
        torch.testing.assert_close(found.model.state_dict()[name], model.state_dict()[name], rtol=1e-4, atol=1e-5)
    assert not torch.equal(found.model.hidden.weight, task.layer.layer.weight)  # and the base itself is as it was
    torch.testing.assert_close(task.layer.layer.weight, without_dropout().hidden.weight)


def test_a_step_sees_as_many_samples_as_the_hypernetworks_training_runs_through_the_base():
    seen: list[tuple[int, ...]] = []

    def excerpt(x, y, generator):
        seen.append(tuple(x.shape))
        return x, y

    fit_finetuned(problem(count=60, excerpt=excerpt), replace(PLAIN, task_batch=5), (1e-3,))
    assert seen == [(5, 6)] * 7


def test_the_gain_scales_the_change_of_weights_and_statistics():
    task = problem(count=60)
    fitted = fit_finetuned(task, PLAIN, (1e-2,))
    old, new, half = task.layer.model.state_dict(), fitted.model.state_dict(), fitted.mixed(0.5).state_dict()
    for name in ("hidden.weight", "norm.running_mean", "norm.bias"):
        torch.testing.assert_close(half[name], (old[name] + new[name]) / 2)
    x = data(9, seed=4)[0]
    none, one = fitted.outputs(x, (0.0, 1.0))
    assert torch.equal(none, base()(x))
    assert torch.equal(one, fitted.model(x))


def test_the_rate_is_chosen_on_validation_samples():
    task = problem(count=200, val=data(100, seed=8))
    single = {lr: fit_finetuned(task, PLAIN, (lr,)).loss for lr in (1e-6, 1e-2)}
    assert single[1e-2] < single[1e-6]
    assert fit_finetuned(task, PLAIN, (1e-6, 1e-2)).lr == 1e-2


# -- cost -------------------------------------------------------------------------------------------------------------------
def flops(action) -> float:
    """torch's own count; a multiplication and its addition count as two there."""
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Linear(5, 3), (4, 7, 5)),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (2, 4, 9, 9)),
        (nn.Conv1d(2, 3, 5, dilation=2), (2, 2, 20)),
        (nn.ConvTranspose1d(4, 2, 6, stride=3), (2, 4, 10)),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)), (5, 1, 6, 6)),
    ],
)
def test_multiplications_are_those_that_torch_counts(model: nn.Module, shape: tuple[int, ...]):
    x = torch.randn(shape)
    with torch.no_grad():
        assert multiplications(model, lambda: model(x)) == flops(lambda: model(x))


def test_a_recurrent_layer_counts_its_weights_at_every_step():
    model, x = nn.LSTM(3, 5, batch_first=True, bidirectional=True), torch.randn(2, 7, 3)
    assert multiplications(model, lambda: model(x)) == 2 * 4 * 5 * (3 + 5) * 2 * 7


def test_a_fit_costs_its_steps_in_passes_of_the_base():
    settings = replace(QUICK, steps=10, batch_size=8, task_weight=1.0, task_draws=2, overfit_steps=3)
    task = problem(count=60)
    fitted = fit(task, settings)
    model = task.layer.model
    with torch.no_grad():
        one = flops(lambda: model(task.train[0][:1]))
        known = validation(stream(task), fitted.form, 4)
        step = flops(
            lambda: losses(Trainee(fitted.network, None), known, None, LossSettings.of(settings), torch.Generator())
        ) / len(known)
    forward = 10 * 8 * (3 * step + (1 + 3 * 3) * one + 3 * 2 * one)
    assert samples_of_fit(fitted) == pytest.approx(forward / (3 * one))
    beforehand = replace(fitted, settings=replace(settings, passes=2, task_batch=4))
    forward = 10 * 8 * 3 * step + 2 * 60 * (1 + 3 * 3) * one + 10 * 4 * 3 * 2 * one
    assert samples_of_fit(beforehand) == pytest.approx(forward / (3 * one))
