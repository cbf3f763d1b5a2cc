"""OCD on norm layers and on several layers: what the fit changes, and what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from ocd_bench.config import SelectSettings
from ocd_bench.engine.apply import apply
from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.norm_fit import Disturbance, NormProblem, choose, fit_norms
from ocd_bench.engine.norm_shares import measured
from ocd_bench.engine.norms import NormLayers
from ocd_bench.engine.settings import NormSettings, OCDSettings
from ocd_bench.engine.several import Changed
from ocd_bench.errors import NotApplicable, UsageError
from ocd_bench.layers import first_layer, layer_names
from ocd_bench.methods.norms import NormRule, OCDNorms
from ocd_bench.methods.ocd import OCD, OCDEnsemble
from ocd_bench.methods.quality import quality_of
from ocd_bench.samples import Splits
from ocd_bench.seeds import seeded
from ocd_bench.task import Request
from ocd_bench.testing.conformance import check_method
from tests.toy import ToyClasses, ToyValues, held_out, make_context

SMALL = OCDSettings(
    steps=20, batch_size=16, width=16, depth=1, input_encoder=False, gains=(8.0,), evaluations=1, overfit_lr=0.1
)
NORMS = NormSettings(steps=10, batch_size=32, val_samples=30, evaluations=2)


def test_the_untrained_network_is_the_rule():
    context = make_context(ToyClasses(), settings={"ocd_norms": NormSettings(steps=0, gains=(1.0,))})
    inputs = 2 * held_out(context.task).inputs
    torch.testing.assert_close(OCDNorms().fit(context)(inputs), NormRule().fit(context)(inputs), rtol=0, atol=0)


class Halves(nn.Module):
    """Which half of a picture is brighter, read off behind a ReLU: a level that is too low leaves nothing to read."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = self.norm(x).relu()
        return 4 * torch.stack([bright[..., :2].mean((1, 2, 3)), bright[..., 2:].mean((1, 2, 3))], 1)


def halves(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.arange(count) % 2
    inputs = 0.3 * torch.randn(count, 1, 4, 4, generator=generator)
    for side in (0, 1):
        inputs[targets == side, :, :, 2 * side : 2 * side + 2] += 2
    return inputs - 1, targets


def test_training_finds_that_own_statistics_undo_a_shift():
    """Under a shift of the level only the sample's own mean helps, so training must raise a share that starts near zero."""
    random, model = torch.Generator().manual_seed(0), Halves().eval().requires_grad_(False)
    train, val = halves(60, random), halves(250, random)
    layers = NormLayers(model, train[0][:2])
    rule = measured(layers, [train[0]])
    rule.rule[:] = torch.tensor([-4.0, 0.0, 0.0])
    how = replace(NORMS, lr=0.3, steps=30, strength=2.0, disturbed=1.0, noise=0.0, weight_decay=0.0, val_samples=250)
    task, device = ToyClasses(), torch.device("cpu")
    same = lambda inputs, targets, generator: (inputs, targets)  # noqa: E731
    problem = NormProblem(layers, rule, train, val, task.loss, device, same, same, quality_of(task), 0)
    start = choose(problem, how, rule).losses[-1]
    fitted = fit_norms(problem, how)
    assert min(record.val for record in fitted.history) < 0.5 * start
    assert (fitted.gain.value, fitted.parameters) == (1.0, 3)


def test_the_base_is_left_alone():
    context = make_context(ToyClasses(), settings={"ocd_norms": NORMS})
    before = copy.deepcopy(context.base.state_dict())
    assert OCDNorms().fit(context).parameters == 3
    assert all(torch.equal(value, context.base.state_dict()[name]) for name, value in before.items())


def test_a_sample_does_not_depend_on_its_batch():
    context = make_context(ToyClasses(), settings={"ocd_norms": NORMS}, dtype=torch.float64)
    predictor, inputs = OCDNorms().fit(context), 3 * held_out(context.task).inputs[:6].double()
    together = predictor(inputs)
    torch.testing.assert_close(torch.cat([predictor(row[None]) for row in inputs]), together)
    assert (together - context.base(inputs)).abs().max() > 1e-3


def test_a_gain_that_costs_more_than_the_budget_is_not_taken():
    free = make_context(ToyClasses(), settings={"ocd_norms": NormSettings(steps=0, budget=10.0, val_samples=30)})
    losses = OCDNorms().fit(free).detail["gain_losses"]
    assert torch.tensor(losses).isfinite().all()

    class Worse(ToyClasses):
        def metrics(self, output, target):  # the base alone scores
            base = (output - self.known).abs().max() < 1e-5 if len(output) == len(self.known) else False
            return {"accuracy": torch.full((len(output),), float(base))}

    task = Worse()
    context = make_context(task, settings={"ocd_norms": NormSettings(steps=0, budget=0.5, val_samples=30)})
    seed = context.generator("ocd-norms", "fit").initial_seed()
    chosen = torch.randperm(30, generator=seeded(seed, "norms validation"))
    task.known = context.base(context.val.inputs[chosen])
    detail = OCDNorms().fit(context).detail
    assert detail["gain"] == 0.0
    assert detail["gain_losses"][1:] == [float("inf")] * 4


def test_a_disturbance_is_in_one_layer_of_a_sample_and_repeats_with_its_generator():
    layers = [nn.BatchNorm2d(3).eval() for _ in range(4)]
    x = torch.randn(50, 3, 5, 5)

    def changed(share: float) -> torch.Tensor:
        made = Disturbance(50, 4, NormSettings(disturbed=share), torch.Generator().manual_seed(1))
        return torch.stack([(made(number, layer, x) != x).flatten(1).any(1) for number, layer in enumerate(layers)])

    assert changed(1.0).sum(0).tolist() == [1] * 50
    assert changed(1.0).any(1).all()
    assert not changed(0.0).any()
    made = [Disturbance(50, 4, NormSettings(), torch.Generator().manual_seed(1))(2, layers[2], x) for _ in range(2)]
    assert torch.equal(*made)


def test_ocd_on_norm_layers_is_ocd_norms_with_its_defaults(monkeypatch):
    monkeypatch.setattr(NormSettings, "steps", 5)
    select = SelectSettings(layer="norms")
    context = make_context(ToyClasses(), settings={"select": select, "ocd_norms": NormSettings()})
    inputs = held_out(context.task).inputs
    torch.testing.assert_close(OCD().fit(context)(inputs), OCDNorms().fit(context)(inputs), rtol=0, atol=0)
    with pytest.raises(NotApplicable, match="ocd alone changes norm layers"):
        OCDEnsemble().fit(context)


@pytest.mark.parametrize("method", [NormRule(), OCDNorms()])
def test_not_applicable_without_batch_norm(method):
    context = make_context(ToyValues(), settings={"ocd_norms": NORMS})
    with pytest.raises(NotApplicable, match="no BatchNorm1d"):
        method.fit(context)


# -- several Linear or Conv layers --------------------------------------------------------------------------------------------
def test_a_later_layer_is_fitted_on_what_the_earlier_change_made_of_each_sample():
    """The prediction by hand: change the first layer's weights of a copy for each sample, then the second's on that copy."""
    select = SelectSettings(layer="classifier,hidden")  # in any order
    context = make_context(ToyClasses(), settings={"select": select, "ocd": SMALL})
    predictor = OCD().fit(context)
    assert predictor.detail["layers"] == ["hidden", "classifier"]
    changed = predictor.fitted.problem.layer.model
    assert isinstance(changed, Changed)
    first, gain = changed._fitted
    inputs = held_out(context.task).inputs[:5]
    output = predictor(inputs)
    for row, sample in enumerate(inputs):
        one = copy.deepcopy(context.base)
        trace = first.problem.layer.trace(sample[None])
        e = first.network.condition(first.describe(trace), trace.inputs)
        (code,) = first.network.scale.join(e, first.directions(e, torch.zeros(1, 1, first.form.size)))
        one.hidden.weight += gain * first.form.decode(code, trace).matrix()[0]
        torch.testing.assert_close(changed(sample[None]), one(sample[None]), rtol=1e-4, atol=1e-5)
        second = predictor.fitted
        seen = TargetLayer(one, "classifier").trace(sample[None])
        (delta,) = second.draw(second.problem.layer.trace(sample[None]), 1, row)
        torch.testing.assert_close(second.describe(second.problem.layer.trace(sample[None])), second.describe(seen))
        one.classifier.weight += predictor.gain.value * delta.matrix()[0]
        torch.testing.assert_close(output[row], one(sample[None])[0], rtol=1e-4, atol=1e-4)
    assert (output - context.base(inputs)).abs().max() > 1e-3


class Looping(nn.Module):
    """A layer that runs twice, and one above it."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.loop, self.top = nn.Linear(36, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.below(x.flatten(1)))
        return self.top(torch.tanh(self.loop(torch.tanh(self.loop(x)))))


class Loops(ToyClasses):
    name = "loops"

    def base_model(self, splits: Splits, request: Request) -> nn.Module:
        return Looping()


class Rows(nn.Module):
    """Six steps of six numbers, through an attention and a recurrent module of torch."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        self.encoder, self.gru, self.top = nn.TransformerEncoder(layer, 1), nn.GRU(6, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.top(self.gru(self.encoder(x[:, 0]).transpose(0, 1))[0][-1])


class Sequences(ToyClasses):
    name = "sequences"

    def base_model(self, splits: Splits, request: Request) -> nn.Module:
        return Rows()


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (Loops, ["loop", "top"]),
        (Sequences, ["gru.weight_ih_l0", "gru.weight_hh_l0"]),
        (Sequences, ["encoder.layers.0.self_attn.in_proj_weight", "encoder.layers.0.self_attn.out_proj"]),
    ],
)
def test_an_earlier_layer_is_changed_wherever_its_weight_acts(task: type[ToyClasses], names: list[str]):
    """Also where it runs twice, and where both weights are inside one module that does not call them."""
    select = SelectSettings(layer=",".join(reversed(names)))
    context = make_context(task(), layer="top", settings={"select": select, "ocd": SMALL})
    predictor = OCD().fit(context)
    assert predictor.detail["layers"] == names
    assert predictor.detail["gains"][0] == 8.0
    changed = predictor.fitted.problem.layer.model
    first, gain = changed._fitted
    inputs = held_out(context.task).inputs[:5]
    for sample in inputs:
        trace = first.problem.layer.trace(sample[None])
        e = first.network.condition(first.describe(trace), trace.inputs)
        (code,) = first.network.scale.join(e, first.directions(e, torch.zeros(1, 1, first.form.size)))
        one = copy.deepcopy(context.base)
        TargetLayer(one, names[0]).layer.weight += gain * first.form.decode(code, trace).matrix()[0]
        torch.testing.assert_close(changed(sample[None]), one(sample[None]), rtol=1e-4, atol=1e-5)
        second = predictor.fitted
        (delta,) = second.draw(second.problem.layer.trace(sample[None]), 1)
        found = apply(second.problem.layer.trace(sample[None]), delta)
        TargetLayer(one, names[1]).layer.weight += delta.matrix()[0]
        torch.testing.assert_close(found, one(sample[None]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(changed(inputs), torch.cat([changed(row[None]) for row in inputs]), rtol=1e-4, atol=1e-5)
    assert (changed(inputs) - context.base(inputs)).abs().max() > 1e-3


@pytest.mark.parametrize("first", ["below", "loop"])
def test_a_later_layer_is_replayed_alike_whether_or_not_the_earlier_change_is_known(first: str):
    """The earlier change is kept for the next run on the same samples: a first trace finds it there, a later one does not."""
    select = SelectSettings(layer=f"{first},top")
    context = make_context(Loops(), layer="top", settings={"select": select, "ocd": SMALL})
    changed = copy.deepcopy(OCD().fit(context).fitted.problem.layer.model)
    layer = TargetLayer(changed, "model.top")
    known, other = (3 * held_out(context.task).inputs[rows] for rows in (slice(5), slice(5, 10)))
    changed(known)
    shift = torch.randn(5, 1, 3)
    for inputs in (known, other):
        trace = layer.trace(inputs)
        torch.testing.assert_close(trace.replay(shift), changed(inputs.clone()) + shift[:, 0])


def test_names_of_several_layers():
    context = make_context(ToyClasses())
    model, inputs = context.base, context.val.inputs[:3]
    assert layer_names("all", model, inputs) == ["conv", "hidden", "classifier"]
    assert layer_names("hidden, classifier", model, inputs) == ["hidden", "classifier"]
    for wrong, message in (("hidden,", "an empty name"), ("", "an empty name"), ("hidden,norms", "'norms' stands alone")):
        with pytest.raises(UsageError, match=message):
            layer_names(wrong, model, inputs)
    with pytest.raises(UsageError, match="'hidden' is there twice"):
        layer_names("hidden,conv,hidden", model, inputs)
    deep = nn.Sequential(nn.Flatten(), *(nn.Linear(36, 36) for _ in range(6)))
    with pytest.raises(UsageError, match="6 layers, and each doubles the cost of a prediction; give at most 4"):
        layer_names("all", deep, inputs)
    assert [first_layer(each) for each in ("norms", "all", "a.b,c", "fc")] == ["task", "task", "a.b", "fc"]


def test_ocd_on_the_last_layer_can_follow_the_rule():
    """`norm-rule+ocd`: the second method runs a copy of the handed-over model, whose norm layers are each sample's own."""
    context = make_context(ToyClasses(), dtype=torch.float64)
    predictor = NormRule().fit(context)
    inputs = 3 * held_out(context.task).inputs[:6].double()
    expected = predictor(inputs)
    model = copy.deepcopy(predictor.hand_over())
    torch.testing.assert_close(model(inputs), expected)
    torch.testing.assert_close(torch.cat([model(row[None]) for row in inputs]), expected)
    trace = TargetLayer(model, "classifier").trace(inputs)
    torch.testing.assert_close(trace.replay(torch.zeros_like(trace.response)), expected)


def test_the_methods_pass_the_conformance_kit():
    for method in (NormRule(), OCDNorms()):
        for result in check_method(method):
            assert result.status != "failed", result
