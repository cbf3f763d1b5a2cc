"""OCD and its ablations: a hypernetwork draws every test sample's own change of one layer's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ocd_bench.engine.gain import Gain
from ocd_bench.engine.layer import TargetLayer
from ocd_bench.engine.ocd import FittedOCD, fit
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.settings import OCDSettings, PaperSettings
from ocd_bench.errors import NotApplicable
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.task import Task

ENSEMBLE = 5
"""Draws of `ocd-x5`, as in the paper."""


def problem_of(context: Context, layer: str, method: str = "ocd") -> Problem:
    """The context as the engine wants it. All variants share one seed: they see the same batches and the same noise."""
    task = context.task

    def own(name: str) -> Callable[..., Any] | None:
        """The task's method, unless it is the default, which changes nothing."""
        return None if getattr(type(task), name) is getattr(Task, name) else getattr(task, name)

    return Problem(
        layer=TargetLayer(context.base, layer),
        train=(context.train.inputs, context.train.targets),
        val=(context.val.inputs, context.val.targets),
        loss=task.loss,
        device=context.device,
        augment=own("augment"),
        subsample=own("subsample"),
        output_features=task.encode_output,
        encoder=lambda: task.encode_input(context.splits, context.request),
        combine=task.ensemble,
        seed=context.generator(method, "fit").initial_seed(),
        progress=context.progress,
    )


def gain_detail(gain: Gain) -> dict[str, Any]:
    """The gain and the validation curve it was chosen by, as plain values."""
    return {"gain": gain.value, "gain_candidates": list(gain.candidates), "gain_losses": list(gain.losses)}


class OCDPredictor(Predictor):
    """Combined outputs of ``draws`` draws times the gain; sample i of the stream always meets the same noise."""

    def __init__(self, fitted: FittedOCD, gain: Gain, draws: int, random: bool = False) -> None:
        self.fitted, self.gain, self.draws, self.random = fitted, gain, draws, random
        self.parameters = fitted.parameters
        self.detail: Mapping[str, Any] = {
            "layer": fitted.problem.layer.name,
            "form": fitted.form.describe(),
            "draws": draws,
            **gain_detail(gain),
            "history": [[record.step, record.train, record.val] for record in fitted.history],
        }
        self.reset()

    def reset(self) -> None:
        self._start = 0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        output = self.fitted.predict(inputs, self.draws, self.gain.value, self._start, self.random)
        self._start += len(inputs)
        return output


class OCD(Method):
    """One draw per test sample. The fast hypernetwork, conditioned on I(x) and, where the task has an encoder, on x."""

    name = "ocd"
    description = "conditional diffusion of each sample's own weights, one draw"
    section = "ocd"
    Settings: type = OCDSettings
    draws = 1
    diffusion = True
    scaled = True
    random = False

    def layer(self, context: Context) -> str:
        """The layer to change."""
        return context.layer

    def fit(self, context: Context) -> OCDPredictor:
        layer = self.layer(context)
        settings = context.settings(self.section)
        key = f"ocd-fit-{self.section}-{layer}-{self.diffusion}-{self.scaled}"
        problem = lambda: problem_of(context, layer, self.section.replace("_", "-"))  # noqa: E731
        fitted = context.shared(key, lambda: fit(problem(), settings, diffusion=self.diffusion, scaled=self.scaled))
        gain = context.shared(f"{key}-gain-{self.draws}", lambda: fitted.choose_gain(self.draws))
        return OCDPredictor(fitted, gain, self.draws, self.random)


class OCDEnsemble(OCD):
    """Five draws per sample, combined by the task (mean of class probabilities, or of values)."""

    name = "ocd-x5"
    description = f"ocd, ensemble of {ENSEMBLE} draws"
    draws = ENSEMBLE


class OCDNoScale(OCD):
    """No scale network: the diffusion model has to give the weight change with its length (paper's ablation).

    Its targets are the codes divided by one constant for all samples, their root mean square length.
    """

    name = "ocd-noscale"
    description = "ocd without the scale network: diffusion of the unnormalised change"
    scaled = False


class OCDRegress(OCD):
    """The same condition, trunk, scale network and training; squared error of the direction instead of diffusion."""

    name = "ocd-regress"
    description = "ocd's network predicting the change by regression, no diffusion"
    diffusion = False


class OCDSecondLayer(OCD):
    """The layer that the entropy criterion ranks highest beside the chosen one."""

    name = "ocd-layer2"
    description = "ocd on the second-best layer"

    def layer(self, context: Context) -> str:
        for name, _ in context.ranking():
            if name != context.layer:
                return name
        raise NotApplicable(f"{context.layer!r} is the only layer of this model that can be adapted per sample")


class OCDPaper(OCD):
    """The paper's U-Net on the full matrix, with I(x) alone as the condition; see :class:`PaperSettings`. Slow without a GPU."""

    name = "ocd-paper"
    description = "the paper's U-Net on the full matrix with its hyper-parameters (slow)"
    section = "ocd_paper"
    Settings = PaperSettings
    default = False


class Nearest:
    """Neighbours in the space of I(x), each feature in training units and divided by the root of its length.

    A neighbour's weight change is overfitted when it is needed, on the whole of the training sample: exact in every form, and
    nothing but features is kept. Features of x itself count too where they need no training (``Task.encode_input`` without
    parameters).
    """

    LIMIT = 2**27  # numbers of features; beyond, neighbours are looked for among as many training samples as fit

    def __init__(self, problem: Problem, settings: OCDSettings) -> None:
        from ocd_bench.engine.ocd import make_condition, make_overfitter

        encoder = problem.encoder() if settings.input_encoder else None
        if encoder is not None and any(True for _ in encoder.parameters()):
            encoder = None
        self.problem = problem
        self.overfitter = make_overfitter(problem, settings, None if encoder is None else encoder.to(problem.device).eval())
        inputs, targets = problem.train
        self.inputs, self.targets = inputs, targets
        parts = self._features(inputs[:1])
        size = sum(value.shape[1] for value in parts.values())
        if len(inputs) * size > self.LIMIT:
            chosen = torch.randperm(len(inputs), generator=problem.generator("neighbours"))[: self.LIMIT // size]
            self.inputs, self.targets = inputs[chosen], targets[chosen]
        known = [self._features(piece) for piece in self.inputs.split(self.overfitter.rows(inputs))]
        together = {name: torch.cat([piece[name] for piece in known]) for name in parts}
        self.standard = make_condition(self.overfitter, None, 1, together).to(problem.device)
        self.standard.calibrate(together)
        self.table = self._vectors(together)

    def _features(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.overfitter.describe(self.problem.layer.trace(inputs.to(self.problem.device)))

    def _vectors(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            known = self.standard.standardised(features)
        return torch.cat([value / value.shape[1] ** 0.5 for value in known.values()], 1)

    def outputs(self, inputs: torch.Tensor, gains: tuple[float, ...]) -> list[torch.Tensor]:
        """Outputs ``(N, ...)`` with the neighbours' weight changes, for each gain."""
        from ocd_bench.engine.deltas import concatenate

        found: list[list[torch.Tensor]] = [[] for _ in gains]
        layer = self.problem.layer
        for piece in inputs.split(self.overfitter.rows(inputs)):
            trace = layer.trace(piece.to(self.problem.device))
            index = torch.cdist(self._vectors(self.overfitter.describe(trace)), self.table).argmin(1).cpu()
            neighbours = self.overfitter.deltas(self.inputs[index], self.targets[index])
            delta = concatenate([delta for _, _, delta in neighbours])
            for gain, parts in zip(gains, found, strict=True):
                with torch.no_grad():
                    factor = torch.full((len(piece),), gain, device=trace.output.device)
                    parts.append(layer.forward(trace, delta.scaled(factor)))
        return [torch.cat(parts) for parts in found]
