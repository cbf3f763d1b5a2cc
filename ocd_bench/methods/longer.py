"""Controls that train the base itself for longer: what OCD's copies, and OCD's time, are worth without a second network."""

from __future__ import annotations

import torch

from ocd_bench.engine.controls.finetune import FittedFinetune, fit_finetuned, run
from ocd_bench.engine.cost import samples_of_fit
from ocd_bench.engine.gain import Gain, GainSettings, gain_on_validation
from ocd_bench.engine.learn import details
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.ocd import OCD, gain_detail, problem_of
from ocd_bench.methods.settings import FinetuneSettings, LongerSettings


class FinetunePredictor(Predictor):
    """The base with the gain times the change of its weights."""

    def __init__(self, fitted: FittedFinetune, gain: Gain) -> None:
        self.problem, self.model = fitted.problem, fitted.mixed(gain.value).eval()
        self.detail = {"lr": fitted.lr, **gain_detail(gain), **details(fitted.history)}

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return run(self.model, self.problem, inputs)

    def hand_over(self) -> torch.nn.Module:
        """See :class:`ocd_bench.Predictor`: the same model for every batch."""
        return self.model


class Finetune(Method):
    """All weights of the base, trained on the copies, steps, batches and validation samples that the hypernetwork gets."""

    name = "finetune"
    description = "the base trained further on ocd's copies for ocd's steps, without a second network"
    section = "finetune"
    Settings = FinetuneSettings
    reads = ("ocd",)
    leads = True
    chosen = "validation"

    def fit(self, context: Context) -> FinetunePredictor:
        settings, problem = context.settings("ocd"), problem_of(context, context.layer)
        rates = context.settings("finetune").lr
        fitted = fit_finetuned(problem, settings, rates)
        how = GainSettings.of(settings)
        gain = gain_on_validation(
            problem, how, lambda inputs, gains, start: fitted.outputs(inputs, gains), ("finetune", settings, rates)
        )
        return FinetunePredictor(fitted, gain)


class LongerPredictor(Predictor):
    """Another base, in eval mode."""

    def __init__(self, model: torch.nn.Module, samples: float) -> None:
        self.model = model
        self.detail = {"further_samples": round(samples)}

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.model(inputs)

    def hand_over(self) -> torch.nn.Module:
        """See :class:`ocd_bench.Predictor`: the same model for every batch."""
        return self.model


class BaseLonger(Method):
    """The base trained by its own recipe, with as many samples more as the fit of ``ocd`` costs; see
    :mod:`ocd_bench.engine.cost` for the count."""

    name = "base-longer"
    description = "the base trained longer by its own recipe, by what the fit of ocd costs"
    section = "base_longer"
    Settings = LongerSettings
    default = False  # it costs a training of the base, and the fit of ocd beside it
    reads = ("ocd",)
    leads = True

    def fit(self, context: Context) -> LongerPredictor:
        samples = context.settings("base_longer").share * samples_of_fit(OCD().fitted(context))
        return LongerPredictor(context.longer_base(samples), samples)


METHODS = [Finetune(), BaseLonger()]
