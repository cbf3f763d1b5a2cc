"""``ocd-paper``: the published method. The paper's U-Net on the full weight matrix, with the hyper-parameters of its code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ocd_bench.checkpoint import find_checkpoint
from ocd_bench.engine.condition import Condition
from ocd_bench.engine.diffusion import Diffusion
from ocd_bench.engine.forms import Form
from ocd_bench.engine.hypernetwork import CodeNetwork, ConstantScale, HyperNetwork
from ocd_bench.engine.ocd import Variant
from ocd_bench.engine.problem import Problem
from ocd_bench.errors import NotApplicable
from ocd_bench.method import Context
from ocd_bench.methods.ocd import ENSEMBLE, OCD
from ocd_bench.published.settings import PaperSettings
from ocd_bench.published.unet import UNet
from ocd_bench.published.vgg11 import PictureFeatures, cached_vgg11, load_vgg11
from ocd_bench.task import Task


def unet_hypernetwork(
    settings: Any, form: Form, condition: Callable[[int], Condition], scale: Callable[[int], ConstantScale]
) -> CodeNetwork:
    """Diffusion by the paper's U-Net; ``settings`` are :class:`PaperSettings`."""
    sizes = settings.channels, settings.multipliers, settings.blocks, settings.attention
    unet = UNet(form.shape, *sizes, settings.unet_dropout, settings.precision, settings.compile)
    e = condition(unet.width)
    return HyperNetwork(e, unet, scale(unet.width), form, Diffusion.of(settings, settings.times == "code"))


class PictureOf(torch.nn.Module):
    """Encodes a task's output as a picture: ``(N, ...) -> (N, D)``."""

    def __init__(self, task: Task, encode: torch.nn.Module) -> None:
        super().__init__()
        self.task, self.encode = task, encode

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        return self.encode(self.task.output_picture(output))


class OCDPaper(OCD):
    """The paper's U-Net on the full matrix, with I(x) alone as the condition; see :class:`PaperSettings`. Slow without a GPU.

    Outputs that are pictures or spectrograms are encoded by VGG11 for the condition. The method needs its weights.
    """

    name = "ocd-paper"
    description = "the paper's U-Net on the full matrix with its hyper-parameters (slow)"
    section = "ocd_paper"
    Settings = PaperSettings
    default = False
    ablation = Variant(build=unet_hypernetwork)

    def variant(self, settings: PaperSettings) -> Variant:
        return replace(super().variant(settings), scaled=settings.scaled)

    def problem(self, context: Context, layer: str) -> Problem:
        problem, task = super().problem(context, layer), context.task
        name = context.settings(self.section).vgg11
        with torch.no_grad():
            picture = task.output_picture(context.base(context.train.inputs[:1].to(context.device)))
        if picture is None or name == "off":
            return problem
        encode = context.shared("ocd-paper-vgg11", lambda: picture_encoder(name, context.request.data_dirs)).to(context.device)
        return replace(problem, output_features=PictureOf(task, encode))


def picture_encoder(name: str, directories: Sequence[Path]) -> PictureFeatures:
    """VGG11 with the weights ``name``, see :class:`PaperSettings`.

    Raises:
        NotApplicable: if no file is named, and torchvision's cache has none.
        UsageError: if the file does not exist, or does not hold VGG11.
    """
    path = find_checkpoint("ocd_paper.vgg11", name, directories) if name else cached_vgg11()
    if path is None:
        raise NotApplicable(
            "outputs that are pictures or spectrograms are encoded by VGG11, whose weights were not found: give torchvision's "
            "state dict, --set ocd_paper.vgg11=FILE (or =off: the task's own features, which is not the paper's method)"
        )
    return load_vgg11(path)


class OCDPaperEnsemble(OCDPaper):
    """Five draws per sample, combined by the task."""

    name = "ocd-paper-x5"
    description = f"ocd-paper, ensemble of {ENSEMBLE} draws (slower still)"
    draws = ENSEMBLE


METHODS = [OCDPaper(), OCDPaperEnsemble()]
