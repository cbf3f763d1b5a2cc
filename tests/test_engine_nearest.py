"""The controls that OCD is compared with: the nearest neighbour's weight change, and the plain network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from ocd_bench.engine.apply import apply
from ocd_bench.engine.controls.capacity import LARGEST_OUTPUT, fit_plain
from ocd_bench.engine.controls.capacity_positions import fit_by_position
from ocd_bench.engine.controls.nearest import Nearest
from ocd_bench.engine.overfit import Overfit, overfit
from ocd_bench.errors import NotApplicable
from tests.toy_engine import QUICK, base, data, loss, problem


@pytest.mark.parametrize(("layer", "picture"), [("hidden", False), ("conv", True)])
def test_a_training_sample_is_its_own_neighbour(layer, picture):
    task = problem(layer, count=20, picture=picture)
    nearest = Nearest(task, QUICK)
    trace = task.layer.trace(task.train[0])
    own = overfit(task.layer, trace, task.train[1], loss, Overfit("sgd", QUICK.overfit_lr, 3))
    half, one, none = nearest.outputs(task.train[0], (0.5, 1.0, 0.0))
    torch.testing.assert_close(one, apply(trace, own))
    torch.testing.assert_close(half, apply(trace, own.scaled(torch.full((20,), 0.5))))
    torch.testing.assert_close(none, trace.output)


def test_the_neighbour_is_the_nearest_in_standardised_features():
    task = problem(count=40)
    nearest = Nearest(task, QUICK)
    x = data(15, seed=9)[0]
    hidden = {name: [] for name in ("input", "activation", "output")}
    for samples in (task.train[0], x):
        below = task.layer.model[:4](samples)
        hidden["input"].append(below)
        hidden["activation"].append(task.layer.layer(below))
        hidden["output"].append(task.layer.model(samples))
    distance = torch.zeros(15, 40)
    for known, new in hidden.values():
        deviation = known.std(0, correction=0)
        deviation = deviation.clamp(min=0.1 * float(deviation.square().mean().sqrt()))
        distance += ((new[:, None] - known[None]) / deviation).square().mean(2)
    chosen = distance.argmin(1)
    neighbours = task.layer.trace(task.train[0][chosen])
    delta = overfit(task.layer, neighbours, task.train[1][chosen], loss, nearest.how)
    expected = apply(task.layer.trace(x), delta)
    torch.testing.assert_close(nearest.outputs(x, (1.0,))[0], expected, rtol=1e-4, atol=1e-5)


def test_neighbours_use_all_of_ix_whatever_conditions_the_hypernetwork_has():
    table = Nearest(problem(), QUICK).table
    assert torch.equal(Nearest(problem(), replace(QUICK, conditions=())).table, table)


def test_only_features_that_need_no_training_join_in():
    size = Nearest(problem(), QUICK).table.shape[1]
    assert Nearest(problem(encoder=lambda: nn.Flatten()), QUICK).table.shape[1] == size + 6
    assert Nearest(problem(encoder=lambda: nn.Linear(6, 6)), QUICK).table.shape[1] == size
    assert Nearest(problem(encoder=lambda: nn.Flatten()), replace(QUICK, input_encoder=False)).table.shape[1] == size


def test_with_too_many_features_a_random_subset_of_samples_is_used(monkeypatch):
    monkeypatch.setattr(Nearest, "LIMIT", 10 * (12 + 8 + 3))
    nearest = Nearest(problem(count=30), QUICK)
    assert len(nearest.table) == len(nearest.inputs) == len(nearest.targets) == 10


def test_a_plain_network_starts_at_the_base_and_corrects_it():
    task = problem(count=400, val=data(200, seed=8))
    fitted = fit_plain(task, QUICK)
    x, y = data(200, seed=20)
    before, after = (float(loss(output, y).mean()) for output in fitted.outputs(x, (0.0, 1.0)))
    torch.testing.assert_close(fitted.outputs(x, (0.0,))[0], base()(x))
    assert after < 0.9 * before
    assert fitted.parameters == sum(parameter.numel() for parameter in fitted.network.parameters())
    start = fit_plain(task, replace(QUICK, steps=1, lr=1e-12))
    torch.testing.assert_close(start.outputs(x, (1.0,))[0], base()(x))


def test_a_plain_network_sees_the_sample_too_and_is_deterministic():
    def task():
        return problem(encoder=lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5)))

    one, two = (fit_plain(task(), replace(QUICK, steps=5)) for _ in range(2))
    x = data(9, seed=9)[0]
    assert torch.equal(one.outputs(x, (1.0,))[0], two.outputs(x, (1.0,))[0])
    assert one.network.condition.encoder is not None


class Picture(nn.Module):
    """An output that is not a vector, or is a long one."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, 4)
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.hidden(x)[:, :1].reshape(-1, *[1] * len(self.shape)).expand(-1, *self.shape).clone()


@pytest.mark.parametrize("shape", [(3, 3), (LARGEST_OUTPUT + 1,)])
def test_an_output_that_is_no_small_vector_is_refused(shape):
    with pytest.raises(NotApplicable, match="not a vector of at most 1024 numbers"):
        fit_plain(problem(model=Picture(*shape), loss=lambda output, target: output.flatten(1).mean(1)), QUICK)


def test_a_single_number_without_an_axis_is_a_vector_too():
    task = problem(model=Picture(), loss=lambda output, target: (output - target).square())
    assert fit_plain(task, replace(QUICK, steps=5)).outputs(task.train[0], (1.0,))[0].shape == (64,)


class Rows(nn.Module):
    """Six numbers to a picture of 3 x 4 of two channels, ``(N, 3, 4, 2)``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(6, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.hidden(x).reshape(-1, 3, 4, 2)


def positions(x, output):
    """The twelve pixels: x, and the pixel's two channels. The first channel may change."""
    known = torch.cat([x[:, None].expand(-1, 12, -1), output.flatten(1, 2)], 2)
    return known, 1, lambda change: torch.cat([change.reshape(-1, 3, 4, 1), torch.zeros(len(change), 3, 4, 1)], 3)


def test_a_large_output_is_corrected_position_by_position():
    def wanted(x):
        return Rows()(x).detach() + 0.5 * x[:, 0].sign()[:, None, None, None]

    (x, _), (new, _) = data(300), data(100, seed=9)
    task = problem(
        model=Rows().requires_grad_(False), positions=positions, loss=lambda out, y: (out - y).square().flatten(1).mean(1)
    )
    task = replace(task, train=(x, wanted(x)), val=(new, wanted(new)))
    fitted = fit_by_position(task, replace(QUICK, task_batch=32))
    none, one = fitted.outputs(new, (0.0, 1.0))
    assert torch.equal(none, Rows()(new))
    assert torch.equal(one[..., 1], none[..., 1])
    error = (one - wanted(new))[..., 0].square().mean()
    assert error < 0.3 * 0.25  # 0.25: that of the base
    assert fitted.parameters == sum(parameter.numel() for parameter in fitted.network.parameters())
    start = fit_by_position(task, replace(QUICK, steps=1, lr=1e-12))
    torch.testing.assert_close(start.outputs(new, (1.0,))[0], none)
