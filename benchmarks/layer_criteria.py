"""A plugin for benchmarks/layer_selection.py: what can be measured of a layer before it is chosen, and what OCD gains there.

``layer-criteria`` leaves the base as it is. Its cell says, for the layer that ``select.layer`` names and on at most
``ocd.val_samples`` validation samples (never a test sample), how much each of these lowers the task's loss, or how large it is:

- ``gradient``: the mean square of the gradient of a sample's loss with respect to the layer's weight, which is the slope of
  what a small step of overfitting gains;
- ``oracle``: the gain of overfitting the layer to the validation label, as ``ocd`` overfits training samples;
- ``neighbour``: the gain of ΔW of the training sample with the nearest I(x), as ``ocd-nn``, at its best factor;
- ``trial``: the gain of ``ocd`` after a fifth of its training steps, at its best factor;
- ``fit``: the gain of ``ocd`` itself, at its best factor. It is no criterion, but what any of them can at best be.

``ocd-gain1`` is ``ocd`` with the gain 1, whatever validation samples say: a layer that does harm shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

import ocd_bench
from ocd_bench.engine.controls.nearest import Nearest
from ocd_bench.engine.gain import Gain
from ocd_bench.engine.ocd import FittedOCD, fit
from ocd_bench.engine.overfit import Overfit, losses, overfit, overfitted
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.targets import validation_samples
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.ocd import OCD, OCDPredictor
from ocd_bench.progress import Progress

SHARE = 5
"""A trial has this part of the training steps."""

Outputs = Callable[[torch.Tensor, Sequence[float], int], Sequence[torch.Tensor]]


def best_gain(problem: Problem, settings: OCDSettings, outputs: Outputs) -> float:
    """How much the best of ``settings.gains`` lowers the mean loss of validation samples; 0 where none does.

    Args:
        outputs: of inputs, factors and the index of the first sample.
    """
    inputs, targets = validation_samples(problem, settings.val_samples)
    factors, parts = (0.0, *settings.gains), []
    for start in range(0, len(inputs), settings.batch_size):
        piece = slice(start, start + settings.batch_size)
        y = targets[piece].to(problem.device)
        parts.append(torch.stack([problem.loss(output, y) for output in outputs(inputs[piece], factors, start)]))
    means = torch.cat(parts, 1).double().mean(1)
    return float(means[0] - means[means.isfinite()].min())


def of_gradients(problem: Problem, settings: OCDSettings) -> dict[str, float]:
    """The criteria ``gradient`` and ``oracle``."""
    inputs, targets = validation_samples(problem, settings.val_samples)
    slopes, gained = [], []
    for trace, y, delta in overfitted(problem.layer, inputs, targets, problem.loss, Overfit.of(settings)):
        step = overfit(problem.layer, trace, y, problem.loss, Overfit("sgd", 1.0, 1))  # minus the gradient
        slopes.append(step.norm().square())
        gained.append(losses(trace, y, problem.loss) - losses(trace, y, problem.loss, delta))
    return {"gradient": float(torch.cat(slopes).mean()), "oracle": float(torch.cat(gained).mean())}


def criteria(problem: Problem, settings: OCDSettings, fitted: FittedOCD) -> dict[str, float]:
    """All of them for the layer of a problem, which ``fitted`` is of."""
    nearest = Nearest(problem, settings)
    trial = fit(replace(problem, stage=lambda what, key: Progress()), replace(settings, steps=max(1, settings.steps // SHARE)))

    def drawn(by: FittedOCD) -> Outputs:
        return lambda inputs, factors, start: by.outputs(inputs, factors, 1, start, purpose="validation")

    return {
        **of_gradients(problem, settings),
        "neighbour": best_gain(problem, settings, lambda inputs, factors, start: nearest.outputs(inputs, factors)),
        "trial": best_gain(problem, settings, drawn(trial)),
        "fit": best_gain(problem, settings, drawn(fitted)),
    }


class Base(Predictor):
    """The base's outputs, with the criteria in the cell."""

    def __init__(self, model: torch.nn.Module, found: dict[str, float]) -> None:
        self.model, self.detail, self.parameters = model, {"criteria": found}, 0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.model(inputs)


class LayerCriteria(OCD):
    """Measures the layer, and changes nothing."""

    name = "layer-criteria"
    description = "criteria for the choice of a layer, taken on validation samples"
    default = False

    def fit(self, context: Context) -> Predictor:
        fitted, _ = self.fit_layer(context, self.problem(context, context.layer))
        return Base(context.base, criteria(fitted.problem, context.settings("ocd"), fitted))


class OCDGainOne(OCD):
    """The fit of ``ocd`` at the gain 1."""

    name = "ocd-gain1"
    description = "ocd with the gain 1"
    default = False

    def fit(self, context: Context) -> Predictor:
        fitted, _ = self.fit_layer(context, self.problem(context, context.layer))
        return OCDPredictor(fitted, Gain(1.0), self.draws)


@ocd_bench.hookimpl
def ocd_bench_register_methods(register: Callable[[Method], Any]) -> None:
    """Both."""
    for method in (LayerCriteria(), OCDGainOne()):
        register(method)
