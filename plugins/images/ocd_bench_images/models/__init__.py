"""Base models by name, one module per family. A model's ``adapted_layer`` is the layer the paper adapts in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocd_bench import Request, Splits, UsageError
from ocd_bench_images.models.weights import find_weights
from ocd_bench_images.settings import LITE, RESNETS, TIMM

if TYPE_CHECKING:
    from torch import nn

    from ocd_bench_images.settings import ImagesSettings

SMALL = 40
"""Side in pixels up to which ``auto`` selects the networks for MNIST and CIFAR."""


def choose(channels: int, side: int, preset: str) -> str:
    """The model that ``auto`` selects. ``side`` is the longer side of the pictures in pixels."""
    if preset == "quick":  # with BatchNorm, so that Tent and its variants have a number
        return "lenet5-bn" if side <= SMALL else "resnet18-slim"
    if channels == 1 and side <= SMALL:
        return "lenet5"
    return "googlenet" if preset == "paper" and side <= SMALL else "resnet18"


def build(splits: Splits, request: Request, settings: ImagesSettings) -> nn.Module:
    """The model for the pictures and classes of ``splits``: with the weights of :func:`.weights.find_weights`, or untrained.

    Raises:
        UsageError: for weights that do not fit, or pictures of a size the model cannot take.
        Unavailable: where a library or its weights are not at hand.
    """
    channels, height, width = splits.train.inputs.shape[1:]
    classes = len(splits.extras.get("classes", ())) or int(splits.train.targets.max()) + 1
    name = settings.model
    if name == "auto":
        name = choose(channels, max(height, width), request.preset)
    model = _build(name, channels, height, width, classes, request, settings)
    _load(model, name, request, settings)
    check_size(model, name, splits)
    return model


def _build(
    name: str, channels: int, height: int, width: int, classes: int, request: Request, settings: ImagesSettings
) -> nn.Module:
    if name.startswith("lenet5"):
        from ocd_bench_images.models.lenet import LeNet5

        return LeNet5(channels, height, width, classes, norm=name.endswith("-bn"))
    if name.startswith("resnet18"):
        from ocd_bench_images.models.resnet import ResNet18

        return ResNet18(channels, classes, width=16 if name.endswith("-slim") else 64)
    if name in RESNETS:
        from ocd_bench_images.models.cifar_resnet import DEPTHS, CifarResNet

        return CifarResNet(DEPTHS[name], channels, classes)
    if name == "googlenet":
        from ocd_bench_images.models.googlenet import GoogLeNet

        return GoogLeNet(channels, classes)
    if name == LITE:
        from ocd_bench_images.models.pretrained import lite0

        return lite0(classes, settings.input_size)
    if name.startswith(TIMM):
        from ocd_bench_images.models import catalogue

        pretrained = find_weights(request, settings) is not None
        return catalogue.build(name, channels, classes, settings.input_size, pretrained)
    from ocd_bench_images.models.deit import DeiT

    return DeiT(settings.pretrained, classes, download=settings.download and not request.offline)


def _load(model: nn.Module, name: str, request: Request, settings: ImagesSettings) -> None:
    weights = find_weights(request, settings)
    if weights is None:
        return
    from ocd_bench.checkpoint import load_checkpoint
    from ocd_bench_images.models.pretrained import Pretrained

    hint = f"these weights are not of model {name!r} for this dataset; choose the fitting model (--set images.model=NAME)"
    if isinstance(model, Pretrained):
        model.load(weights.path, hint)
    else:
        load_checkpoint(model, weights.path, hint, key=settings.checkpoint_key, setting="images.checkpoint_key")


def check_size(model: nn.Module, name: str, splits: Splits) -> None:
    """Run two pictures through the model, so that a size it cannot take is found before anything is trained.

    Raises:
        UsageError: if it fails.
    """
    import torch

    height, width = splits.train.inputs.shape[-2:]
    mode = model.training
    try:
        with torch.no_grad():
            model.eval()(splits.train.inputs[:2])
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"model {name!r} cannot take pictures of {height} x {width} pixels ({reason}); give --set images.image_size=N"
        ) from error
    model.train(mode)
