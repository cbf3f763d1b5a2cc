"""Which layer to adapt: the one whose weight noise spreads the per-sample losses most (paper, section 3.3).

The paper adds Gaussian noise to one layer's weight matrix many times (10,000). It estimates the entropy of each sample's loss
values by a Gaussian kernel density, sums over samples, and takes the layer with the largest sum. It does not give the noise's
standard deviation, on which the ranking depends. Two units are offered here: the root mean square of the layer's own weights,
and the √(2 / I) of Kaiming's initialisation for I inputs, which perturbs the responses of all layers alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ocd_bench.engine.capture import TargetLayer, Trace

FLOOR = 1e-6
"""Least bandwidth, in units of the loss: about the resolution of float32. A loss that no perturbation changes would have
entropy -∞ and decide the sum alone. With the floor its entropy is log(1e-6 √(2π)) = -12.9 nats."""

POINTS = 1024
"""Draws at which the density is evaluated: all up to twice this number, evenly spaced ranks beyond."""

_CELLS = 2**18  # distances at a time, in float64: small enough for the cache
_NUMBERS = 2**24  # of a layer's inputs and outputs in one batch


def layer_entropy(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    names: Sequence[str],
    sigma: float,
    draws: int,
    generator: torch.Generator,
    *,
    unit: Literal["rms", "fan-in"] = "rms",
    floor: float = FLOOR,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Summed entropy (nats) of the per-sample losses under weight noise, for each layer; the largest is the one to adapt.

    Args:
        inputs, targets: M training samples ``(M, ...)``, on the model's device.
        loss: of outputs and targets, giving per-sample losses ``(M,)``.
        names: layers to compare, as :func:`ocd_bench.engine.capture.candidates` lists them.
        sigma: standard deviation of the noise, in units of the layer's root mean square weight or of √(2 / I), see ``unit``.
        draws: perturbations of each layer, at least 2.
        generator: the noise. Every layer starts from the same state of it, so a score depends neither on the other layers
            nor on ``batch_size``.
        floor: least bandwidth of the density, see :data:`FLOOR`.
        batch_size: samples at a time; by default at most 256, fewer where a sample's positions take much memory.
        progress: called with (layers done, layers in all).

    Raises:
        LayerRefused: for a layer that cannot be adapted.
        ValueError: if a loss under noise is not finite, or for draws, sigma or unit out of range.
    """
    if draws < 2 or not sigma > 0 or unit not in ("rms", "fan-in"):
        raise ValueError(
            f"layer selection needs 2 draws, a positive sigma and unit 'rms' or 'fan-in', not {draws}, {sigma} and {unit!r}"
        )
    state = generator.get_state()
    scores: dict[str, float] = {}
    for name in names:
        layer = TargetLayer(model, name)
        std = sigma * (float(layer.weight.square().mean().sqrt()) if unit == "rms" else math.sqrt(2 / layer.shape[1]))
        rows = batch_size or _rows(layer.trace(inputs[:1]))
        total = 0.0
        for x, y in zip(inputs.split(rows), targets.split(rows), strict=True):
            generator.set_state(state)
            values = losses_under_noise(layer, layer.trace(x), y, loss, std, draws, generator)
            if not bool(values.isfinite().all()):
                raise ValueError(f"layer {name!r}: a loss is not finite under weight noise of {std:.3g}; lower sigma ({sigma})")
            total += float(kde_entropy(values, floor).sum())
        scores[name] = total
        progress(len(scores), len(names))
    return scores


def losses_under_noise(
    layer: TargetLayer,
    trace: Trace,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    std: float,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Per-sample losses ``(draws, N)`` with Gaussian noise on the layer's weight, one noise for all samples in each draw.

    What lies below the layer is run once, for the trace; each draw adds ``positions @ noiseᵀ`` to the layer's response.
    """
    weight = layer.weight
    values = []
    with torch.no_grad():
        for _ in range(draws):
            noise = torch.randn(weight.shape, generator=generator, device=generator.device, dtype=weight.dtype)
            change = (std * noise.to(weight.device)).T
            values.append(loss(trace.respond(lambda rows, change=change: rows @ change), targets))  # type: ignore[misc]
    return torch.stack(values)


def kde_entropy(values: Tensor, floor: float = FLOOR) -> Tensor:
    """Differential entropy (nats) of D draws of each of N quantities, ``(D, N) -> (N,)``, float64.

    Resubstitution estimate ``-mean_i log p(x_i)`` under a Gaussian kernel density p of all D draws, with Scott's bandwidth
    ``D^(-1/5) SD`` as :class:`scipy.stats.gaussian_kde` has it, but not below ``floor``. From 2 :data:`POINTS` draws on, the
    mean runs over at least :data:`POINTS` draws of evenly spaced rank instead of all, which changes it by some 0.001 nats.
    """
    draws = len(values)
    values = values.double().T.sort(1).values
    bandwidth = (values.std(1) * draws**-0.2).clamp_min(floor)
    scaled = (values - values[:, :1]) / bandwidth.unsqueeze(1)
    stride = max(1, draws // POINTS)
    points = scaled[:, stride // 2 :: stride]
    rows = max(1, min(points.shape[1], _CELLS // draws))
    columns = max(1, _CELLS // (rows * draws))
    means = []
    for at, of in zip(points.split(columns), scaled.split(columns), strict=True):
        # Each point is one of the draws, so no sum is below exp(0): the logarithm needs no guard.
        logs = [(part.unsqueeze(2) - of.unsqueeze(1)).square_().mul_(-0.5).exp_().sum(2).log_() for part in at.split(rows, 1)]
        means.append(torch.cat(logs, 1).mean(1))
    return torch.log(draws * bandwidth * math.sqrt(2 * math.pi)) - torch.cat(means)


def _rows(one: Trace) -> int:
    """Samples at a time, from the trace of one."""
    return max(1, min(256, _NUMBERS // (one.positions.numel() + one.response.numel())))
