"""Training targets: what overfitting gives, made beforehand or batch by batch, in the form that suits the layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import ocd_bench.engine.targets as targets_module
from ocd_bench.engine.condition import features
from ocd_bench.engine.folds import Folds
from ocd_bench.engine.forms import FullForm, RankOneForm
from ocd_bench.engine.ocd import make_overfitter, source
from ocd_bench.engine.overfit import overfit
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.targets import Overfitter, pick_form
from ocd_bench.errors import UsageError
from tests.toy_engine import QUICK, loss, problem


def whole(task: Problem, overfitter: Overfitter) -> Folds:
    """The training samples, all with the same base."""
    return Folds.of(task.train, overfitter, 0, task.folds)


def shaken(inputs, targets, generator):
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator), targets


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("budget", [None, 800])
def test_targets_are_condition_and_code_of_the_overfitted_change(monkeypatch, budget):
    task = problem(count=20)
    overfitter = make_overfitter(task, QUICK, None)
    if budget:
        monkeypatch.setattr(targets_module, "BUDGET", budget)
        assert overfitter.rows(task.train[0]) < 20  # in several chunks
    form = RankOneForm(task.layer.shape)
    found = overfitter.make(form, *task.train, seeded())
    trace = task.layer.trace(task.train[0])
    own = overfit(task.layer, trace, task.train[1], loss, overfitter.how)
    torch.testing.assert_close(found.code, form.encode(own, trace))
    for name, value in features(trace).items():
        torch.testing.assert_close(found.features[name], value)
    assert found.inputs is None
    assert len(found) == 20


def test_inputs_are_kept_only_for_an_encoder_in_training():
    task = problem(count=6)
    form = RankOneForm(task.layer.shape)
    trained = make_overfitter(task, QUICK, nn.Linear(6, 2))
    assert torch.equal(trained.make(form, *task.train, seeded()).inputs, task.train[0])
    fixed = make_overfitter(task, QUICK, nn.Flatten())
    assert fixed.make(form, *task.train, seeded()).inputs is None


def test_augmentation_comes_before_subsampling_and_can_be_left_out():
    calls: list[str] = []

    def note(name):
        def change(inputs, targets, generator):
            calls.append(name)
            return inputs, targets

        return change

    overfitter = make_overfitter(problem(augment=note("augment"), subsample=note("subsample")), QUICK, None)
    x, y = problem().train
    overfitter.change(x, y, seeded())
    overfitter.change(x, y, seeded(), augment=False)
    assert calls == ["augment", "subsample", "subsample"]
    assert make_overfitter(problem(augment=shaken), replace(QUICK, augment=False), None).random is False


def test_without_chance_one_pass_beforehand_serves_every_batch():
    task = problem(count=40)
    settings = replace(QUICK, steps=10, batch_size=16)
    overfitter = make_overfitter(task, settings, None)
    form = FullForm(task.layer.shape)
    batch, known = source(task, settings, whole(task, overfitter), form)
    assert len(known) == 40
    everything = overfitter.make(form, *task.train, seeded())
    for _ in range(3):
        rows = batch().code
        assert all((everything.code - row).norm(dim=1).min() < 1e-6 for row in rows)
    few = replace(settings, steps=2)  # 32 visits to 40 samples: a whole pass would be a waste
    counted: list[int] = []
    original = overfitter.deltas
    overfitter.deltas = lambda x, y: counted.append(len(x)) or original(x, y)
    assert len(source(task, few, whole(task, overfitter), form)[0]()) == 16
    assert counted == [40, 16]  # statistics, then one batch


def test_with_augmentation_every_batch_is_new_unless_passes_say_otherwise():
    task = problem(count=16, augment=shaken)
    settings = replace(QUICK, batch_size=16)
    overfitter = make_overfitter(task, settings, None)
    form = FullForm(task.layer.shape)
    batch, _ = source(task, settings, whole(task, overfitter), form)
    first, second = batch().code, batch().code
    assert torch.cdist(first, second).min() > 0
    batch, known = source(task, replace(settings, passes=3), whole(task, overfitter), form)
    assert len(known) == 48
    assert len(known.code.unique(dim=0)) == 48
    drawn = torch.cat([batch().code for _ in range(3)])
    assert torch.equal(drawn.unique(dim=0), known.code.unique(dim=0))


def test_where_not_even_a_batch_fits_one_augmented_pass_is_made(monkeypatch):
    task = problem("conv", count=12, picture=True, augment=shaken)
    monkeypatch.setattr(targets_module, "BUDGET", 2000)
    overfitter = make_overfitter(task, replace(QUICK, batch_size=8), None)
    assert overfitter.rows(task.train[0]) < 8
    assert len(source(task, replace(QUICK, batch_size=8), whole(task, overfitter), FullForm(task.layer.shape))[1]) == 12


def test_one_position_means_rank_one_and_several_a_short_code():
    task = problem()
    overfitter = make_overfitter(task, QUICK, None)
    assert pick_form("auto", 0, overfitter, *task.train, seeded()).form.label == "rank-one"
    assert pick_form("full", 0, overfitter, *task.train, seeded()).form.size == 96
    assert pick_form("basis", 5, overfitter, *task.train, seeded()).form.describe() == "basis (5)"
    conv = problem("conv", picture=True)
    overfitter = make_overfitter(conv, QUICK, None)
    assert pick_form("auto", 0, overfitter, *conv.train, seeded()).form.size < 36
    assert pick_form("input-basis", 2, overfitter, *conv.train, seeded()).form.describe() == "input-basis (8)"
    with pytest.raises(UsageError, match="sees 12 positions per sample"):
        pick_form("rank-one", 0, overfitter, *conv.train, seeded())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_form_is_found_for_very_few_samples(count):
    task = problem("conv", count=count, picture=True)
    form = pick_form("auto", 0, make_overfitter(task, QUICK, None), *task.train, seeded()).form
    assert 1 <= form.size <= 36


def test_the_condition_holds_what_is_asked_for():
    task = problem(count=4, encoder=lambda: nn.Flatten())
    for names in ((), ("output",), ("input", "activation")):
        overfitter = make_overfitter(task, replace(QUICK, conditions=names), nn.Flatten())
        assert set(overfitter.describe(task.layer.trace(task.train[0]))) == {*names, "sample"}
    with pytest.raises(UsageError, match="'outputs' in this list: expected one of input, activation, output"):
        replace(QUICK, conditions=("outputs",))
