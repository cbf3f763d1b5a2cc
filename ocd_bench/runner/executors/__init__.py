"""Executors: where groups of cells are measured.

* ``forked``: processes forked from this one. The default on one machine.
* ``spawned``: fresh interpreters on this machine, where a process cannot be forked (a GPU, several threads).
* ``cluster``: fresh interpreters on the machines of a ray cluster.

All of them run the same code (:class:`ocd_bench.runner.group.GroupRunner`) and send the same messages to the
:class:`~ocd_bench.runner.supervisor.Supervisor`, which alone writes the run folder. So results do not depend on the executor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

from ocd_bench.runner.cells import Group
from ocd_bench.runner.messages import Message
from ocd_bench.runner.sandbox import Ending


class Worker(Protocol):
    """One group that is being measured."""

    @property
    def ending(self) -> Ending | None:
        """How it ended; None while it works. ``lost`` means that its machine failed, not the group."""
        ...

    def messages(self) -> Iterator[Message]:
        """The messages that have arrived. If the worker has ended, :attr:`ending` is set afterwards."""
        ...

    def kill(self) -> None:
        """End it at once, with all processes that it has started."""
        ...


class Executor(Protocol):
    """Starts workers.

    Attributes:
        retries: how often the cells of a lost worker are measured again before they count as failed.
    """

    retries: int

    def parts(self, groups: Sequence[Group]) -> list[Group]:
        """The groups in the pieces in which they are measured."""
        ...

    def admits(self, group: Group, running: int) -> bool:
        """Whether a worker may start on this group now, beside as many that run."""
        ...

    def start(self, group: Group) -> Worker:
        """Start to measure a group."""
        ...

    def wait(self, running: Collection[Any], seconds: float) -> None:
        """Sleep until one of the workers has something to say; ``seconds`` at most."""
        ...

    def close(self) -> None:
        """End every process that this executor has started."""
        ...
