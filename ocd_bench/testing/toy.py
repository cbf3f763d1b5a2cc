"""Two small tasks on which methods are checked, and the context that a method gets.

.. versionadded:: 0.1
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from ocd_bench.config import Config, check_keys, known_sections, resolve
from ocd_bench.method import Context, Method
from ocd_bench.samples import Samples, Splits
from ocd_bench.seeds import derive
from ocd_bench.task import Request, Task

SIZES = (60, 24, 33)
"""Training, validation and test samples. In batches of :data:`BATCH`, the last test batch has one sample."""
BATCH = 16
STEPS, RATE = 60, 0.3


class ToyTask(Task):
    """A task that counts the calls of ``load_data`` and can permute its test targets.

    Args:
        scrambled: whether test targets are in another order; no prediction may depend on it.
    """

    presets: ClassVar = {
        "quick": {
            "ocd.steps": 20,
            "ocd.width": 32,
            "ocd_paper.steps": 2,
            "ocd_paper.channels": 8,
            "ocd_paper.sampling_steps": 2,
        }
    }

    def __init__(self, scrambled: bool = False) -> None:
        self.scrambled = scrambled
        self.loads = 0

    def load_data(self, request: Request) -> Splits:
        self.loads += 1
        random = request.generator("data")
        train, val, test = (self.draw(size, random) for size in SIZES)
        if self.scrambled:
            test = Samples(test.inputs, test.targets.roll(1, 0), test.groups)
        return Splits(train, val, test)

    def draw(self, count: int, random: torch.Generator) -> Samples:
        """``count`` samples."""
        raise NotImplementedError


class ToyClasses(ToyTask):
    """Three classes of noisy pictures ``(N, 1, 6, 6)``. The base has a convolution, batch norm and two linear layers."""

    name = "toy-classes"
    primary_metric = "accuracy"

    def draw(self, count: int, random: torch.Generator) -> Samples:
        labels = torch.arange(count) % 3
        patterns = torch.stack([torch.eye(6), torch.eye(6).flip(0), torch.ones(6, 6) / 2]).unsqueeze(1)
        inputs = patterns[labels] + 0.5 * torch.randn(count, 1, 6, 6, generator=random)
        return Samples(inputs, labels, groups=range(count))

    def base_model(self, splits: Splits, request: Request) -> nn.Module:
        features = OrderedDict(conv=nn.Conv2d(1, 4, 3, padding=1), norm=nn.BatchNorm2d(4), relu=nn.ReLU(), pool=nn.MaxPool2d(2))
        head = OrderedDict(flatten=nn.Flatten(), hidden=nn.Linear(36, 8), tanh=nn.Tanh(), classifier=nn.Linear(8, 3))
        return nn.Sequential(OrderedDict(**features, **head))

    def select_layer(self, model: nn.Module, request: Request) -> str:
        return "hidden"

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"accuracy": (output.argmax(-1) == target).float(), "cross_entropy": self.loss(output, target)}

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        return output

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs + 0.3 * torch.randn(inputs.shape, generator=generator), targets


class ToyValues(ToyTask):
    """Regression ``(N, 4)`` to ``(N, 1)``. The base has no norm layer, and there are no class logits."""

    name = "toy-values"
    primary_metric = "rmse"

    def draw(self, count: int, random: torch.Generator) -> Samples:
        inputs = torch.randn(count, 4, generator=random)
        targets = torch.sin(inputs.sum(1, keepdim=True)) + 0.1 * torch.randn(count, 1, generator=random)
        return Samples(inputs, targets, groups=range(count))

    def base_model(self, splits: Splits, request: Request) -> nn.Module:
        return nn.Sequential(OrderedDict(first=nn.Linear(4, 8), tanh=nn.Tanh(), last=nn.Linear(8, 1)))

    def select_layer(self, model: nn.Module, request: Request) -> str:
        return "first"

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().mean(1)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"rmse": self.loss(output, target)}


TOYS: Mapping[str, Callable[[bool], ToyTask]] = {toy.name: toy for toy in (ToyClasses, ToyValues)}


def configure(task: Task, method: Method, overrides: Mapping[str, Any] | None) -> Config:
    """Settings of the preset ``quick``; sections a method ``reads`` come from the built-in methods.

    Raises:
        UsageError: for a key that no section has.
    """
    methods: Sequence[Method] = [method]
    if method.reads:
        from ocd_bench.methods import builtin

        methods = [method, *builtin()]
    check_keys(overrides or {}, known_sections([task], methods))
    return resolve(task, methods, "quick", overrides)


@functools.cache
def _trained(toy: str, steps: int = STEPS) -> nn.Module:
    task = TOYS[toy](False)
    request = _request(task)
    splits = task.load_data(request)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(toy, "base"))
        base = task.base_model(splits, request)
        for _ in range(steps):  # plain gradient descent: importing torch.optim takes longer than all of it
            loss = task.loss(base(splits.train.inputs), splits.train.targets).mean()
            parameters = list(base.parameters())
            with torch.no_grad():
                for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    parameter.sub_(RATE * slope)
    return base.eval().requires_grad_(False)


def _request(task: Task) -> Request:
    return Request(task.name, "default", None, "quick", 0, True)


def toy_context(task: ToyTask, method: Method, overrides: Mapping[str, Any] | None = None) -> tuple[Context, Samples]:
    """The context that the runner would make for ``method``, and the test samples, which no method gets.

    Args:
        task: a :class:`ToyClasses` or :class:`ToyValues`. Its base is trained for a few steps, once per process.
        method: an instance.
        overrides: settings by dotted key, as for ``--set``; the others are those of the preset ``quick``.
    """
    config = configure(task, method, overrides)
    request = _request(task)
    splits = task.load_data(request)
    base = copy.deepcopy(_trained(task.name))
    layer = str(task.select_layer(base, request))
    names = [name for name, module in base.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    ranked = sorted(names, key=lambda name: name != layer)
    allowed = {method.section, *method.reads, "base", "select", "run", task.name}

    def settings(name: str) -> Any:
        if name not in allowed:
            raise RuntimeError(f"section {name!r} is read but not declared: name it in 'reads'")
        return config.section(name)

    context = Context(
        task=task,
        request=request,
        splits=Splits(splits.train, splits.val, splits.val),
        base=base,
        layer=layer,
        device=torch.device("cpu"),
        settings=settings,
        batch_size=BATCH,
        ranking=lambda: [(name, -float(place)) for place, name in enumerate(ranked)],
        longer_base=lambda samples: copy.deepcopy(_trained(task.name, 2 * STEPS)),
    )
    return context, splits.test
