"""The oracles against a loop that fine-tunes a copy of the model on each labelled test sample."""

from __future__ import annotations

import copy

import pytest
import torch

from ocd_bench.engine.overfit import Overfit
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.errors import UsageError
from ocd_bench.methods.oracle import Oracle, OracleAll, OracleSettings, resolved
from tests.toy import ToyClasses, ToyValues, held_out, make_context

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def oracle_loop(context, samples, how: Overfit, every_layer: bool) -> torch.Tensor:
    outputs = []
    for x, y in zip(samples.inputs.double(), samples.targets, strict=True):
        y = y.double() if y.is_floating_point() else y
        model = copy.deepcopy(context.base)
        weights = list(model.parameters()) if every_layer else [model.get_submodule(context.layer).weight]
        optimizer = OPTIMIZERS[how.optimizer]([w.requires_grad_() for w in weights], lr=how.lr)
        for _ in range(how.steps):
            optimizer.zero_grad()
            context.task.loss(model(x[None]), y[None]).sum().backward()
            optimizer.step()
        outputs.append(model(x[None]).detach())
    return torch.cat(outputs)


def cast(targets: torch.Tensor) -> torch.Tensor:
    return targets.double() if targets.is_floating_point() else targets


@pytest.mark.parametrize("task", [ToyClasses(), ToyValues()], ids=["classes", "values"])
@pytest.mark.parametrize("method", [Oracle(), OracleAll()], ids=["layer", "all"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_equals_one_copy_of_the_model_per_sample(task, method, optimizer: str):
    settings = {"oracle": OracleSettings(optimizer, 0.02, 2), "ocd": OCDSettings()}
    context = make_context(task, settings=settings, dtype=torch.float64)
    samples = held_out(task).take(slice(0, 7))
    before = copy.deepcopy(context.base.state_dict())
    output = method.fit(context)(samples.inputs.double(), cast(samples.targets))
    expected = oracle_loop(context, samples, Overfit(optimizer, 0.02, 2), method.name == "oracle-all")
    torch.testing.assert_close(output, expected, rtol=1e-7, atol=1e-8)
    assert not output.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in context.base.state_dict().items())


def test_labels_help_and_all_layers_help_more():
    settings = {"oracle": OracleSettings(lr=0.05), "ocd": OCDSettings()}
    context = make_context(ToyClasses(), settings=settings)
    samples = held_out(context.task)

    def mean_loss(output: torch.Tensor) -> float:
        return float(context.task.loss(output, samples.targets).mean())

    base = mean_loss(context.base(samples.inputs))
    layer = mean_loss(Oracle().fit(context)(samples.inputs, samples.targets))
    everything = mean_loss(OracleAll().fit(context)(samples.inputs, samples.targets))
    assert everything < layer < base


def test_a_convolution_can_be_the_layer():
    settings = {"oracle": OracleSettings(lr=0.02), "ocd": OCDSettings()}
    context = make_context(ToyClasses(), layer="conv", settings=settings, dtype=torch.float64)
    samples = held_out(context.task).take(slice(0, 5))
    output = Oracle().fit(context)(samples.inputs.double(), samples.targets)
    torch.testing.assert_close(output, oracle_loop(context, samples, Overfit("sgd", 0.02, 3), False))


def test_open_settings_are_those_of_ocd():
    ocd = OCDSettings(overfit_optimizer="adam", overfit_lr=0.3, overfit_steps=9)
    assert resolved(OracleSettings(), ocd) == Overfit("adam", 0.3, 9)
    assert resolved(OracleSettings(steps=4), ocd) == Overfit("adam", 0.3, 4)
    assert resolved(OracleSettings("sgd", 0.1, 2), ocd) == Overfit("sgd", 0.1, 2)


@pytest.mark.parametrize("values", [{"optimizer": "lbfgs"}, {"lr": -1.0}, {"steps": -1}])
def test_invalid_settings_are_refused(values):
    with pytest.raises(UsageError, match="oracle"):
        OracleSettings(**values)
