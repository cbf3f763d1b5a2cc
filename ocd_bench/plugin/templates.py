"""Templates of the files that ``plugin new`` writes. The scaffold fills in ``$name``, ``$package`` and other variables."""

PYPROJECT = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "The $kind $name for OCD-Bench"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["ocd-bench"]

[project.entry-points.ocd_bench]
$name = "$package"

[tool.setuptools.packages.find]
where = ["src"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["src"]

[tool.ruff]
line-length = 100
"""

README = """\
# $distribution

The $kind `$name`, a plugin of OCD-Bench.

```
pip install -e .
ocd-bench list $kinds
ocd-bench plugin check $name
$run
```

Tests: `python -m pytest`. They run the conformance kit, one test per check, and the tests you add.
"""

TASK_INIT = '''\
"""The task $name. Every ocd-bench command imports this module: keep it light."""

import ocd_bench


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register):
    """Register the task; what it needs is imported here."""
    from $package.task import $cls

    register($cls())
'''

TASK = '''\
"""Two interleaved half circles: which one does a point belong to?"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from ocd_bench import Dataset, Request, Samples, Splits, Task, setting
from torch import nn


@dataclass(frozen=True)
class Settings:
    """Set by ``--set $name.noise=0.3``, shown by ``ocd-bench list settings $name``."""

    train: int = setting(300, least=2, unit="samples", help="Training points.")
    noise: float = setting(0.2, least=0, help="Standard deviation of the noise.")
    hidden: int = setting(16, least=1, unit="units", help="Width of the network.")


class $cls(Task):
    """Points in the plane ``(N, 2)``, classes ``(N,)``."""

    name = "$name"
    description = "two interleaved half circles, computed from the seed"
    primary_metric = "accuracy"
    Settings = Settings
    presets: ClassVar = {"quick": {"$name.train": 120, "base.epochs": 10}}

    def datasets(self) -> tuple[Dataset, ...]:
        return (Dataset("moons", "points with normal noise", embedded=True),)

    def load_data(self, request: Request) -> Splits:
        settings = request.settings
        sizes = {"train": settings.train, "val": 100, "test": 200}
        return Splits(**{split: self._draw(n, request, split) for split, n in sizes.items()})

    def _draw(self, count: int, request: Request, split: str) -> Samples:
        random = request.generator(split)  # a stream of its own for each purpose
        classes = torch.arange(count) % 2
        angle = math.pi * (torch.rand(count, generator=random) + classes)
        points = torch.stack([angle.cos(), angle.sin()], 1)
        points += classes.unsqueeze(1) * torch.tensor([1.0, 0.5])
        noise = torch.randn(count, 2, generator=random)
        points += request.settings.noise * noise
        # groups: what samples have in common (speaker, scene, day); here each is independent.
        return Samples(points, classes, groups=range(count))

    def base_model(self, splits: Splits, request: Request) -> nn.Module:
        width = request.settings.hidden
        layers = OrderedDict(
            first=nn.Linear(2, width),
            relu=nn.ReLU(),
            hidden=nn.Linear(width, width),
            tanh=nn.Tanh(),
            classes=nn.Linear(width, 2),
        )
        return nn.Sequential(layers)

    def select_layer(self, model: nn.Module, request: Request) -> str:
        return "hidden"

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        right = (output.argmax(-1) == target).float()
        return {"accuracy": right, "cross_entropy": self.loss(output, target)}

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        return output
'''

TASK_TEST = '''\
"""The conformance kit, and a test that only this task has."""

from ocd_bench.plugin.manager import load_plugins
from ocd_bench.testing import TaskConformance, request

from $package.task import $cls


class Test$cls(TaskConformance):
    task = $cls()


def test_it_is_found_as_a_plugin():
    assert "$name" in load_plugins(["$package"]).tasks


def test_without_noise_the_points_lie_on_two_circles():
    task = $cls()
    test = task.load_data(request(task, noise=0.0)).test
    centres = test.targets.unsqueeze(1) * test.inputs.new_tensor([1.0, 0.5])
    assert ((test.inputs - centres).norm(dim=1) - 1).abs().max() < 1e-5
'''

METHOD_INIT = '''\
"""The method $name. Every ocd-bench command imports this module: keep it light."""

import ocd_bench


@ocd_bench.hookimpl
def ocd_bench_register_methods(register):
    """Register the method; what it needs is imported here."""
    from $package.method import $cls

    register($cls())
'''

METHOD = '''\
"""Average the base model over noisy copies of each test sample: no labels, no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from ocd_bench import Context, Method, NotApplicable, Predictor, setting


@dataclass(frozen=True)
class Settings:
    """Set by ``--set $name.noise=0.1``, shown by ``ocd-bench list settings $name``."""

    draws: int = setting(16, least=1, help="Noisy copies of each sample.")
    noise: float = setting(0.05, least=0, help="In standard deviations of the training inputs.")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"draws": 4}}


class Averaged(Predictor):
    """The ensemble of the base's outputs for ``draws`` noisy copies of a batch."""

    def __init__(self, context: Context, settings: Settings, scale: float) -> None:
        self.context, self.settings, self.scale = context, settings, scale
        self.detail = {"scale": scale}
        self.reset()

    def reset(self) -> None:
        self.random = self.context.generator("$name", "noise")

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = []
        with torch.no_grad():
            for _ in range(self.settings.draws):
                noise = torch.randn(inputs.shape, generator=self.random).to(inputs)
                outputs.append(self.context.base(inputs + self.scale * noise))
        return self.context.task.ensemble(torch.stack(outputs))


class $cls(Method):
    """Input noise averaging."""

    name = "$name"
    description = "mean over noisy copies of the input"
    section = "$name"
    Settings = Settings

    def fit(self, context: Context) -> Averaged:
        inputs = context.train.inputs
        if not inputs.is_floating_point():
            raise NotApplicable(f"inputs are {inputs.dtype}: noise needs real numbers")
        settings = context.settings(self.section)
        return Averaged(context, settings, settings.noise * inputs.std().item())
'''

METHOD_TEST = '''\
"""The conformance kit, and a test that only this method has."""

import torch
from ocd_bench.plugin.manager import load_plugins
from ocd_bench.testing import MethodConformance
from ocd_bench.testing.toy import ToyValues, toy_context

from $package.method import $cls


class Test$cls(MethodConformance):
    method = $cls()


def test_it_is_found_as_a_plugin():
    assert "$name" in load_plugins(["$package"]).methods


def test_without_noise_it_is_the_base():
    method = $cls()
    context, test = toy_context(ToyValues(), method, {"$name.noise": 0.0})
    output = method.fit(context)(test.inputs)
    assert torch.allclose(output, context.base(test.inputs), atol=1e-6)
'''
