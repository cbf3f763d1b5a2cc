"""The task's loss of predicted codes, computed in chunks through the base, against autograd over the whole batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import ocd_bench.engine.capture as capture_module
from ocd_bench.engine.apply import TaskLoss, apply
from ocd_bench.engine.forms import FullForm, LearnedBasisForm, RankOneForm
from ocd_bench.engine.ocd import fit
from ocd_bench.engine.overfit import Overfit, losses, overfit
from ocd_bench.engine.targets import Targets
from tests.toy_engine import QUICK, data, loss, problem, stream


@pytest.mark.parametrize("kind", [RankOneForm, FullForm])
def test_value_and_gradient_are_those_of_the_whole_batch(kind):
    task = problem(count=10)
    x, y = task.train
    form = kind(task.layer.shape)
    pieces = [(task.layer.trace(x[a:b]), y[a:b]) for a, b in ((0, 4), (4, 10))]
    codes = 0.3 * torch.randn(3, 10, form.size, generator=torch.Generator().manual_seed(0))

    ours = codes.clone().requires_grad_()
    value = TaskLoss(loss, pieces, unit=0.5).of_codes(2 * ours, form)
    value.backward()

    whole = codes.clone().requires_grad_()
    trace = task.layer.trace(x)
    outputs = [apply(trace, form.decode(2 * draw, trace)) for draw in whole]
    expected = torch.stack([loss(output, y) for output in outputs]).mean() / 0.5
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.grad, whole.grad)


def test_a_learned_basis_gets_its_gradients_too():
    task = problem(count=10)
    x, y = task.train
    form = LearnedBasisForm(task.layer.shape, 3)
    torch.nn.init.normal_(form.directions, generator=torch.Generator().manual_seed(1))
    pieces = [(task.layer.trace(x[a:b]), y[a:b]) for a, b in ((0, 4), (4, 10))]
    codes = torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(0))
    TaskLoss(loss, pieces, unit=0.5).of_codes(codes, form).backward()
    found = form.directions.grad.clone()
    form.directions.grad = None
    trace = task.layer.trace(x)
    outputs = [apply(trace, form.decode(draw, trace)) for draw in codes]
    (torch.stack([loss(output, y) for output in outputs]).mean() / 0.5).backward()
    torch.testing.assert_close(found, form.directions.grad)


def test_other_outputs_are_measured_in_the_same_unit():
    task = problem(count=10)
    x, y = task.train
    pieces = [(task.layer.trace(x[a:b]), y[a:b]) for a, b in ((0, 4), (4, 7))]  # the first seven
    outputs = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    value = TaskLoss(loss, pieces, unit=0.5).of_outputs(outputs)
    torch.testing.assert_close(value, loss(outputs[:7], y[:7]).mean() / 0.5)


def test_without_gradients_it_is_a_number():
    task = problem(count=4)
    x, y = task.train
    form = RankOneForm(task.layer.shape)
    with torch.no_grad():
        value = TaskLoss(loss, [(task.layer.trace(x), y)]).of_codes(torch.zeros(1, 4, form.size), form)
    torch.testing.assert_close(value, losses(task.layer.trace(x), y, loss).mean())


def test_the_unit_is_what_overfitting_gains():
    task = problem(count=12)
    x, y = task.train
    trace = task.layer.trace(x)
    delta = overfit(task.layer, trace, y, loss, Overfit.of(QUICK))
    expected = losses(trace, y, loss).mean() - losses(trace, y, loss, delta).mean()
    assert stream(task).gain() == pytest.approx(float(expected), rel=1e-5)
    assert stream(replace(task, loss=lambda output, target: 0 * loss(output, target))).gain() == 1.0


def test_targets_have_the_data_of_the_loss_with_new_subsamples():
    def crop(inputs, targets, generator):
        return inputs + torch.randn(1, generator=generator), targets

    task = problem(count=6, subsample=crop)
    targets = stream(task, replace(QUICK, task_weight=1.0))
    form = RankOneForm(task.layer.shape)
    made, pieces = targets.make(form, torch.arange(6), torch.Generator().manual_seed(0))
    assert torch.equal(made.inputs, task.train[0])  # whole, not the part that was overfitted
    assert not torch.equal(pieces[0][0].inputs, made.inputs)
    taken = made.take(slice(2, 5))
    generator = torch.Generator().manual_seed(1)
    first, second = (targets.traced(taken, generator)[0][0].inputs for _ in range(2))
    assert first.shape == second.shape == (3, 6)
    assert not torch.equal(first, second)


def test_only_the_first_few_are_traced_and_by_excerpt():
    task = problem(count=6, subsample=lambda x, y, generator: (x[:, :1], y), excerpt=lambda x, y, generator: (x + 1, y))
    made = Targets({}, torch.ones(6, 8), *task.train)
    ((trace, answers),) = stream(task, replace(QUICK, task_weight=1.0)).traced(made, torch.Generator(), most=4)
    assert torch.equal(trace.inputs, task.train[0][:4] + 1)
    assert torch.equal(answers, task.train[1][:4])
    form = RankOneForm(task.layer.shape)
    codes = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = TaskLoss(loss, [(trace, answers)]).of_codes(codes, form)
    value.backward()
    outputs = [apply(trace, form.decode(draw[:4], trace)) for draw in codes]
    torch.testing.assert_close(value, torch.stack([loss(output, answers) for output in outputs]).mean())
    assert codes.grad[:, :4].any(-1).all()
    assert not codes.grad[:, 4:].any()


@pytest.mark.parametrize("budget", [None, 800])
def test_training_on_it_lowers_it(monkeypatch, budget):
    """In a few steps the task's loss reaches a lower loss than imitation."""
    if budget:
        monkeypatch.setattr(capture_module, "BUDGET", budget)  # several chunks per batch
    settings = replace(QUICK, steps=60, overfit_lr=0.05)
    x, y = data(200, seed=20)
    after = {
        weight: float(loss(fit(problem(count=300), replace(settings, task_weight=weight)).predict(x, 5), y).mean())
        for weight in (0.0, 3.0)
    }
    before = float(loss(fit(problem(), replace(settings, steps=1)).predict(x, gain=0.0), y).mean())
    assert after[3.0] < after[0.0] < before
    assert before - after[3.0] > 1.5 * (before - after[0.0])
