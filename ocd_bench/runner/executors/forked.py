"""Workers that are forked from this process: they have its loaded plugins, and start in some milliseconds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from typing import Any

from ocd_bench.runner.cells import Group
from ocd_bench.runner.group import GroupRunner
from ocd_bench.runner.job import Settings
from ocd_bench.runner.messages import Message, Send
from ocd_bench.runner.sandbox import Child, Ending, watch
from ocd_bench.runner.store import RunFolder


class ForkedWorker:
    """A group in a child of this process. The child's steps have the time limit of the settings."""

    def __init__(self, group: Group, manager: Any, settings: Settings, folder: RunFolder) -> None:
        self.group, self._seconds = group, settings.cell_timeout

        def run_group(send: Send) -> None:
            GroupRunner(group, manager, settings, folder, send).execute()

        self.child = Child(run_group, leader=True)

    @property
    def ending(self) -> Ending | None:
        """See :class:`ocd_bench.runner.executors.Worker`."""
        return self.child.ending

    def messages(self) -> Iterator[Message]:
        """See :class:`ocd_bench.runner.executors.Worker`."""
        for message in self.child.messages():
            if message.what == "doing":  # the process that trains has a limit of its own
                self.child.allow(None if message.values["what"] == "training" else self._seconds)
            elif message.what == "began":
                self.child.allow(None)
            yield message

    def kill(self) -> None:
        """See :class:`ocd_bench.runner.executors.Worker`."""
        self.child.kill()


class ForkedExecutor:
    """Up to ``jobs`` groups at a time in children of this process."""

    retries = 0

    def __init__(self, manager: Any, settings: Settings, folder: RunFolder, jobs: int) -> None:
        self.manager, self.settings, self.folder, self.jobs = manager, settings, folder, jobs

    def parts(self, groups: Sequence[Group]) -> list[Group]:
        """Whole groups: their methods share one process's fits."""
        if not all(self.folder.has_files(group) for group in groups):
            import_module("torch._dynamo")  # every optimizer imports it (1.5 s): once here, not once in every child
        return list(groups)

    def admits(self, group: Group, running: int) -> bool:
        """Whether there is a free place."""
        return running < self.jobs

    def start(self, group: Group) -> ForkedWorker:
        """Fork."""
        return ForkedWorker(group, self.manager, self.settings, self.folder)

    def wait(self, running: Collection[ForkedWorker], seconds: float) -> None:
        """See :class:`ocd_bench.runner.executors.Executor`."""
        watch([worker.child for worker in running], seconds)

    def close(self) -> None:
        """Nothing is left when its workers have ended."""
