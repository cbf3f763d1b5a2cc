"""OCD and its ablations: a hypernetwork draws every test sample's own change of one layer's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from ocd_bench.checkpoint import find_checkpoint
from ocd_bench.engine.gain import Gain, gain_on_validation
from ocd_bench.engine.gate import gate_of
from ocd_bench.engine.layer import TargetLayer
from ocd_bench.engine.nearest import Nearest
from ocd_bench.engine.ocd import FittedOCD, fit
from ocd_bench.engine.problem import Problem, Quality
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.training import details
from ocd_bench.engine.vgg import PictureFeatures, cached_vgg11, load_vgg11
from ocd_bench.errors import NotApplicable
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.metrics import REDUCTIONS, Metric, metric_info, primary_metric
from ocd_bench.published.settings import PaperSettings
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
        excerpt=own("excerpt"),
        output_features=task.encode_output,
        signature=own("signature"),
        encoder=lambda: task.encode_input(context.splits, context.request),
        quality=quality_of(task),
        combine=task.ensemble,
        seed=context.generator(method, "fit").initial_seed(),
        folds=lambda count: context.shared(
            f"ocd-folds-{layer}-{count}",
            lambda: [(TargetLayer(base, layer), held) for base, held in context.fold_bases(count)],
        ),
        progress=context.progress,
        remember=lambda name, build: context.shared(f"ocd-{method}-{layer}-{name}", build),
    )


def quality_of(task: Task) -> Quality:
    """The task's primary metric, as a choice on validation samples sees it."""
    found: list[Metric] = []

    def scores(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        reported = task.metrics(output, target)
        name = primary_metric(task, reported)
        found[:] = [metric_info(task, name)]
        return reported[name]

    def reduce(values: torch.Tensor) -> torch.Tensor:
        sign = 1 if found[0].higher_is_better else -1
        return sign * torch.from_numpy(REDUCTIONS[found[0].reduce](values.numpy()))

    return Quality(scores, reduce)


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
        output = self.fitted.predict(inputs, self.draws, self.gain.value, self._start, self.random)
        self._start += len(inputs)
        return output


class OCD(Method):
    """One draw per test sample. The fast hypernetwork, conditioned on I(x) and, where the task has an encoder, on x."""

    name = "ocd"
    description = "conditional diffusion of each sample's own weights, one draw"
    section = "ocd"
    Settings: ClassVar[type] = OCDSettings
    draws = 1
    diffusion = True
    scaled = True
    random = False
    imitates = False
    gate = 0.0

    def layer(self, context: Context) -> str:
        """The layer to change."""
        return context.layer

    def problem(self, context: Context, layer: str) -> Problem:
        """The context as the engine wants it."""
        return problem_of(context, layer, self.section.replace("_", "-"))

    def has_scale(self, settings: Any) -> bool:
        """Whether there is a scale network."""
        return self.scaled

    def fit(self, context: Context) -> OCDPredictor:
        layer = self.layer(context)
        settings = context.settings(self.section)
        if self.imitates:
            settings = replace(settings, task_weight=0.0)
        scaled = self.has_scale(settings)
        key = f"ocd-fit-{self.section}-{layer}-{self.diffusion}-{scaled}-{settings.task_weight > 0}"
        build = lambda: fit(self.problem(context, layer), settings, diffusion=self.diffusion, scaled=scaled)  # noqa: E731
        fitted = context.shared(key, build)
        share = settings.gate or self.gate
        if share:
            gate = context.shared(f"ocd-gate-{share}", lambda: gate_of(fitted.problem, share))
            fitted = replace(fitted, gate=gate)
        gain = context.shared(f"{key}-gain-{self.draws}-{share}", lambda: fitted.choose_gain(self.draws))
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
    default = False  # a fit of its own: asked for by name, or by "all"
    scaled = False


class OCDImitate(OCD):
    """Trained as published: the hypernetwork imitates overfitted changes, and never sees the task's loss of its own."""

    name = "ocd-imitate"
    description = "ocd without the task's loss in its training: imitation of overfitted changes alone"
    default = False
    imitates = True


class OCDGated(OCD):
    """Leaves the base as it is for samples whose signature is unlike that of training samples (``Task.signature``)."""

    name = "ocd-gated"
    description = "ocd, but samples unlike those of training keep the base's weights"
    default = False
    gate = 0.99

    def fit(self, context: Context) -> OCDPredictor:
        if self.problem(context, self.layer(context)).signature is None:
            raise NotApplicable("the task names no numbers by which a stranger is told (Task.signature)")
        return super().fit(context)


class OCDRegress(OCD):
    """The same condition, trunk, scale network and training; squared error of the direction instead of diffusion."""

    name = "ocd-regress"
    description = "ocd's network predicting the change by regression, no diffusion"
    diffusion = False


class OCDSecondLayer(OCD):
    """The layer that the entropy criterion ranks highest beside the chosen one."""

    name = "ocd-layer2"
    description = "ocd on the second-best layer"
    default = False

    def layer(self, context: Context) -> str:
        for name, _ in context.ranking():
            if name != context.layer:
                return name
        raise NotApplicable(f"{context.layer!r} is the only layer of this model that can be adapted per sample")


class PictureOf(torch.nn.Module):
    """A task's output as a picture, encoded."""

    def __init__(self, task: Task, encode: torch.nn.Module) -> None:
        super().__init__()
        self.task, self.encode = task, encode

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        return self.encode(self.task.output_picture(output))


class OCDPaper(OCD):
    """The paper's U-Net on the full matrix, I(x) alone as the condition; see :class:`PaperSettings`. Slow without a GPU.

    Outputs that are pictures or spectrograms reach the condition through VGG11, or the method does not run.
    """

    name = "ocd-paper"
    description = "the paper's U-Net on the full matrix with its hyper-parameters (slow)"
    section = "ocd_paper"
    Settings = PaperSettings
    default = False

    def has_scale(self, settings: PaperSettings) -> bool:
        return settings.scaled

    def problem(self, context: Context, layer: str) -> Problem:
        problem, task = super().problem(context, layer), context.task
        name = context.settings(self.section).vgg11
        with torch.no_grad():
            picture = task.output_picture(context.base(context.train.inputs[:1].to(context.device)))
        if picture is None or name == "off":
            return problem
        build = lambda: self.picture_encoder(name, context.request.data_dirs)  # noqa: E731
        encode = context.shared("ocd-paper-vgg11", build).to(context.device)
        return replace(problem, output_features=PictureOf(task, encode))

    @staticmethod
    def picture_encoder(name: str, directories: Sequence[Path]) -> PictureFeatures:
        """VGG11 with the weights ``name``, see :class:`PaperSettings`.

        Raises:
            NotApplicable: if none are named, and none lie in torchvision's cache.
            UsageError: if the file is not there, or not VGG11's.
        """
        path = find_checkpoint("ocd_paper.vgg11", name, directories) if name else cached_vgg11()
        if path is None:
            raise NotApplicable(
                "outputs that are pictures or spectrograms go through VGG11, whose weights are not at hand: give torchvision's "
                "state dict, --set ocd_paper.vgg11=FILE (or =off: the task's own features, which is not the paper's method)"
            )
        return load_vgg11(path)


class OCDPaperEnsemble(OCDPaper):
    """Five draws per sample, combined by the task."""

    name = "ocd-paper-x5"
    description = f"ocd-paper, ensemble of {ENSEMBLE} draws (slower still)"
    draws = ENSEMBLE


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

    def fit(self, context: Context) -> NearestPredictor:
        settings = context.settings("ocd")
        nearest = Nearest(problem_of(context, context.layer), settings)
        gain = gain_on_validation(nearest.problem, settings, lambda inputs, gains, start: nearest.outputs(inputs, gains))
        return NearestPredictor(nearest, gain)


METHODS = [
    OCD(), OCDEnsemble(), OCDImitate(), OCDGated(), OCDNoScale(), OCDNearest(), OCDSecondLayer(), OCDRegress(),
    OCDPaper(), OCDPaperEnsemble(),
]  # fmt: skip
