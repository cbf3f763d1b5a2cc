"""The scale network and its two losses."""

from __future__ import annotations

import math

import pytest
import torch

from ocd_bench.engine.hypernetwork import ConstantScale, ScaleNetwork, scale_loss_db, scale_loss_log


def of_length(lengths: torch.Tensor) -> torch.Tensor:
    """Codes of two numbers with these lengths."""
    return lengths[:, None] * torch.tensor([0.6, -0.8])


@pytest.mark.parametrize("kind", [lambda: ScaleNetwork(3), ConstantScale])
def test_length_times_direction_is_the_code(kind):
    torch.manual_seed(0)
    code, e = of_length(torch.tensor([2.0, 2.0, 2.0])), torch.randn(3, 3)
    scale = kind()
    scale.calibrate(code)
    directions = scale.split(code)
    torch.testing.assert_close(directions.square().mean(1), torch.ones(3))  # unit variance, as the noise has
    torch.testing.assert_close(scale.join(e, directions[None])[0], code)
    assert torch.equal(scale.split(0 * code), 0 * code)
    with pytest.raises(ValueError, match="changes no weight"):
        scale.calibrate(0 * code)


def test_begins_at_the_geometric_mean_and_stays_within_four_deviations():
    torch.manual_seed(0)
    lengths = torch.tensor([1e-1, 1.0, 10.0])
    net = ScaleNetwork(6)
    net.calibrate(of_length(lengths))
    torch.testing.assert_close(net(torch.randn(4, 6)), torch.full((4,), 1.0))
    most = 1.0 * math.exp(4 * float(lengths.log().std(correction=0)))
    for sign in (-1, 1):
        torch.nn.init.constant_(net.net[-1].bias, sign * 1e6)
        far = net(torch.randn(2, 6)).tolist()
        assert far == pytest.approx([most**sign] * 2, rel=1e-3)


def test_equal_lengths_are_accepted():
    net = ScaleNetwork(3)
    net.calibrate(of_length(torch.full((5,), 2.0)))
    torch.testing.assert_close(net(torch.randn(2, 3)), torch.full((2,), 2.0))


def test_published_loss_is_the_printed_formula():
    rho, rho_s = torch.tensor([0.3, 2.0, 5.0]), torch.tensor([0.5, 0.4, 4.0])
    expected = [10 * math.log10(abs(a - b) ** 2 / b) for a, b in zip(rho.tolist(), rho_s.tolist(), strict=True)]
    torch.testing.assert_close(scale_loss_db(rho, rho_s), torch.tensor(expected))


def test_published_loss_is_finite_at_the_answer_and_points_towards_it():
    rho_s = torch.tensor([0.5, 0.5, 0.5])
    rho = torch.tensor([0.5, 0.4, 0.7], requires_grad=True)
    loss = scale_loss_db(rho, rho_s)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert rho.grad.isfinite().all()
    assert rho.grad[0] == 0
    assert rho.grad[1] < 0 < rho.grad[2]


def test_log_loss_counts_relative_errors_alike_at_every_length():
    rho_s = torch.logspace(-6, 3, 10)
    torch.testing.assert_close(scale_loss_log(2 * rho_s, rho_s), torch.full((10,), math.log(2) ** 2))
    torch.testing.assert_close(scale_loss_log(rho_s / 2, rho_s), torch.full((10,), math.log(2) ** 2))


def trained(loss, orders: float, steps: int = 120, last: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lengths before and after training on ``loss``, and the true ones, which spread over ``orders``.

    The learning rate decreases to the share ``last`` of its initial value.
    """
    torch.manual_seed(0)
    condition = torch.randn(128, 4)
    lengths = torch.exp(orders * (1.5 * condition[:, 0] - condition[:, 1]))
    net = ScaleNetwork(4, width=32)
    net.calibrate(of_length(lengths))
    before = net(condition).detach()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, last, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(net(condition), lengths).mean().backward()
        optimizer.step()
        schedule.step()
    return before, net(condition).detach(), lengths


def test_lengths_over_three_orders_of_magnitude_are_learned():
    before, after, lengths = trained(scale_loss_log, 1.0)
    assert lengths.max() > 1000 * lengths.min()
    assert scale_loss_log(after, lengths).mean() < 0.02 * scale_loss_log(before, lengths).mean()


def test_the_published_loss_learns_too():
    # Its gradient is unbounded near the optimum. At a constant rate it oscillates, differently on each kind of processor.
    before, after, lengths = trained(scale_loss_db, 0.2, steps=300, last=0.02)
    assert scale_loss_db(after, lengths).mean() < scale_loss_db(before, lengths).mean() - 4  # decibels
    assert scale_loss_log(after, lengths).mean() < 0.6 * scale_loss_log(before, lengths).mean()
