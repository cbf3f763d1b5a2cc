"""OCD and its ablations: for each test sample, a hypernetwork draws a change of one layer's weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from ocd_bench.engine.capture import TargetLayer, candidates
from ocd_bench.engine.controls.gate import gate_of, gated
from ocd_bench.engine.controls.guidance import Guided
from ocd_bench.engine.gain import Gain
from ocd_bench.engine.learn import details
from ocd_bench.engine.ocd import FittedOCD, Variant, fit, regressor
from ocd_bench.engine.problem import Problem, no_folds
from ocd_bench.engine.settings import NormSettings, OCDSettings
from ocd_bench.engine.several import in_order, next_layer
from ocd_bench.engine.targets import validation_samples
from ocd_bench.errors import NotApplicable, UsageError
from ocd_bench.layers import layer_names
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.norms import fitted_norms
from ocd_bench.methods.quality import gain_detail, quality_of
from ocd_bench.online import probe
from ocd_bench.seeds import derive
from ocd_bench.task import Task

ENSEMBLE = 5
"""Draws of `ocd-x5`, as in the paper."""


def problem_of(context: Context, layer: str, section: str = "ocd") -> Problem:
    """The context as the engine needs it. All methods of one section share a seed: they see the same batches and noise."""
    task, method = context.task, section.replace("_", "-")

    def own(name: str) -> Callable[..., Any] | None:
        """The task's method; None if it is the default, which changes nothing."""
        return None if getattr(type(task), name) is getattr(Task, name) else getattr(task, name)

    return Problem(
        layer=TargetLayer(context.base, layer),
        train=(context.train.inputs, context.train.targets),
        val=(context.val.inputs, context.val.targets),
        loss=task.loss,
        device=context.device,
        augment=own("augment"),
        subsample=own("subsample"),
        excerpt=own("excerpt"),
        positions=own("positions"),
        output_features=task.encode_output,
        signature=own("signature"),
        encoder=lambda: task.encode_input(context.splits, context.request),
        quality=quality_of(task),
        combine=task.ensemble,
        seed=context.generator(method, "fit").initial_seed(),
        folds=lambda count: context.shared(
            ("fold layers", layer, count),
            lambda: [(TargetLayer(base, layer), held) for base, held in context.fold_bases(count)],
        ),
        stage=lambda what, key: context.stage(what, (section, layer, key)),
        remember=lambda key, build: context.shared((section, layer, key), build),
    )


class OCDPredictor(Predictor):
    """Combined outputs of ``draws`` draws, each times the gain. Sample i of the stream always gets the same noise.

    Args:
        fitted, gain: of the last layer that is changed.
        gains: of all layers that are changed, in their order, by name; empty for one layer.
    """

    def __init__(self, fitted: FittedOCD, gain: Gain, draws: int, gains: Mapping[str, float] = MappingProxyType({})) -> None:
        self.fitted, self.gain, self.draws = fitted, gain, draws
        self.parameters = fitted.parameters
        self.detail: Mapping[str, Any] = {
            "layer": fitted.problem.layer.name,
            **({"layers": list(gains), "gains": list(gains.values())} if len(gains) > 1 else {}),
            "form": fitted.form.describe(),
            "forms": [
                {"form": score.form.describe(), "loss": score.loss, "kept": score.kept, "energy": score.energy}
                for score in fitted.forms
            ],
            "draws": draws,
            **gain_detail(gain),
            **details(fitted.history),
            "rho": [[round(value, 6) for value in pair] for pair in fitted.rho.tolist()],
        }
        self.reset()

    def reset(self) -> None:
        self._start = 0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        output = self.fitted.predict(inputs, self.draws, self.gain.value, self._start)
        self._start += len(inputs)
        return output


class OCD(Method):
    """One draw per test sample. The fast hypernetwork, conditioned on I(x) and, where the task has an encoder, on x.

    An ablation is a subclass that changes one of these: the fit (``ablation``), the layer, the number of draws, the gate, or
    how the fit is used (:meth:`changed`).
    """

    name = "ocd"
    description = "conditional diffusion of each sample's own weights, one draw"
    section = "ocd"
    Settings: ClassVar[type] = OCDSettings
    follows = True
    chosen = "validation"
    draws: ClassVar[int] = 1
    ablation: ClassVar[Variant] = Variant()
    gate: ClassVar[float] = 0.0

    def layer(self, context: Context) -> str:
        """The layer to change."""
        return context.layer

    def problem(self, context: Context, layer: str) -> Problem:
        """The context in the form that the engine needs."""
        return problem_of(context, layer, self.section)

    def variant(self, settings: Any) -> Variant:
        """What the ablation changes in the fit, under these settings."""
        guided = settings.guidance != 1
        return replace(self.ablation, build=Guided(self.ablation.build)) if guided else self.ablation

    def changed(self, fitted: FittedOCD) -> FittedOCD:
        """The object that predicts, made from the fit. It uses the gain that was chosen for the fit."""
        return fitted

    def fitted(self, context: Context) -> FittedOCD:
        """The trained hypernetwork. Methods that ask for the same one share it."""
        layer, settings = self.layer(context), context.settings(self.section)
        key = (self.section, layer, settings, self.variant(settings))
        return context.shared(("fit", *key), lambda: fit(self.problem(context, layer), settings, self.variant(settings)))

    def fit(self, context: Context) -> Predictor:
        wanted = context.settings("select").layer
        if wanted == "norms":
            if self.name != "ocd":
                raise NotApplicable("select.layer=norms: ocd alone changes norm layers; it has no draws, and no other variant")
            return fitted_norms(context, NormSettings())
        names = self.layers(context, wanted)
        fitted, gain = self.fit_layer(context, self.problem(context, names[0]))
        gains = {names[0]: gain.value}
        for name in names[1:]:
            before = tuple(part for item in gains.items() for part in item)
            fitted, gain = self.fit_layer(context, self._further(context, fitted, gain, name, before), before)
            gains[name] = gain.value
        return OCDPredictor(self.changed(fitted), gain, self.draws, gains)

    def layers(self, context: Context, wanted: str) -> list[str]:
        """The layers to change, in the order in which they run."""
        if wanted != "all" and "," not in wanted:
            return [self.layer(context)]
        model, inputs = context.fresh_base(), probe(context)
        return in_order(model, layer_names(wanted, model, inputs), inputs)

    def _further(self, context: Context, fitted: FittedOCD, gain: Gain, name: str, before: tuple[Hashable, ...]) -> Problem:
        """The problem of the layer ``name`` of the base as the fits before leave it."""
        return replace(
            fitted.problem,
            layer=next_layer(fitted, gain.value, name, len(before) // 2),
            seed=derive(fitted.problem.seed, name),
            folds=no_folds,
            stage=lambda what, key: context.stage(what, (self.section, before, name, key)),
            remember=lambda key, build: context.shared((self.section, before, name, key), build),
        )

    def fit_layer(self, context: Context, problem: Problem, before: tuple[Hashable, ...] = ()) -> tuple[FittedOCD, Gain]:
        """The fit on one layer, gated where the settings say so, and its gain. Methods share what they have in common.

        Args:
            before: names and gains of the layers that are changed before it.
        """
        settings = context.settings(self.section)
        key = (self.section, *before, problem.layer.name, settings, self.variant(settings))
        fitted = context.shared(("fit", *key), lambda: fit(problem, settings, self.variant(settings)))
        share = settings.gate or self.gate
        if share and fitted.problem.signature is not None:
            gate = context.shared(("gate", self.section, share), lambda: gate_of(fitted.problem, share))
            fitted = gated(fitted, gate)
        gain = context.shared(
            ("gain", *key, self.draws, share), lambda: fitted.choose_gain(self.draws, (self.variant(settings), share))
        )
        return fitted, gain


class OCDEnsemble(OCD):
    """Five draws per sample, combined by the task (mean of class probabilities, or of values)."""

    name = "ocd-x5"
    description = f"ocd, ensemble of {ENSEMBLE} draws"
    draws = ENSEMBLE


class OCDNoScale(OCD):
    """No scale network: the diffusion model predicts the weight change including its length (an ablation of the paper).

    Its targets are the codes divided by one constant for all samples, their root mean square length.
    """

    name = "ocd-noscale"
    description = "ocd without the scale network: diffusion of the unnormalised change"
    default = False  # it needs a fit of its own, so it runs only if named, or with "all"
    ablation = Variant(scaled=False)


class OCDImitate(OCD):
    """Trained as published: the hypernetwork imitates overfitted changes. The task's loss of its predictions is not used."""

    name = "ocd-imitate"
    description = "ocd without the task's loss in its training: imitation of overfitted changes alone"
    default = False
    ablation = Variant(task_loss=False)


class OCDGated(OCD):
    """Keeps the base's weights for out-of-distribution samples (``Task.signature``)."""

    name = "ocd-gated"
    description = "ocd, but out-of-distribution samples keep the base's weights"
    default = False
    gate = 0.99

    def fit(self, context: Context) -> Predictor:
        if self.problem(context, self.layer(context)).signature is None:
            raise NotApplicable("the task gives no features for out-of-distribution detection (Task.signature)")
        return super().fit(context)


class OCDRegress(OCD):
    """The same condition, trunk, scale network and training; squared error of the direction instead of diffusion."""

    name = "ocd-regress"
    description = "ocd's network predicting the change by regression, no diffusion"
    ablation = Variant(build=regressor)


class OCDSecondLayer(OCD):
    """The layer with the highest rank by the entropy criterion among the layers that were not chosen."""

    name = "ocd-layer2"
    description = "ocd on the second-best layer"
    default = False

    def layers(self, context: Context, wanted: str) -> list[str]:
        if len(super().layers(context, wanted)) > 1:
            raise NotApplicable("select.layer names several layers, and this row is ocd on another one")
        return [self.layer(context)]

    def layer(self, context: Context) -> str:
        for name, _ in context.ranking():
            if name != context.layer:
                return name
        raise NotApplicable(f"{context.layer!r} is the only layer of this model that can be adapted per sample")


class OCDBestLayer(OCD):
    """Fits each layer that can be adapted, and keeps the one whose changes leave the least loss of validation samples.

    The layer that is adapted elsewhere is kept where no other is better. A layer that cannot be fitted is left out.
    """

    name = "ocd-best-layer"
    description = "ocd on the layer where it helps validation samples most; fits every layer"
    default = False

    def fit(self, context: Context) -> Predictor:
        names = sorted(candidates(context.fresh_base(), probe(context)), key=lambda name: name != context.layer)
        tried: dict[str, float | str] = {}
        best: tuple[float, FittedOCD, Gain] | None = None
        for name in names:
            try:
                fitted, gain = self.fit_layer(context, self.problem(context, name))
            except (NotApplicable, UsageError) as error:
                tried[name] = str(error)
                continue
            loss = tried[name] = validation_loss(fitted, gain.value, self.draws)
            if best is None or loss < best[0]:
                best = loss, fitted, gain
        if best is None:
            raise NotApplicable("; ".join(f"{name}: {why}" for name, why in tried.items()) or "no layer can be adapted")
        predictor = OCDPredictor(self.changed(best[1]), best[2], self.draws)
        predictor.detail = {**predictor.detail, "tried": tried}
        return predictor


def validation_loss(fitted: FittedOCD, gain: float, draws: int) -> float:
    """The mean loss of the validation samples on which the gain was chosen, with the changes times the gain."""
    problem = fitted.problem
    inputs, targets = validation_samples(problem, fitted.settings.val_samples)
    (output,) = fitted.outputs(inputs, (gain,), draws, purpose="validation")
    return float(problem.loss(output, targets.to(problem.device)).mean())


METHODS = [
    OCD(), OCDEnsemble(), OCDImitate(), OCDGated(), OCDNoScale(), OCDSecondLayer(), OCDBestLayer(), OCDRegress(),
]  # fmt: skip
