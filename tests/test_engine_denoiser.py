"""The fast denoiser, the trunk it shares with the regressor, and averaged weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ocd_bench.engine.hypernetwork import FastDenoiser, Trunk
from ocd_bench.engine.learn import EMA, parameter_count


def wake(module: nn.Module) -> nn.Module:
    """Random weights, because training starts with zeros in some layers."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def test_an_untrained_denoiser_returns_zero():
    torch.manual_seed(0)
    found = FastDenoiser(5, 16, 2)(torch.randn(4, 5), torch.tensor([0.0, 10, 500, 999]), torch.randn(4, 16))
    assert torch.equal(found, torch.zeros(4, 5))


@pytest.mark.parametrize("width", [16, 17])
def test_code_time_and_condition_all_matter_and_samples_do_not_mix(width):
    net = wake(FastDenoiser(5, width, 2))
    code, t, e = torch.randn(4, 5), torch.tensor([0.0, 10, 500, 999]), torch.randn(4, width)
    found = net(code, t, e)
    for other in (net(code + 0.1, t, e), net(code, t + 30, e), net(code, t, e + 0.1)):
        assert (other - found).abs().min() > 0
    torch.testing.assert_close(net(code[1:2], t[1:2], e[1:2]), found[1:2])


def test_the_regressor_is_the_same_trunk_without_code_and_time():
    denoiser, regressor = FastDenoiser(5, 16, 2), Trunk(5, 16, 2)
    assert denoiser.trunk.state_dict().keys() == regressor.state_dict().keys()
    own = parameter_count(denoiser.code) + parameter_count(denoiser.time)
    assert parameter_count(denoiser) == parameter_count(regressor) + own
    wake(regressor)
    e = torch.randn(3, 16)
    torch.testing.assert_close(regressor(e, torch.zeros(3, 16)), regressor(e))


def test_ema_equals_the_recursion_and_leaves_the_module_alone():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    average = EMA(module, 0.9)
    expected = module[0].weight.detach().clone()
    for n in range(1, 201):
        with torch.no_grad():
            module[0].weight += torch.randn(2, 3)
            module[1].running_mean += 1
        before = copy.deepcopy(module.state_dict())
        average.update(module)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * module[0].weight.detach()
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    torch.testing.assert_close(average.module[0].weight, expected)
    assert torch.equal(average.module[1].running_mean, module[1].running_mean)
    assert module.training
    assert not average.module.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    with pytest.raises(ValueError, match="0 <= decay < 1"):
        EMA(module, 1.0)
