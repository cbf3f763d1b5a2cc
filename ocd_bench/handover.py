"""What a method that adapts a model hands over to the second method of ``A+B``: the model as it leaves it for each batch.

A second method needs a model in which every sample stands alone: it changes one sample's weights, runs samples in groups of its
own, and takes gradients. So statistics of a batch are held fixed at the values that the batch had, and dropout is off.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ocd_bench.errors import NotApplicable

TINY = 1e-30
"""An epsilon that does not change 1."""


class _Held(nn.Module):
    """A batch norm layer with the statistics of one batch, held fixed.

    The kernel is given variance 1, and the scale times the inverse standard deviation. So it computes the same bits as the
    layer that took the statistics from its batch.
    """

    held_mean: torch.Tensor
    held_inverse: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight: Any = self.weight
        bias: Any = self.bias
        scale = self.held_inverse if weight is None else weight * self.held_inverse
        return F.batch_norm(input, self.held_mean, torch.ones_like(self.held_mean), scale, bias, False, 0.0, TINY)


class _Held1d(_Held, nn.BatchNorm1d):
    pass


class _Held2d(_Held, nn.BatchNorm2d):
    pass


class _Held3d(_Held, nn.BatchNorm3d):
    pass


HELD: Sequence[tuple[type[nn.Module], type[nn.Module]]] = (
    (nn.BatchNorm1d, _Held1d),
    (nn.BatchNorm2d, _Held2d),
    (nn.BatchNorm3d, _Held3d),
)


def _held_kind(layer: nn.Module) -> type[nn.Module] | None:
    """The class that holds the statistics of ``layer`` fixed; None if the layer does not use those of its batch."""
    for kind, held in HELD:
        if isinstance(layer, kind) and (layer.training or layer.running_mean is None):
            return held
    return None


@dataclass
class _Run:
    """State of the model in one forward pass: its learnt weights, and mean and inverse standard deviation by layer."""

    weights: list[torch.Tensor] = field(default_factory=list)
    statistics: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


class HandOver:
    """A copy of a model, kept as the model was in the forward pass that gave a batch's output.

    Batch norm layers that use the statistics of the batch have them as fixed values in the copy. On the batch itself the copy
    computes the same bits as the model did, apart from dropout.

    Args:
        model: the model that adapts, in the mode it runs in.
        weights: those of its parameters that are learnt.

    Attributes:
        copy: the copy, in eval mode and without gradients, always the same object.

    Example:
        >>> model = nn.BatchNorm1d(2).train()
        >>> handed = HandOver(model)
        >>> batch = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
        >>> output = model(batch)
        >>> handed.settle(output)
        >>> torch.allclose(handed.copy(batch[:1]), output[:1])
        True
    """

    def __init__(self, model: nn.Module, weights: Sequence[nn.Parameter] = ()) -> None:
        self.copy = copy.deepcopy(model)
        twins = dict(self.copy.named_modules())
        parameters = dict(self.copy.named_parameters())
        self._weights = [(p, parameters[name]) for name, p in model.named_parameters() if any(p is own for own in weights)]
        self._twins: dict[nn.Module, Any] = {}
        for name, layer in model.named_modules():
            if (kind := _held_kind(layer)) is None:
                continue
            twin = self._twins[layer] = twins[name]
            twin.__class__ = kind
            example = next(model.parameters(), torch.zeros(0))
            twin.register_buffer("held_mean", torch.zeros(layer.num_features, device=example.device, dtype=example.dtype))
            twin.register_buffer("held_inverse", torch.ones_like(twin.held_mean))
            layer.register_forward_pre_hook(self._note_statistics)
        self.copy.eval().requires_grad_(False)
        self._run = _Run()
        self._runs: list[tuple[torch.Tensor, _Run]] = []  # every forward pass of this batch, with its output
        model.register_forward_pre_hook(self._begin_run, prepend=True)  # the model may itself be a norm layer
        model.register_forward_hook(self._end_run)

    def _begin_run(self, module: nn.Module, args: Any) -> None:
        self._run = _Run([weight.detach().clone() for weight, _ in self._weights])

    def _note_statistics(self, layer: Any, args: tuple[torch.Tensor, ...]) -> None:
        if layer in self._run.statistics:
            raise NotApplicable(f"a {type(layer).__name__} layer runs several times in a forward pass: it has no one statistic")
        with torch.no_grad():
            _, mean, inverse = torch.native_batch_norm(args[0].detach(), None, None, None, None, True, 0.0, layer.eps)
        self._run.statistics[layer] = mean, inverse

    def _end_run(self, module: nn.Module, args: Any, output: torch.Tensor) -> None:
        self._runs.append((output.detach(), self._run))

    def settle(self, output: torch.Tensor) -> None:
        """Bring the copy into the state of the forward pass that gave ``output``, or of the last one if it was computed from
        several. Call it once for each batch."""
        runs, self._runs = self._runs, []
        place = output.untyped_storage().data_ptr()
        own = [run for made, run in runs if made.untyped_storage().data_ptr() == place]
        run = own[-1] if own else runs[-1][1]
        with torch.no_grad():
            for value, (_, twin) in zip(run.weights, self._weights, strict=True):
                twin.copy_(value)
            for layer, (mean, inverse) in run.statistics.items():
                self._twins[layer].held_mean.copy_(mean)
                self._twins[layer].held_inverse.copy_(inverse)
