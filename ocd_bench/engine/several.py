"""OCD on several layers: one after the other, each on the base as the earlier changes leave it for each sample.

:class:`Changed` is the base with one layer changed per sample, as a model of its own. Its other layers can be changed in turn,
by the same stages: what such a layer sees, and so I(x), is what the earlier changes have made of the sample.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ocd_bench.engine._replay import patched, quiet
from ocd_bench.engine.capture import TargetLayer, Trace
from ocd_bench.engine.forms import Delta, concatenate
from ocd_bench.engine.ocd import FittedOCD

MOST = 4
"""Layers at most: each doubles the cost of a prediction."""

Respond = Callable[[Tensor, Tensor], Tensor]
"""The output of a layer with each sample's own weights, of its input and its own output."""

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
        self._last: tuple[Tensor, Respond] | None = None
        self.model = copy.deepcopy(fitted.problem.layer.model)
        self._target = TargetLayer(self.model, fitted.problem.layer.name)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs ``(N, ...)``."""
        with torch._C.DisableTorchFunction():  # its functions run or not: a recording of this model must not count them
            respond = self._respond(inputs)
        handle = self._target.layer.register_forward_hook(lambda module, given, output: respond(given[0], output))
        try:
            with self._target.stand_in():
                return self.model(inputs)
        finally:
            handle.remove()

    @torch.no_grad()
    def _respond(self, inputs: Tensor) -> Respond:
        """The layer's output with each sample's own weights, of its input and its own output. Kept for the next run on these
        inputs."""
        if self._last is not None and self._last[0] is inputs:
            return self._last[1]
        target, responses, deltas = self._target, [], []
        for trace in self._fitted[0].problem.layer.traces(inputs):
            delta = self._delta(trace)
            if trace.repeated:
                deltas.append(delta)
            else:
                responses.append(target.add(trace.calls[0][1], delta.shift(trace.positions)))
        if deltas:
            shift = concatenate(deltas).shift
            respond: Respond = lambda given, output: target.add(output, shift(target.as_rows(given, len(inputs))))  # noqa: E731
        else:
            response = torch.cat(responses)
            respond = lambda given, output: response  # noqa: E731
        self._last = inputs, respond
        return respond

    def _delta(self, trace: Trace) -> Delta:
        """The samples' own ΔW times the gain."""
        fitted, gain = self._fitted
        network = fitted.network
        e = network.condition(fitted.describe(trace), trace.inputs)
        noise = e.new_zeros(1, len(trace), fitted.form.size)
        (code,) = network.scale.join(e, fitted.directions(e, noise))
        return fitted.form.decode(code, trace).scaled(fitted.factor(trace, gain))


def in_order(model: nn.Module, names: Sequence[str], inputs: Tensor) -> list[str]:
    """The names in the order in which their layers first run."""
    targets = [TargetLayer(model, name) for name in names]
    stand_ins = {module: own for target in targets for module, own in target.stand_ins.items()}  # one for each module
    inner = [layer for own in stand_ins.values() for layer in own.layers.values()]
    wanted = {id(target.layer.weight): target.name for target in targets}
    order: dict[str, None] = {}

    def note(layer: Any, given: Any, output: Any) -> None:
        if name := wanted.get(id(layer.weight)):
            order.setdefault(name)

    handles = [layer.register_forward_hook(note) for layer in {*(target.layer for target in targets), *inner}]
    try:
        with quiet(model), torch.no_grad(), patched(stand_ins):
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(order)


def next_layer(fitted: FittedOCD, gain: float, name: str, done: int) -> TargetLayer:
    """The layer ``name`` of the base as ``done`` earlier changes, the last of them ``fitted``, leave it."""
    return TargetLayer(Changed(fitted, gain).eval().requires_grad_(False), INSIDE * done + name)
