"""Controls: what a weight change gains without its direction, what it gains without learning, and what extra parameters gain
without a weight change."""

from __future__ import annotations

import torch

from ocd_bench.engine.controls.capacity import FittedPlain, fit_plain
from ocd_bench.engine.controls.capacity_positions import fit_by_position
from ocd_bench.engine.controls.gate import GatedPlain, gate_of
from ocd_bench.engine.controls.nearest import Nearest
from ocd_bench.engine.controls.random_directions import with_random_directions
from ocd_bench.engine.gain import Gain, GainSettings, gain_on_validation
from ocd_bench.engine.learn import details
from ocd_bench.engine.ocd import FittedOCD, small_output
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.ocd import OCD, problem_of
from ocd_bench.methods.quality import gain_detail


class OCDRandom(OCD):
    """`ocd` with random directions of the predicted length, and the gain that was chosen for `ocd`."""

    name = "ocd-random"
    description = "random directions of the length that ocd predicts"

    def changed(self, fitted: FittedOCD) -> FittedOCD:
        return with_random_directions(fitted)


class NearestPredictor(Predictor):
    """The neighbour's weight change times the gain."""

    def __init__(self, nearest: Nearest, gain: Gain) -> None:
        self.nearest, self.gain = nearest, gain
        self.detail = {"layer": nearest.problem.layer.name, "neighbours": len(nearest.table), **gain_detail(gain)}

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.nearest.outputs(inputs, (self.gain.value,))[0]


class OCDNearest(Method):
    """No learning: the weight change of the training sample whose I(x) is nearest (paper's ablation)."""

    name = "ocd-nn"
    description = "the weight change of the nearest training sample, no learning"
    section = "ocd"
    Settings = OCDSettings
    follows = True
    chosen = "validation"

    def fit(self, context: Context) -> NearestPredictor:
        settings = context.settings("ocd")
        nearest = Nearest(problem_of(context, context.layer), settings)
        how = GainSettings.of(settings)
        gain = gain_on_validation(
            nearest.problem, how, lambda inputs, gains, start: nearest.outputs(inputs, gains), ("ocd-nn", settings)
        )
        return NearestPredictor(nearest, gain)


class PlainPredictor(Predictor):
    """The base's output plus the gain times the plain network's."""

    def __init__(self, fitted: FittedPlain, gain: Gain) -> None:
        self.fitted, self.gain, self.parameters = fitted, gain, fitted.parameters
        self.detail = {**gain_detail(gain), **details(fitted.history)}

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.fitted.outputs(inputs, (self.gain.value,))[0]


class Capacity(Method):
    """The hypernetwork's condition, encoder and trunk, trained on the task's own loss to correct the base's output."""

    name = "capacity"
    description = "a plain network of the hypernetwork's size on the same inputs"
    section = "ocd"
    Settings = OCDSettings
    follows = True
    chosen = "validation"

    def fit(self, context: Context) -> PlainPredictor:
        settings, problem = context.settings("ocd"), problem_of(context, context.layer)
        by_position = problem.positions is not None and not small_output(problem)
        fitted = fit_by_position(problem, settings) if by_position else fit_plain(problem, settings)
        if (gate := gate_of(problem, settings.gate)) is not None:
            fitted = GatedPlain(fitted, gate)
        how = GainSettings.of(settings)
        gain = gain_on_validation(
            problem, how, lambda inputs, gains, start: fitted.outputs(inputs, gains), ("capacity", settings)
        )
        return PlainPredictor(fitted, gain)


METHODS = [OCDNearest(), OCDRandom(), Capacity()]
