"""Base models by name, one module per family. A model's ``adapted_layer`` is the layer the paper adapts in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocd_bench import Request, Splits

if TYPE_CHECKING:
    from torch import nn

    from ocd_bench_images.settings import ImagesSettings

SMALL = 40
"""Side in pixels up to which ``auto`` selects the networks for MNIST and CIFAR."""


def choose(channels: int, side: int, preset: str) -> str:
    """The model that ``auto`` selects. ``side`` is the longer side of the pictures in pixels."""
    if channels == 1 and side <= SMALL:
        return "lenet5"
    if preset == "quick":
        return "lenet5-bn" if side <= SMALL else "resnet18-slim"
    return "googlenet" if preset == "paper" and side <= SMALL else "resnet18"


def build(splits: Splits, request: Request, settings: ImagesSettings) -> nn.Module:
    """The untrained model (``deit``: with its pretrained weights) for the pictures and classes of ``splits``.

    Raises:
        UsageError: for pictures too small for the model.
        Unavailable: for ``deit`` without transformers or without its weights.
    """
    channels, height, width = splits.train.inputs.shape[1:]
    classes = len(splits.extras.get("classes", ())) or int(splits.train.targets.max()) + 1
    name = settings.model
    if name == "auto":
        name = choose(channels, max(height, width), request.preset)
    if name.startswith("lenet5"):
        from ocd_bench_images.models.lenet import LeNet5

        return LeNet5(channels, height, width, classes, norm=name.endswith("-bn"))
    if name.startswith("resnet18"):
        from ocd_bench_images.models.resnet import ResNet18

        return ResNet18(channels, classes, width=16 if name.endswith("-slim") else 64)
    if name == "googlenet":
        from ocd_bench_images.models.googlenet import GoogLeNet

        return GoogLeNet(channels, classes)
    from ocd_bench_images.models.deit import DeiT

    return DeiT(settings.pretrained, classes, download=settings.download and not request.offline)
