"""OCD on several Linear or Conv layers: one after the other, each on the base as the earlier changes leave it for each sample.

:class:`Changed` is the base with one layer changed per sample, as a model of its own. Its other layers can be changed in turn,
by the same stages: what such a layer sees, and so I(x), is what the earlier changes have made of the sample.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ocd_bench.engine._replay import quiet
from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.ocd import FittedOCD

MOST = 4
"""Layers at most: each doubles the cost of a prediction."""

INSIDE = "model."
"""What precedes the name of a layer inside :class:`Changed`."""


class Changed(nn.Module):
    """A base in which one layer has each sample's own weights, those of a fit without noise.

    Args:
        fitted: a fit on that layer.
        gain: the factor of its ΔW.

    Attributes:
        model: a copy of the fit's base. Its layers have the names that they have there, after ``model.``.
    """

    def __init__(self, fitted: FittedOCD, gain: float) -> None:
        super().__init__()
        self._fitted = (fitted, gain)  # in a tuple: the base that gives I(x) is no part of this model
        self._last: tuple[Tensor, Tensor] | None = None
        self.model = copy.deepcopy(fitted.problem.layer.model)
        self._name = fitted.problem.layer.name

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs ``(N, ...)``."""
        response = self._response(inputs)
        handle = self.model.get_submodule(self._name).register_forward_hook(lambda module, given, output: response)
        try:
            return self.model(inputs)
        finally:
            handle.remove()

    @torch.no_grad()
    def _response(self, inputs: Tensor) -> Tensor:
        """The layer's output with each sample's own weights, in the layer's layout. Kept for the next run on these inputs."""
        if self._last is not None and self._last[0] is inputs:
            return self._last[1]
        fitted, gain = self._fitted
        network, parts = fitted.network, []
        for trace in fitted.problem.layer.traces(inputs):
            response = trace.layer_output
            if gain:
                e = network.condition(fitted.describe(trace), trace.inputs)
                noise = e.new_zeros(1, len(trace), fitted.form.size)
                (code,) = network.scale.join(e, fitted.directions(e, noise))
                delta = fitted.form.decode(code, trace).scaled(fitted.factor(trace, gain))
                response = response + trace.in_layout(delta.shift(trace.positions)).to(response.dtype)
            parts.append(response)
        self._last = inputs, torch.cat(parts)
        return self._last[1]


def in_order(model: nn.Module, names: Sequence[str], inputs: Tensor) -> list[str]:
    """The names in the order in which their layers run."""
    order: dict[str, None] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda module, given, output, name=name: order.setdefault(name))
        for name in names
    ]
    try:
        with quiet(model), torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(order)


def next_layer(fitted: FittedOCD, gain: float, name: str, done: int) -> TargetLayer:
    """The layer ``name`` of the base as ``done`` earlier changes, the last of them ``fitted``, leave it."""
    return TargetLayer(Changed(fitted, gain).eval().requires_grad_(False), INSIDE * done + name)
