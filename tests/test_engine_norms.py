"""Per-sample weights of batch norm layers, against changed copies of the model, one for each sample."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ocd_bench.engine.norm_shares import adapted, measured
from ocd_bench.engine.norms import NormLayers, own, running
from ocd_bench.errors import NotApplicable


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 16, 5), nn.BatchNorm1d(5),
    ).double()  # fmt: skip
    for layer in (model[1], model[4]):
        nn.init.uniform_(layer.weight, 0.5, 2)
        nn.init.normal_(layer.bias)
    model.train()
    for _ in range(5):
        model(torch.randn(20, 2, 8, 8, dtype=torch.float64))
    return model.eval().requires_grad_(False)


@pytest.fixture
def samples() -> torch.Tensor:
    return torch.randn(6, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_one_pass_equals_a_changed_copy_of_the_model_for_each_sample(samples):
    """The naive way: change the first layer's weights for one sample, run the copy, and only then look at the second layer."""
    model = two_layers()
    usual = torch.randn(50, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    layers = NormLayers(copy.deepcopy(model), samples)
    assert [type(layer) for layer in layers.layers] == [nn.BatchNorm2d, nn.BatchNorm2d]  # not the BatchNorm1d
    shares = measured(layers, [usual])
    samples = 2 * samples + 0.5
    expected = []
    for sample in samples:
        changed = copy.deepcopy(model)
        for place in (1, 4):
            layer = changed[place]

            def seen(x: torch.Tensor, changed: nn.Module = changed, place: int = place) -> torch.Tensor:
                return changed[:place](x)

            def distance(x: torch.Tensor, layer: nn.Module = layer) -> tuple[float, float]:
                far, spread = 0.0, 0.0
                for channel in range(x.shape[1]):
                    numbers = x[0, channel].flatten()
                    mean, variance = numbers.mean(), ((numbers - numbers.mean()) ** 2).mean()
                    far += float((mean - layer.running_mean[channel]) ** 2 / (layer.running_var[channel] + layer.eps))
                    spread += abs(float(torch.log((variance + layer.eps) / (layer.running_var[channel] + layer.eps))))
                return (far / x.shape[1]) ** 0.5, spread / x.shape[1]

            plain = torch.tensor([distance(model[:place](row[None])) for row in usual])
            here = torch.tensor(distance(seen(sample[None])))
            excess = (here - plain.mean(0)) / plain.std(0)
            share = 1 / (1 + torch.exp(-(-2.2 + 0.5 * excess.sum())))
            numbers = seen(sample[None])[0].flatten(1)
            mean = (1 - share) * layer.running_mean + share * numbers.mean(1)
            layer.running_var = (1 - share) * layer.running_var + share * numbers.var(1, correction=0)
            layer.running_mean = mean
        expected.append(changed(sample[None])[0])
    found = adapted(layers, shares, samples)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert (found - model(samples)).abs().max() > 0.1
    torch.testing.assert_close(adapted(layers, shares, samples, gain=0.0), model(samples))


def test_a_change_of_a_norm_layer_is_one_affine_map_per_channel(samples):
    model = two_layers()
    layers = NormLayers(copy.deepcopy(model), samples)
    shares = measured(layers, [samples])
    maps = []

    def note(number, layer, x):
        statistics = running(layer).moved(own(x), shares(number, layer, own(x)))
        scale = layer.weight / (statistics.variance + layer.eps).sqrt()
        maps.append((scale, layer.bias - statistics.mean * scale))
        return x * scale[:, :, None, None] + maps[-1][1][:, :, None, None]

    with torch.no_grad():
        output = layers.run(samples, note)
    torch.testing.assert_close(output, adapted(layers, shares, samples))
    assert [scale.shape for scale, _ in maps] == [(6, 3), (6, 4)]


def test_the_model_is_left_as_it_was_even_after_an_error(samples):
    model = two_layers()
    layers = NormLayers(model, samples)
    before = model(samples)
    adapted(layers, measured(layers, [samples]), 3 * samples)

    def fails(number, layer, x):
        raise RuntimeError("here")

    with pytest.raises(RuntimeError, match="here"):
        layers.run(samples, fails)
    torch.testing.assert_close(model(samples), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.Identity(), "no BatchNorm1d/BatchNorm2d/BatchNorm3d layer in Sequential$"),
        (nn.GroupNorm(2, 4), r"in Sequential \(a layer or group norm uses each sample's own statistics already\)"),
        (nn.LayerNorm([4, 6, 6]), r"in Sequential \(a layer or group norm"),
        (nn.BatchNorm2d(4, track_running_stats=False), "the batch norm layers of Sequential keep no running statistics"),
    ],
)
def test_no_layer_with_statistics_of_a_sample_is_said_in_one_line(layer, why):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), layer).eval()
    inputs = torch.randn(3, 2, 8, 8).to(memory_format=torch.channels_last)
    with pytest.raises(NotApplicable, match=why):
        NormLayers(model, inputs)


@pytest.mark.parametrize("form", ["channels-last", "no scale", "one position", "volume"])
def test_layouts_and_layers_without_scale(form):
    torch.manual_seed(0)
    inputs, norm, conv = torch.randn(4, 2, 6, 6), nn.BatchNorm2d(3), nn.Conv2d(2, 3, 3)
    if form == "channels-last":
        inputs = inputs.to(memory_format=torch.channels_last)
    if form == "no scale":
        norm = nn.BatchNorm2d(3, affine=False)
    if form == "volume":
        inputs, norm, conv = torch.randn(4, 2, 5, 5, 5), nn.BatchNorm3d(3), nn.Conv3d(2, 3, 3)
    if form == "one position":
        inputs = torch.randn(4, 2, 3, 3)
    model = nn.Sequential(conv, norm).eval().requires_grad_(False)
    if form == "one position":  # one value per channel of a sample: there are no statistics
        with pytest.raises(NotApplicable, match="one value per channel"):
            NormLayers(model, inputs)
        return
    layers = NormLayers(model, inputs)
    shares = measured(layers, [inputs])
    torch.testing.assert_close(adapted(layers, shares, inputs, gain=0.0), model(inputs))
    assert (adapted(layers, shares, 3 * inputs) - model(3 * inputs)).abs().max() > 0.01
