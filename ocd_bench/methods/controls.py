"""Controls: what would be gained without knowing where to go, and by the extra parameters alone."""

from __future__ import annotations

import torch

from ocd_bench.engine.gain import Gain, gain_on_validation
from ocd_bench.engine.plain import FittedPlain, fit_plain
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.training import details
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.ocd import OCD, gain_detail, problem_of


class OCDRandom(OCD):
    """`ocd` with random directions of the predicted length, under the gain that was chosen for `ocd`."""

    name = "ocd-random"
    description = "random directions of the length that ocd predicts"
    random = True


class PlainPredictor(Predictor):
    """Base output plus the gain times the plain network's."""

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

    def fit(self, context: Context) -> PlainPredictor:
        settings = context.settings("ocd")
        fitted = fit_plain(problem_of(context, context.layer), settings)
        gain = gain_on_validation(fitted.problem, settings, lambda inputs, gains, start: fitted.outputs(inputs, gains))
        return PlainPredictor(fitted, gain)


METHODS = [OCDRandom(), Capacity()]
