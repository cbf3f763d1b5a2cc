"""Two tiny tasks and a context around them, for tests of methods: ``from tests.toy import ToyClasses, make_context``."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ocd_bench.config import CORE
from ocd_bench.method import Context, Method
from ocd_bench.samples import Samples, Splits
from ocd_bench.task import Request, Task


class ToyClasses(Task):
    """Three classes of noisy 1 x 6 x 6 pictures; a convolution with batch norm, then two linear layers."""

    name = "toy-classes"
    primary_metric = "accuracy"
    noise = 1.5

    def load_data(self, request: Request) -> Splits:
        random = request.generator("data")
        patterns = torch.randn(3, 1, 6, 6, generator=random)

        def draw(count: int) -> Samples:
            labels = torch.arange(count) % 3
            return Samples(patterns[labels] + self.noise * torch.randn(count, 1, 6, 6, generator=random), labels)

        return Splits(draw(90), draw(30), draw(45))

    def base_model(self, splits: Splits, request: Request) -> nn.Module:
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(1, 4, 3, padding=1),
                norm=nn.BatchNorm2d(4),
                relu=nn.ReLU(),
                pool=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                hidden=nn.Linear(36, 8),
                tanh=nn.Tanh(),
                classifier=nn.Linear(8, 3),
            )
        )

    def select_layer(self, model: nn.Module, request: Request) -> str:
        return "hidden"

    def signature(self, inputs: torch.Tensor) -> torch.Tensor:
        pixels = inputs.flatten(1)
        return torch.stack([pixels.mean(1), pixels.std(1)], 1)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"accuracy": (output.argmax(-1) == target).float(), "cross_entropy": self.loss(output, target)}

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        return output

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs + 0.5 * torch.randn(inputs.shape, generator=generator, dtype=inputs.dtype), targets


class ToyValues(Task):
    """Regression from four numbers to one, with a multilayer perceptron without norm layers."""

    name = "toy-values"
    primary_metric = "rmse"

    def load_data(self, request: Request) -> Splits:
        random = request.generator("data")
        weight = torch.randn(4, 1, generator=random)

        def draw(count: int) -> Samples:
            inputs = torch.randn(count, 4, generator=random)
            return Samples(inputs, torch.sin(inputs @ weight) + 0.1 * torch.randn(count, 1, generator=random))

        return Splits(draw(90), draw(30), draw(45))

    def base_model(self, splits: Splits, request: Request) -> nn.Module:
        return nn.Sequential(OrderedDict(first=nn.Linear(4, 8), tanh=nn.Tanh(), last=nn.Linear(8, 1)))

    def select_layer(self, model: nn.Module, request: Request) -> str:
        return "first"

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().flatten(1).mean(1)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"rmse": self.loss(output, target)}


def request_for(task: Task, seed: int = 0) -> Request:
    """The request of the toy runs."""
    return Request(task=task.name, dataset="default", settings=task.Settings() if task.Settings else None, seed=seed)


def held_out(task: Task, seed: int = 0) -> Samples:
    """The test samples, which are not in a context."""
    return task.load_data(request_for(task, seed)).test


def make_context(
    task: Task,
    *,
    base: nn.Module | None = None,
    layer: str | None = None,
    settings: Mapping[str, Any] | None = None,
    batch_size: int = 16,
    seed: int = 0,
    steps: int = 60,
    dtype: torch.dtype = torch.float32,
) -> Context:
    """A context around ``base`` (default: the task's own model, trained for ``steps`` full-batch Adam steps).

    Args:
        layer: default: the task's choice.
        settings: instances by section name; the section of any method imported so far has its defaults otherwise.
        dtype: of base and samples; float64 where a test compares with formulas.
    """
    request = request_for(task, seed)
    splits = task.load_data(request)
    train, val = (_cast(samples, dtype) for samples in (splits.train, splits.val))
    splits = Splits(train, val, val)
    if base is None:
        key = (type(task), seed, steps, dtype)
        if key not in _TRAINED:
            _TRAINED[key] = _train(task, splits, request, steps, dtype)
        base = copy.deepcopy(_TRAINED[key])
    base = base.to(dtype).eval().requires_grad_(False)
    chosen = layer or task.select_layer(base, request)
    names = [name for name, module in base.named_modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)]
    chosen = chosen or names[0]
    ranked = [chosen, *(name for name in names if name != chosen)]
    return Context(
        task=task,
        request=request,
        splits=splits,
        base=base,
        layer=chosen,
        device=torch.device("cpu"),
        settings=lambda section: _section(section, settings or {}),
        batch_size=batch_size,
        ranking=lambda: [(name, -float(place)) for place, name in enumerate(ranked)],
    )


_TRAINED: dict[tuple[Any, ...], nn.Module] = {}


def _train(task: Task, splits: Splits, request: Request, steps: int, dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        model = task.base_model(splits, request).to(dtype)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(steps):
            task.loss(model(splits.train.inputs), splits.train.targets).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return model


def _cast(samples: Samples, dtype: torch.dtype) -> Samples:
    return Samples(*(x.to(dtype) if x.is_floating_point() else x for x in (samples.inputs, samples.targets)))


def _section(section: str, given: Mapping[str, Any]) -> Any:
    if section in given:
        return given[section]
    if section in CORE:
        return CORE[section]()
    kinds = [Method]
    for kind in kinds:  # every method class imported so far
        kinds += kind.__subclasses__()
    return next((kind.Settings() for kind in kinds if kind.section == section and kind.Settings), None)
