"""What the steps of one group of cells have in common: its task, methods and settings, and where its messages go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ocd_bench.config import Config, resolve
from ocd_bench.method import Method
from ocd_bench.runner.blame import Blame
from ocd_bench.runner.cells import Group, Variant
from ocd_bench.runner.contract import TaskContract
from ocd_bench.runner.sandbox import Message, Send, arm
from ocd_bench.runner.store import RunFolder
from ocd_bench.runner.stored import FOLDER as BASES
from ocd_bench.task import Request, Task

COMMON = ("base", "select", "run")
"""Sections of settings that every method depends on, beside its own and the task's."""

Todo = list[tuple[Method, list[Variant]]]
"""Methods with the test variants that are still to be measured."""


@dataclass(frozen=True)
class Settings:
    """Settings that all groups of a run share.

    Attributes:
        isolate: whether methods run in processes of their own.
        cell_timeout: time limit of each step in seconds; None: no limit.
        bases: folder of stored bases to use; None: bases are trained.
        keep_bases: whether bases are stored in the run folder.
    """

    preset: str
    overrides: Mapping[str, Any]
    data_dirs: Sequence[Path]
    offline: bool
    device: torch.device
    figures: bool = True
    isolate: bool = False
    cell_timeout: float | None = None
    bases: Path | None = None
    keep_bases: bool = False


class Job:
    """One group, with everything that its steps need.

    Args:
        manager: plugins (tasks, methods, hooks).
        run: the settings of the run.
        folder: the run folder. Finished cells are read from it; only figures and bases are written to it.
        send: takes the messages. It is another one in the process of a method.
    """

    def __init__(self, group: Group, manager: Any, run: Settings, folder: RunFolder, send: Send) -> None:
        self.group, self.manager, self.run, self.folder, self.send = group, manager, run, folder, send
        self.task: Task = manager.task(group.task)
        self.methods: list[Method] = [manager.method(name) for name in group.methods]
        self.config: Config = resolve(self.task, list(manager.methods.values()), run.preset, run.overrides)
        self.request = Request(
            task=group.task,
            dataset=group.dataset,
            settings=self.config.section(group.task),
            preset=run.preset,
            seed=group.seed,
            offline=run.offline,
            data_dirs=tuple(run.data_dirs),
        )
        self.blame = Blame(manager)
        self.contract = TaskContract(self.task, self.blame)
        folder.warn = self.note

    @property
    def kept_bases(self) -> Path | None:
        """The folder where bases are stored; None: they are not."""
        return self.folder.path / BASES if self.run.keep_bases else None

    @property
    def name(self) -> str:
        """The group's name in file names."""
        return f"{self.group.task}-{self.group.dataset}-s{self.group.seed}"

    @property
    def threads(self) -> int:
        """Number of threads that compute."""
        return self.config.section("run").threads

    def sections_of(self, method: Method) -> list[str]:
        """Names of the sections of settings that a method may read."""
        return sorted({name for name in (method.section, *method.reads, *COMMON, self.task.name) if name})

    def reader_of(self, method: Method) -> Callable[[str], Any]:
        """The ``settings`` function of a method's context (:class:`ocd_bench.method.Context`)."""
        allowed = self.sections_of(method)

        def settings(name: str) -> Any:
            if name not in allowed:
                raise RuntimeError(f"method {method.name!r} reads section {name!r}: name it in its 'reads'")
            return self.config.section(name)

        return settings

    def note(self, text: str) -> None:
        """Send a line for the user."""
        self.send(Message("note", {"text": text}))

    def doing(self, what: str) -> None:
        """Say what comes next; its time limit begins."""
        arm(self.run.cell_timeout if self.run.isolate else None)
        self.send(Message("doing", {"what": what}))

    def began(self, method: Method) -> None:
        """Say that a method is being measured."""
        self.send(Message("began", {"method": method.name}))
