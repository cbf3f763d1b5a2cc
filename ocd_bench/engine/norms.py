"""Per-sample weights of batch norm layers: ΔW of a norm layer is one affine map per channel.

In eval mode a batch norm layer is ``x * scale + shift``. Its running statistics, weight and bias make up these two vectors.
Other statistics in place of the running ones give another scale and another shift. So statistics for each sample are a weight
change ΔW of that layer, one per sample. It needs no batch.

:class:`NormLayers` runs a model with another forward in its batch norm layers. The layers follow one another in one pass, so a
later layer sees what the earlier changes have made of the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ocd_bench.errors import NotApplicable

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

Forward = Callable[[int, BatchNorm, Tensor], Tensor]
"""The output of a layer, from its number in the order of running, the layer and its input ``(N, C, ...)``."""


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of each channel: ``(N, C)`` of N samples, or ``(C,)`` of all together."""

    mean: Tensor
    variance: Tensor

    def moved(self, other: Statistics, share: float | Tensor) -> Statistics:
        """A ``share`` of the way from these to others, in mean and in variance."""
        mean, variance = other.mean - self.mean, other.variance - self.variance
        return Statistics(self.mean + share * mean, self.variance + share * variance)


def running(layer: BatchNorm) -> Statistics:
    """The statistics of the training set that the layer keeps, ``(C,)``."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return Statistics(layer.running_mean, layer.running_var)


def own(x: Tensor) -> Statistics:
    """Statistics ``(N, C)`` of every sample alone, over the positions of ``(N, C, ...)``."""
    variance, mean = torch.var_mean(x.flatten(2), 2, correction=0)
    return Statistics(mean, variance)


def normalised(layer: BatchNorm, x: Tensor, statistics: Statistics) -> Tensor:
    """The layer's output for ``x`` ``(N, C, ...)`` with other statistics, ``(N, C)`` or ``(C,)``."""
    scale = (statistics.variance + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight
    shift = -statistics.mean * scale
    if layer.bias is not None:
        shift = shift + layer.bias
    places = [1] * (x.ndim - 2)
    return torch.addcmul(shift.reshape(-1, x.shape[1], *places), x, scale.reshape(-1, x.shape[1], *places))


class NormLayers:
    """The batch norm layers of a model in which a sample has statistics of its own.

    Args:
        model: a copy that belongs to the caller, in eval mode.
        inputs: a few samples ``(N, ...)``, to see which layers run, and in which order.
        single: whether only layers count that see several positions of each sample. Without, all that run count.

    Attributes:
        layers: in the order in which they run first.

    Raises:
        NotApplicable: if there is no such layer; the message says why.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, *, single: bool = True) -> None:
        self.model = model
        found = [module for module in model.modules() if isinstance(module, KINDS)]
        kind = type(model).__name__
        if not found:
            why = " (a layer or group norm uses each sample's own statistics already)" if _has_other_norms(model) else ""
            raise NotApplicable(f"no {'/'.join(each.__name__ for each in KINDS)} layer in {kind}{why}")
        found = [module for module in found if module.running_mean is not None]
        if not found:
            raise NotApplicable(f"the batch norm layers of {kind} keep no running statistics")
        self.layers: list[BatchNorm] = found
        seen = self._shapes(inputs)
        self.layers = [layer for layer, shape in seen.items() if not single or _several(shape, len(inputs))]
        if not self.layers:
            raise NotApplicable(
                f"the batch norm layers of {kind} see one value per channel of a sample: a sample has no statistics of its own"
            )

    def _shapes(self, inputs: Tensor) -> dict[BatchNorm, torch.Size]:
        """Shape of the first input of each layer that runs, in the order of running."""
        seen: dict[BatchNorm, torch.Size] = {}

        def note(number: int, layer: BatchNorm, x: Tensor) -> Tensor:
            seen.setdefault(layer, x.shape)
            return type(layer).forward(layer, x)

        with torch.no_grad():
            self.run(inputs, note)
        return seen

    def run(self, inputs: Tensor, forward: Forward) -> Tensor:
        """The model's output ``(N, ...)`` with ``forward`` in the layers."""
        with self._patched(forward):
            return self.model(inputs)

    def keep(self, forward: Forward) -> nn.Module:
        """The model with ``forward`` in its layers from now on."""
        for number, layer in enumerate(self.layers):
            layer.forward = partial(forward, number, layer)  # type: ignore[method-assign]
        return self.model

    @contextmanager
    def _patched(self, forward: Forward) -> Iterator[None]:
        before = [layer.__dict__.get("forward") for layer in self.layers]
        try:
            self.keep(forward)
            yield
        finally:
            for layer, former in zip(self.layers, before, strict=True):
                if former is None:
                    layer.__dict__.pop("forward", None)
                else:
                    layer.forward = former  # type: ignore[method-assign]


def _several(shape: torch.Size, samples: int) -> bool:
    """Whether an input ``(N, C, ...)`` has a row for each sample, and several positions in it."""
    return shape[0] == samples and shape[2:].numel() > 1


def _has_other_norms(model: nn.Module) -> bool:
    return any(isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm) for module in model.modules())
