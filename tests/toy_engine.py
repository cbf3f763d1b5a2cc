"""A tiny classification problem for tests of the engine: an untrained base with dropout and batch norm."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import nn

from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.ocd import condition_inputs
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.stream import TargetStream
from ocd_bench.engine.targets import TargetSettings

QUICK = OCDSettings(
    overfit_lr=0.5, steps=160, batch_size=64, lr=6e-3, ema=0.95, evaluations=1, width=48, depth=2, sampling_steps=8,
    task_weight=0.0,
)  # fmt: skip


def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(output, target, reduction="none")


def base(convolution: bool = False) -> nn.Module:
    """Six numbers (or a picture of 1 x 3 x 4) to three classes; layers ``hidden`` (8 x 12) and ``conv`` (4 x 9)."""
    torch.manual_seed(0)
    front = [("conv", nn.Conv2d(1, 4, 3, padding=1)), ("flat", nn.Flatten()), ("first", nn.Linear(48, 12))]
    model = nn.Sequential()
    for name, module in front if convolution else [("first", nn.Linear(6, 12))]:
        model.add_module(name, module)
    for name, module in (
        ("norm", nn.BatchNorm1d(12)), ("relu", nn.ReLU()), ("drop", nn.Dropout(0.5)), ("hidden", nn.Linear(12, 8)),
        ("tanh", nn.Tanh()), ("last", nn.Linear(8, 3)),
    ):  # fmt: skip
        model.add_module(name, module)
    model.norm.running_mean.uniform_(-0.3, 0.3)
    return model.eval().requires_grad_(False)


def data(count: int, seed: int = 1, picture: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of standard normal numbers; the class is which of the first three is largest."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *((1, 3, 4) if picture else (6,)), generator=generator)
    return x, x.flatten(1)[:, :3].argmax(1)


def problem(layer: str = "hidden", count: int = 64, **more) -> Problem:
    """A problem whose validation samples are the training samples, unless ``val`` says otherwise."""
    picture = more.pop("picture", False)
    train = data(count, picture=picture)
    model = more.pop("model", None) or base(picture)
    return Problem(**{"layer": TargetLayer(model, layer), "train": train, "val": train, "loss": loss, "seed": 5, **more})


def stream(task: Problem, settings: OCDSettings = QUICK) -> TargetStream:
    """The training targets of a problem, as in a fit."""
    encoder, describe = condition_inputs(task, settings)
    return TargetStream(task, TargetSettings.of(settings), describe, encoder is not None)


def memory(shared: dict) -> Callable:
    """A replacement for the ``Problem.remember`` of a run."""

    def remember(key: Hashable, build: Callable):
        if key not in shared:
            shared[key] = build()
        return shared[key]

    return remember
