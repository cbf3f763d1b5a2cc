"""Batch norm adaptation against the formula, for each kind of batch norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ocd_bench.methods.bn import BnAdapt
from tests.toy import ToyClasses, ToyValues, held_out, make_context


def normalised(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight.view(shape) + norm.bias.view(shape)


def test_statistics_are_those_of_the_batch_alone():
    context = make_context(ToyClasses(), dtype=torch.float64)
    base = context.base
    predictor = BnAdapt().fit(context)
    for part in held_out(context.task).inputs.double().split(16):
        hidden = normalised(base.conv(part), base.norm)
        expected = base.classifier(base.tanh(base.hidden(base.flatten(base.pool(base.relu(hidden))))))
        torch.testing.assert_close(predictor(part), expected)


def test_it_undoes_a_change_of_scale_and_offset():
    """With batch statistics, a scaled and shifted input gives nearly the same output."""

    class Borderless(ToyClasses):  # a border of zeros would not be scaled with the picture
        def base_model(self, splits, request):
            model = super().base_model(splits, request)
            model.conv, model.hidden = nn.Conv2d(1, 4, 3), nn.Linear(16, 8)
            return model

    context = make_context(Borderless(), dtype=torch.float64)
    inputs = held_out(context.task).inputs.double()
    predictor = BnAdapt().fit(context)
    torch.testing.assert_close(predictor(30 * inputs + 5), predictor(30 * inputs), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(predictor(30 * inputs + 5), predictor(inputs), rtol=1e-3, atol=1e-3)
    assert (context.base(30 * inputs + 5) - context.base(inputs)).abs().max() > 0.1


def test_it_needs_no_posterior_and_takes_batch_norm_1d():
    class Normed(ToyValues):
        def base_model(self, splits, request):
            return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 1))

    context = make_context(Normed(), layer="0", dtype=torch.float64)
    inputs = held_out(context.task).inputs.double()
    hidden = context.base[0](inputs)
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(BnAdapt().fit(context)(inputs), context.base[2](hidden))


@pytest.mark.parametrize("size", [1, 3])
def test_no_parameter_is_trained(size: int):
    context = make_context(ToyClasses())
    predictor = BnAdapt().fit(context)
    inputs = held_out(context.task).inputs
    first = predictor(inputs[:size])
    predictor(inputs)
    assert torch.equal(predictor(inputs[:size]), first)
