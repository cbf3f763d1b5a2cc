"""Training targets: overfitted changes, computed in advance or batch by batch, in the form for the layer."""

from __future__ import annotations

import resource
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

import ocd_bench.engine.capture as capture_module
import ocd_bench.engine.size as size_module
from ocd_bench.engine.banks import bank, batches, validation
from ocd_bench.engine.capture import Describe
from ocd_bench.engine.choose_form import pick_form
from ocd_bench.engine.forms import FORMS, Form, FullForm, RankOneForm
from ocd_bench.engine.ocd import fit
from ocd_bench.engine.overfit import Overfit, overfit
from ocd_bench.engine.problem import Problem
from ocd_bench.errors import UsageError
from tests.toy_engine import QUICK, loss, problem, stream


def shaken(inputs, targets, generator):
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator), targets


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("budget", [None, 800])
def test_targets_are_condition_and_code_of_the_overfitted_change(monkeypatch, budget):
    task = problem(count=20)
    if budget:
        monkeypatch.setattr(capture_module, "BUDGET", budget)
        assert task.layer.rows(task.train[0]) < 20  # in several chunks
    form = RankOneForm(task.layer.shape)
    found, pieces = stream(task).make(form, torch.arange(20), seeded())
    trace = task.layer.trace(task.train[0])
    own = overfit(task.layer, trace, task.train[1], loss, Overfit.of(QUICK))
    torch.testing.assert_close(found.code, form.encode(own, trace))
    assert not pieces
    for name, value in Describe()(trace).items():
        torch.testing.assert_close(found.features[name], value)
    assert found.inputs is None
    assert len(found) == 20


def test_inputs_are_stored_only_if_an_encoder_is_trained():
    task = problem(count=6)
    form = RankOneForm(task.layer.shape)
    rows = torch.arange(6)
    trained = stream(replace(task, encoder=lambda: nn.Linear(6, 2)))
    assert torch.equal(trained.make(form, rows, seeded())[0].inputs, task.train[0])
    fixed = stream(replace(task, encoder=nn.Flatten))
    assert fixed.make(form, rows, seeded())[0].inputs is None


def test_augmentation_comes_before_subsampling_and_can_be_left_out():
    calls: list[str] = []

    def note(name):
        def change(inputs, targets, generator):
            calls.append(name)
            return inputs, targets

        return change

    task = problem(augment=note("augment"), subsample=note("subsample"))
    list(stream(task).changed(torch.arange(4), seeded()))
    list(stream(task, replace(QUICK, augment=False)).changed(torch.arange(4), seeded()))
    assert calls == ["augment", "subsample", "subsample"]
    assert stream(problem(augment=shaken), replace(QUICK, augment=False)).random is False


def test_without_randomness_one_precomputed_pass_is_used_for_every_batch():
    task = problem(count=40)
    settings = replace(QUICK, steps=10, batch_size=16)
    form = FullForm(task.layer.shape)
    batch, known, _ = batches(stream(task, settings), form)
    assert len(known) == 40
    everything, _ = stream(task).make(form, torch.arange(40), seeded())
    for _ in range(3):
        rows = batch()[0].code
        assert all((everything.code - row).norm(dim=1).min() < 1e-6 for row in rows)
    few = replace(settings, steps=2)  # 32 visits to 40 samples: a whole pass would be a waste
    counted: list[int] = []
    made = stream(task, few)
    original = made.make
    made.make = lambda form, indices, generator: counted.append(len(indices)) or original(form, indices, generator)
    assert len(batches(made, form)[0]()[0]) == 16
    assert counted == [40, 16]  # statistics, then one batch


def test_with_augmentation_every_batch_is_new_unless_passes_say_otherwise():
    task = problem(count=16, augment=shaken)
    settings = replace(QUICK, batch_size=16)
    form = FullForm(task.layer.shape)
    batch, _, _ = batches(stream(task, settings), form)
    first, second = batch()[0].code, batch()[0].code
    assert torch.cdist(first, second).min() > 0
    batch, known, _ = batches(stream(task, replace(settings, passes=3)), form)
    assert len(known) == 48
    assert len(known.code.unique(dim=0)) == 48
    drawn = torch.cat([batch()[0].code for _ in range(3)])
    assert torch.equal(drawn.unique(dim=0), known.code.unique(dim=0))


def test_where_not_even_a_batch_fits_one_augmented_pass_is_made(monkeypatch):
    task = problem("conv", count=12, picture=True, augment=shaken)
    monkeypatch.setattr(capture_module, "BUDGET", 2000)
    assert task.layer.rows(task.train[0]) < 8
    _, known, _ = batches(stream(task, replace(QUICK, batch_size=8)), FullForm(task.layer.shape))
    assert len(known) == 12


def test_one_position_means_rank_one_and_several_a_short_code():
    def picked(task: Problem, name: str, basis: int = 1) -> Form:
        return pick_form(stream(task, replace(QUICK, form=name, basis=basis))).form

    task = problem()
    assert picked(task, "auto").label == "rank-one"
    assert picked(task, "full").size == 96
    assert picked(task, "basis", 5).describe() == "basis (5)"
    conv = problem("conv", picture=True)
    assert picked(conv, "auto").size < 36
    assert picked(conv, "input-basis", 2).describe() == "input-basis (8)"
    with pytest.raises(UsageError, match="sees 12 positions per sample"):
        picked(conv, "rank-one")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_form_is_chosen_for_very_few_samples(count):
    task = problem("conv", count=count, picture=True)
    form = pick_form(stream(task)).form
    assert 1 <= form.size <= 36


def test_the_condition_has_the_requested_features():
    task = problem(count=4, encoder=nn.Flatten)
    for names in ((), ("output",), ("input", "activation")):
        describe = stream(task, replace(QUICK, conditions=names)).describe
        assert set(describe(task.layer.trace(task.train[0]))) == {*names, "sample"}
    with pytest.raises(UsageError, match="'outputs' in this list: expected one of input, activation, output"):
        replace(QUICK, conditions=("outputs",))


def test_a_new_form_is_one_class_that_the_settings_then_accept():
    class LastColumn(RankOneForm):
        name = label = "last-column"

    try:
        settings = replace(QUICK, form="last-column")
        assert isinstance(pick_form(stream(problem(), settings)).form, LastColumn)
    finally:
        del FORMS["last-column"]
    with pytest.raises(UsageError, match="setting ocd.form='last-column': expected one of auto, full, rank-one"):
        replace(QUICK, form="last-column")


@pytest.mark.parametrize("make", ["bank", "validation"])
def test_traces_are_dropped_chunk_by_chunk(make, monkeypatch):
    """Those of a whole batch can take gigabytes."""
    task = problem(count=12)
    alive: list[weakref.ref] = []
    most = 0
    trace = task.layer.trace

    def watched(inputs: torch.Tensor):
        nonlocal most
        made = trace(inputs)
        alive.append(weakref.ref(made))
        most = max(most, sum(one() is not None for one in alive))
        return made

    monkeypatch.setattr(task.layer, "rows", lambda inputs: 2)
    monkeypatch.setattr(task.layer, "trace", watched)
    targets = stream(task, replace(QUICK, task_weight=1.0))
    form = FullForm(task.layer.shape)
    found = bank(targets, form) if make == "bank" else validation(targets, form, 12)
    assert len(found) == 12
    assert len(alive) == 6
    assert most == 1


@pytest.mark.parametrize(("size", "gb"), [(8192, "825"), (1024, "26")])
def test_a_full_form_that_is_too_large_is_refused_before_it_allocates(size: int, gb: str, monkeypatch):
    """On a machine of 17 GB. For 1,024 x 1,024 neither the codes nor the network are too large alone."""
    monkeypatch.setattr(size_module, "memory", lambda device: 2**34)
    model = nn.Sequential(nn.Linear(6, size), nn.Linear(size, size), nn.Linear(size, 3)).eval().requires_grad_(False)
    task = problem("1", model=model, count=8)
    how = replace(QUICK, form="full", steps=1, width=256, batch_size=64, noise_draws=4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    expected = rf"form full \({size**2}\): .* of a layer of {size} x {size} would take about {gb} GB, of 17 GB in all"
    with pytest.raises(UsageError, match=expected):
        fit(task, how)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kilobytes
