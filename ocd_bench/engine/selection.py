"""Which layer to adapt: the one whose weights, when shaken, spread the per-sample losses most (paper, section 3.3).

The paper perturbs one layer's weight matrix with Gaussian noise many times (10,000), estimates by a Gaussian kernel density the
entropy of each sample's loss values, sums over samples and takes the layer of the largest sum. It does not give the noise's
standard deviation; here it is ``sigma`` times the root mean square of the layer's own weights, so that layers of different
scale are shaken alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ocd_bench.engine.layer import TargetLayer, Trace

FLOOR = 1e-4
"""Least bandwidth, in units of the loss. A loss that no perturbation moves would have entropy -∞ and decide the sum alone; with
the floor it counts as known to within ``FLOOR``: log(FLOOR * sqrt(2π)) = -8.3 nats."""


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
    batch_size: int = 256,
    floor: float = FLOOR,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Summed entropy (nats) of the per-sample losses under weight noise, for each layer; the largest is the one to adapt.

    Args:
        inputs, targets: M training samples ``(M, ...)``, on the model's device.
        loss: of outputs and targets, giving per-sample losses ``(M,)``.
        names: layers to compare, as :func:`ocd_bench.engine.layer.candidates` lists them.
        sigma: standard deviation of the noise, as a fraction of the layer's root mean square weight.
        draws: perturbations of each layer, at least 2.
        generator: the noise; every layer starts from the same state of it, so a score depends neither on the other layers
            nor on ``batch_size``.
        floor: least bandwidth of the density, see :data:`FLOOR`.
        progress: called with (layers done, layers in all).

    Raises:
        LayerRefused: for a layer that cannot be adapted.
        ValueError: if a loss under noise is not finite, or for fewer than two draws.
    """
    if draws < 2 or not sigma > 0:
        raise ValueError(f"layer selection needs at least 2 draws and a positive sigma, not {draws} and {sigma}")
    state = generator.get_state()
    scores: dict[str, float] = {}
    for name in names:
        layer = TargetLayer(model, name)
        total = 0.0
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            generator.set_state(state)
            values = losses_under_noise(layer, layer.trace(x), y, loss, sigma, draws, generator)
            if not bool(values.isfinite().all()):
                raise ValueError(f"layer {name!r}: a loss is not finite under weight noise of {sigma} times its RMS; lower sigma")
            total += float(kde_entropy(values, floor).sum())
        scores[name] = total
        progress(len(scores), len(names))
    return scores


def losses_under_noise(
    layer: TargetLayer,
    trace: Trace,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    sigma: float,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Per-sample losses ``(draws, N)`` with Gaussian noise on the layer's weight, one noise for all samples in each draw.

    What lies below the layer is run once, for the trace; each draw adds ``positions @ noiseᵀ`` to the layer's response.
    """
    weight, positions = layer.weight, trace.positions
    spread = sigma * weight.square().mean().sqrt()
    values = []
    with torch.no_grad():
        for _ in range(draws):
            noise = torch.randn(weight.shape, generator=generator, device=generator.device, dtype=weight.dtype).to(weight.device)
            values.append(loss(layer.replay(trace, positions @ (spread * noise).T), targets))
    return torch.stack(values)


def kde_entropy(values: Tensor, floor: float = FLOOR) -> Tensor:
    """Differential entropy (nats) of D draws of each of N quantities, ``(D, N) -> (N,)``, float64.

    Resubstitution estimate ``-mean_i log p(x_i)`` under a Gaussian kernel density p with Scott's bandwidth
    ``D^(-1/5) * SD``, as :class:`scipy.stats.gaussian_kde` has it, but not below ``floor``.
    """
    draws = len(values)
    values = values.double().T.contiguous()
    bandwidth = (values.std(1) * draws**-0.2).clamp_min(floor)
    scaled = values / bandwidth.unsqueeze(1)
    # D x D distances per quantity: as many quantities at once, and as many rows of D, as fit into some 32 MB.
    rows = max(1, min(draws, _CELLS // draws))
    columns = max(1, _CELLS // (rows * draws))
    means = []
    for some in scaled.split(columns):
        logs = [torch.logsumexp(-0.5 * (part.unsqueeze(2) - some.unsqueeze(1)).square(), 2) for part in some.split(rows, 1)]
        means.append(torch.cat(logs, 1).mean(1))
    return torch.log(draws * bandwidth * math.sqrt(2 * math.pi)) - torch.cat(means)


_CELLS = 2**22
