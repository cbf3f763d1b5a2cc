"""State that the checks of a task share: its samples, base model and a small batch, each built once, on first use."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ocd_bench.config import check_keys, known_sections, resolve
from ocd_bench.errors import DataMissing
from ocd_bench.folders import data_directories
from ocd_bench.plugin.validate import task_problem
from ocd_bench.samples import Splits
from ocd_bench.task import Request, Task
from ocd_bench.testing.result import Blocked, require

ROWS = 5
"""Samples of the batch that most checks use."""


def request(
    task: Task,
    preset: str = "quick",
    *,
    dataset: str | None = None,
    seed: int = 0,
    data_dirs: Sequence[Path] = (),
    **settings: Any,
) -> Request:
    """A request as the runner would make it, offline, for tests of your own.

    Args:
        task: an instance.
        preset: ``quick``, ``default`` or ``paper``.
        dataset: name of a dataset; default: the task's first.
        seed: of the request.
        data_dirs: where datasets are looked for; default: ``$OCD_BENCH_DATA`` and the cache folder, as in a run.
        settings: values for fields of the task's ``Settings``; the others have the preset's values.

    Raises:
        UsageError: for a setting or preset that does not exist, or a value of a wrong kind.

    Example:
        >>> from ocd_bench.testing.toy import ToyClasses
        >>> made = request(ToyClasses(), seed=3)
        >>> made.task, made.dataset, made.preset, made.seed
        ('toy-classes', 'default', 'quick', 3)

    .. versionadded:: 0.1
    """
    return _request(task, preset, {f"{task.name}.{key}": value for key, value in settings.items()}, dataset, seed, data_dirs)


def _request(
    task: Task, preset: str, overrides: Mapping[str, Any], dataset: str | None, seed: int, data_dirs: Sequence[Path]
) -> Request:
    check_keys(overrides, known_sections([task], []))
    settings = resolve(task, [], preset, overrides).section(task.name)
    folders = tuple(data_dirs) or data_directories(None)
    return Request(task.name, dataset or task.datasets()[0].name, settings, preset, seed, True, folders)


@dataclass
class TaskTrial:
    """State that the checks of one task share.

    Args:
        task: the task.
        dataset: name of a dataset; default: the task's first.
        overrides: settings as for ``--set``, ``{"wine.size": 100}``.
        data_dirs: where datasets are looked for; default: ``$OCD_BENCH_DATA`` and the cache folder, as in a run.
        seed: of the request.
    """

    task: Task
    dataset: str | None = None
    overrides: Mapping[str, Any] | None = None
    data_dirs: Sequence[Path] = ()
    seed: int = 0
    _made: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def request(self) -> Request:
        """The request of a run with the preset ``quick``."""
        if task_problem(self.task):
            raise Blocked("needs a valid declaration")
        return _request(self.task, "quick", self.overrides or {}, self.dataset, self.seed, self.data_dirs)

    @property
    def embedded(self) -> bool:
        """Whether the dataset comes with the plugin."""
        name = self.request.dataset
        return any(item.name == name and item.embedded for item in self.task.datasets())

    @property
    def missing_data(self) -> str:
        """Why the data are not here; empty if they are, or if they come with the plugin."""
        first = "load_data" not in self._made
        with contextlib.suppress(Exception, SystemExit):
            _ = self.splits
        error = self._made.get("load_data")
        if first and isinstance(error, BaseException):
            del self._made["load_data"]  # the check of that name is to report it
        return str(error) if isinstance(error, DataMissing) and not self.embedded else ""

    def load(self, disturbance: int) -> Splits:
        """The splits, loaded while the global random generators are seeded with ``disturbance``."""
        state, numbers = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(disturbance)
            random.seed(disturbance)
            np.random.seed(disturbance)
            try:
                splits = self.task.load_data(self.request)
            finally:
                random.setstate(state)
                np.random.set_state(numbers)
        require(
            isinstance(splits, Splits),
            f"load_data returned a {type(splits).__name__}: return ocd_bench.Splits(train, val, test)",
        )
        return splits

    def build(self, seed: int) -> torch.nn.Module:
        """The untrained base model under a torch seed."""
        splits = self.splits
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.task.base_model(splits, self.request)
        require(isinstance(model, torch.nn.Module), f"base_model returned a {type(model).__name__}: return a torch.nn.Module")
        return model

    # If one of these fails, the check of the same name reports it and the others are skipped.
    @property
    def splits(self) -> Splits:
        return self._once("load_data", lambda: self.load(1))

    @property
    def model(self) -> torch.nn.Module:
        """The untrained base in eval mode."""
        return self._once("base_model", lambda: self.build(1)).eval()

    @property
    def inputs(self) -> torch.Tensor:
        """A few validation inputs, a copy."""
        return self.splits.val.inputs[:ROWS].clone()

    @property
    def targets(self) -> torch.Tensor:
        return self.splits.val.targets[:ROWS].clone()

    @property
    def output(self) -> torch.Tensor:
        """The base's output for the batch, eval mode, no gradients."""

        def compute() -> torch.Tensor:
            with torch.no_grad():
                output = self.model(self.inputs)
            require(
                isinstance(output, torch.Tensor),
                f"the base model returns a {type(output).__name__}: return one tensor (N, ...), and take it apart in loss(); "
                "several outputs are packed with ocd_bench.Layout (docs/plugins.md)",
            )
            return output

        return self._once("output", compute)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            try:
                self._made[name] = make()
            except (Exception, SystemExit) as error:
                self._made[name] = error
                raise
        value = self._made[name]
        if isinstance(value, Blocked):
            raise value
        if isinstance(value, BaseException):
            raise Blocked(f"needs {name}, which failed")
        return value


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal in shape, dtype and every value."""
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)


def close(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal up to the rounding errors that another batch size causes."""
    first, second = first.detach().double(), second.detach().double()
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max()) + 1e-7)


def generator() -> torch.Generator:
    """The same stream every time."""
    return torch.Generator().manual_seed(7)
