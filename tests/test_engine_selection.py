"""The entropy criterion: the estimate against scipy, and a model with a known most influential layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from torch import nn

from ocd_bench.engine import selection
from ocd_bench.engine.capture import LayerRefused, TargetLayer, candidates
from ocd_bench.engine.selection import FLOOR, kde_entropy, layer_entropy, losses_under_noise


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def loss(output, target):
    return (output - target).square().sum(1)


def draws(count: int, columns: int = 4) -> torch.Tensor:
    """Skewed, with very different scales, like losses."""
    return torch.randn(count, columns, generator=generator(), dtype=torch.float64).exp() * torch.tensor(
        [1e-3, 1, 10, 1e3][:columns]
    )


@pytest.mark.parametrize("count", [2, 7, 300])
def test_entropy_is_that_of_scipys_density(count):
    values = draws(count)
    expected = [-np.log(gaussian_kde(column)(column)).mean() for column in values.T.numpy()]
    torch.testing.assert_close(kde_entropy(values), torch.tensor(expected))


def test_entropy_is_computed_in_chunks(monkeypatch):
    expected = kde_entropy(draws(50))
    for cells in (1, 60, 50 * 50 * 3):
        monkeypatch.setattr(selection, "_CELLS", cells)
        torch.testing.assert_close(kde_entropy(draws(50)), expected)


def test_many_draws_are_evaluated_at_some_of_them(monkeypatch):
    values = draws(1000)
    exact = kde_entropy(values)
    monkeypatch.setattr(selection, "POINTS", 125)
    torch.testing.assert_close(kde_entropy(values), exact, atol=0.02, rtol=0)
    assert not torch.equal(kde_entropy(values), exact)


def test_entropy_of_a_gaussian_and_of_a_scaled_quantity():
    values = torch.randn(2000, 3, generator=generator(), dtype=torch.float64)
    entropy = kde_entropy(values)
    # Scott's kernel widens the density a little
    torch.testing.assert_close(entropy, torch.full((3,), 0.5 * math.log(2 * math.pi * math.e)).double(), atol=0.08, rtol=0)
    torch.testing.assert_close(kde_entropy(100 * values - 7), entropy + math.log(100))


def test_a_constant_has_the_entropy_of_the_floor():
    values = torch.stack([torch.full((20,), 3.0), torch.zeros(20)], 1)
    torch.testing.assert_close(kde_entropy(values), torch.full((2,), math.log(FLOOR * math.sqrt(2 * math.pi))).double())
    torch.testing.assert_close(kde_entropy(values, 0.1), torch.full((2,), math.log(0.1 * math.sqrt(2 * math.pi))).double())


class Branches(nn.Module):
    """Three parallel layers of one size. ``loud`` affects the output, ``soft`` affects it little, ``mute`` does not."""

    def __init__(self) -> None:
        super().__init__()
        self.soft, self.loud, self.mute = (nn.Linear(4, 3) for _ in range(3))

    def forward(self, x):
        return torch.tanh(0.01 * self.soft(x) + self.loud(x) + 0.0 * self.mute(x))


def setting():
    torch.manual_seed(0)
    return Branches().double(), torch.randn(24, 4).double(), torch.randn(24, 3).double()


def test_the_most_influential_layer_is_ranked_first():
    model, inputs, targets = setting()
    names = candidates(model, inputs)
    for sigma in (0.05, 0.5):
        for unit in ("rms", "fan-in"):
            scores = layer_entropy(model, inputs, targets, loss, names, sigma, 64, generator(), unit=unit)
            assert list(scores) == names == ["soft", "loud", "mute"]
            assert scores["loud"] > scores["soft"] > scores["mute"]
            assert scores["mute"] == pytest.approx(24 * math.log(FLOOR * math.sqrt(2 * math.pi)))


def test_score_is_the_sum_over_samples_of_losses_of_changed_models():
    """Against a loop that puts the noise into the model's own weight."""
    model, inputs, targets = setting()
    weight = model.loud.weight.detach().clone()
    random, values = generator(), []
    std = 0.3 * weight.square().mean().sqrt()
    with torch.no_grad():
        for _ in range(10):
            model.loud.weight.copy_(weight + std * torch.randn(3, 4, generator=random, dtype=torch.float64))
            values.append(loss(model(inputs), targets))
        model.loud.weight.copy_(weight)
    expected = sum(-np.log(gaussian_kde(column)(column)).mean() for column in torch.stack(values).T.numpy())
    found = layer_entropy(model, inputs, targets, loss, ["loud"], 0.3, 10, generator())
    assert found["loud"] == pytest.approx(expected)


def test_score_depends_on_neither_batches_nor_other_layers():
    model, inputs, targets = setting()
    alone = layer_entropy(model, inputs, targets, loss, ["loud"], 0.2, 16, generator())
    together = layer_entropy(model, inputs, targets, loss, ["soft", "loud"], 0.2, 16, generator(), batch_size=5)
    assert together["loud"] == pytest.approx(alone["loud"])
    again = generator()
    first = layer_entropy(model, inputs, targets, loss, ["loud"], 0.2, 16, again)
    assert layer_entropy(model, inputs, targets, loss, ["loud"], 0.2, 16, again) != first


def test_fan_in_unit_is_kaimings():
    model, inputs, targets = setting()
    layer = TargetLayer(model, "loud")
    values = losses_under_noise(layer, layer.trace(inputs), targets, loss, 0.2 * math.sqrt(2 / 4), 8, generator())
    assert values.shape == (8, 24)
    found = layer_entropy(model, inputs, targets, loss, ["loud"], 0.2, 8, generator(), unit="fan-in")
    assert found["loud"] == pytest.approx(float(kde_entropy(values).sum()))


def test_memory_bounds_the_batch(monkeypatch):
    model, inputs, targets = setting()
    expected = layer_entropy(model, inputs, targets, loss, ["loud"], 0.2, 4, generator())
    sizes = []
    original = TargetLayer.trace
    monkeypatch.setattr(TargetLayer, "trace", lambda self, x: sizes.append(len(x)) or original(self, x))
    monkeypatch.setattr(selection, "_NUMBERS", 70)
    assert layer_entropy(model, inputs, targets, loss, ["loud"], 0.2, 4, generator()) == pytest.approx(expected)
    assert sizes == [1, 10, 10, 4]


def test_a_layer_below_is_run_once_per_batch():
    model, inputs, targets = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), torch.randn(6, 4), torch.randn(6, 3)
    runs, original = [], model[0].forward
    model[0].forward = lambda x: runs.append(len(x)) or original(x)
    layer_entropy(model, inputs, targets, loss, ["1"], 0.1, 20, generator())
    assert runs == [1, 6]


def test_invalid_arguments_and_losses_are_refused():
    model, inputs, targets = setting()
    for arguments in ((0.1, 1), (0.0, 8), (float("nan"), 8)):
        with pytest.raises(ValueError, match="2 draws, a positive sigma"):
            layer_entropy(model, inputs, targets, loss, ["loud"], *arguments, generator())
    with pytest.raises(ValueError, match="unit"):
        layer_entropy(model, inputs, targets, loss, ["loud"], 0.1, 8, generator(), unit="sd")
    with pytest.raises(ValueError, match="'loud': a loss is not finite"):
        layer_entropy(model, inputs, targets, lambda o, t: loss(o, t).log() * 0 + torch.inf, ["loud"], 0.1, 8, generator())
    with pytest.raises(LayerRefused):
        layer_entropy(model, inputs, targets, loss, ["lout"], 0.1, 8, generator())


def test_progress_is_reported():
    model, inputs, targets = setting()
    told = []
    layer_entropy(
        model, inputs, targets, loss, ["soft", "loud"], 0.1, 4, generator(), progress=lambda *counts: told.append(counts)
    )
    assert told == [(1, 2), (2, 2)]
