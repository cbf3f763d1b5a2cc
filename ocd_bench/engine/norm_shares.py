"""How much each sample's own statistics count in each batch norm layer: a rule, and the hypernetwork that corrects it.

A layer's statistics are moved from the running ones towards the sample's own, by a share in [0, 1] that grows with the distance
between the two::

    share = sigmoid(start + slope · excess)

``excess`` are two distances of the sample in this layer, of means and of variances: minus those of undisturbed training
samples, in units of their standard deviation. With the constants :data:`START` and :data:`SLOPE` in every layer this is the
rule: nothing is learnt. With three numbers of its own for each layer it is the hypernetwork. It starts at the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ocd_bench.engine.norms import BatchNorm, Forward, NormLayers, Statistics, normalised, own, running

START = -2.2
"""A share of 0.1 for a sample at the usual distance."""
SLOPE = 0.5
"""Per standard deviation of either distance."""


def distances(layer: BatchNorm, found: Statistics) -> Tensor:
    """Distances ``(N, 2)`` of the samples' statistics ``(N, C)`` from the running ones.

    Of means: the root mean square over channels of the difference in standard deviations. Of variances: the mean over channels
    of the absolute difference of the logarithms.
    """
    usual = running(layer)
    variance = usual.variance + layer.eps
    means = ((found.mean - usual.mean).square() / variance).mean(1).sqrt()
    variances = ((found.variance + layer.eps) / variance).log().abs().mean(1)
    return torch.stack([means, variances], 1)


class Shares(nn.Module):
    """The shares of every layer, from L layers' distances.

    Args:
        centre, spread: mean and standard deviation of the distances of undisturbed samples, ``(L, 2)``.

    Attributes:
        correction: of start, slope of means and slope of variances in each layer, ``(L, 3)``; zero is the rule.
    """

    centre: Tensor
    spread: Tensor
    rule: Tensor

    def __init__(self, centre: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)
        self.register_buffer("rule", centre.new_tensor([START, SLOPE, SLOPE]))
        self.correction = nn.Parameter(centre.new_zeros(len(centre), 3))

    def forward(self, number: int, layer: BatchNorm, found: Statistics) -> Tensor:
        """The share of the samples' own statistics ``(N, C)`` in layer ``number``, ``(N, 1)``."""
        excess = (distances(layer, found) - self.centre[number]) / self.spread[number]  # (N, 2)
        numbers = self.rule + self.correction[number]
        return torch.sigmoid(numbers[0] + excess @ numbers[1:]).unsqueeze(1)


def measured(layers: NormLayers, batches: Sequence[Tensor]) -> Shares:
    """The rule for these layers, with the distances of undisturbed samples.

    Args:
        batches: samples ``(n, ...)`` on the model's device, two or more in all.
    """
    found: list[list[Tensor]] = [[] for _ in layers.layers]

    def note(number: int, layer: BatchNorm, x: Tensor) -> Tensor:
        found[number].append(distances(layer, own(x)))
        return normalised(layer, x, running(layer))

    with torch.no_grad():
        for inputs in batches:
            layers.run(inputs, note)
    each = [torch.cat(parts) for parts in found]  # (M, 2) for each layer
    centre, spread = torch.stack([part.mean(0) for part in each]), torch.stack([part.std(0) for part in each])
    return Shares(centre, spread.clamp_min(1e-6))


Disturb = Callable[[int, BatchNorm, Tensor], Tensor]
"""Another input ``(N, C, ...)`` of a layer, from its number, the layer and its input."""


def adapted(
    layers: NormLayers, shares: Shares, inputs: Tensor, gain: float = 1.0, disturb: Disturb = lambda number, layer, x: x
) -> Tensor:
    """The model's output ``(N, ...)`` with every sample's own norm layers, in one pass.

    Args:
        gain: a factor of all shares; 0 is the base itself.
        disturb: changes what the layers see, for training.
    """

    return layers.run(inputs, changed(shares, gain, disturb))


def changed(shares: Shares, gain: float = 1.0, disturb: Disturb = lambda number, layer, x: x) -> Forward:
    """The layers' forward in :func:`adapted`."""

    def forward(number: int, layer: BatchNorm, x: Tensor) -> Tensor:
        x = disturb(number, layer, x)
        found = own(x)
        return normalised(layer, x, running(layer).moved(found, gain * shares(number, layer, found)))

    return forward
