"""Workers in fresh interpreters on this machine, for what cannot be forked: a GPU, or methods of several threads."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence

from ocd_bench.files import write_atomic
from ocd_bench.runner.cells import Group
from ocd_bench.runner.executors.order import Order, order_for, place_of, plugin_sources
from ocd_bench.runner.messages import Decoder, Message, encode
from ocd_bench.runner.order import RunRequest
from ocd_bench.runner.sandbox import Ending
from ocd_bench.runner.store import RunFolder


class Interpreter:
    """A process that measures groups, one after another (see :mod:`ocd_bench.runner.executors.interpreter`).

    Args:
        variables: further environment variables of the process.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (read when the process has ended)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ocd_bench.runner.executors.interpreter"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(variables or {})},
            start_new_session=True,  # Ctrl-C goes to the process that the user started, which ends this one
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._write, self.read = self.process.stdin, self.process.stdout.fileno()
        self._decoder = Decoder()
        os.set_blocking(self.read, False)

    @property
    def alive(self) -> bool:
        """Whether it can take an order."""
        return self.process.poll() is None

    def send(self, order: Order) -> None:
        """Give it a group to measure. If it has died, :meth:`messages` says so."""
        with contextlib.suppress(BrokenPipeError):
            self._write.write(encode(Message("order", {}, {"order": pickle.dumps(order)})))
            self._write.flush()

    def messages(self) -> Iterator[Message]:
        """The messages that have arrived; an ``ending`` is the last of an order, also if the process has died."""
        data: bytes | None = None
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.read, 1 << 20):
                self._decoder.feed(data)
        yield from self._decoder.messages()
        if data == b"":  # the end of the pipe
            code = self.process.wait()
            ending = Ending("killed", -code, self._said()) if code < 0 else Ending("exited", code, self._said())
            yield Message("ending", vars(ending))

    def kill(self) -> None:
        """End it at once, with all processes that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._write.close()

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-20_000:].decode("utf-8", "replace")


class SpawnedWorker:
    """A group in a fresh interpreter."""

    def __init__(self, group: Group, interpreter: Interpreter, folder: RunFolder) -> None:
        self.group, self.interpreter, self.folder = group, interpreter, folder
        self.ending: Ending | None = None

    def messages(self) -> Iterator[Message]:
        """See :class:`ocd_bench.runner.executors.Worker`."""
        for message in self.interpreter.messages():
            if message.what == "ending":
                self.ending = Ending(**message.values)
            elif message.what == "file":
                keep_file(self.folder, message)
            elif message.what not in ("entry", "gone"):  # the cache is the same one
                yield message

    def kill(self) -> None:
        """See :class:`ocd_bench.runner.executors.Worker`."""
        self.interpreter.kill()


def keep_file(folder: RunFolder, message: Message) -> None:
    """Write a file that a worker has sent into the run folder."""
    path = place_of(folder.path, message.values["name"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, message.blobs["content"])
    except OSError as error:
        folder.warn(f"{path}: {error.strerror or error}")


class SpawnedExecutor:
    """Up to ``jobs`` groups at a time in interpreters, which measure further groups when they have finished one."""

    retries = 0

    def __init__(self, request: RunRequest, folder: RunFolder) -> None:
        self.request, self.folder = request, folder
        self._sources = plugin_sources(request.plugins)
        self._workers: dict[Interpreter, SpawnedWorker] = {}
        """The last worker of each interpreter."""

    def parts(self, groups: Sequence[Group]) -> list[Group]:
        """Whole groups: their methods share one process's fits."""
        return list(groups)

    def admits(self, group: Group, running: int) -> bool:
        """Whether there is a free place."""
        return running < self.request.jobs

    def start(self, group: Group) -> SpawnedWorker:
        """Send the group to an idle interpreter, or to a new one."""
        idle = (each for each, worker in self._workers.items() if worker.ending is not None and each.alive)
        interpreter = next(idle, None) or Interpreter()
        interpreter.send(order_for(self.request, group, self.folder, self._sources))
        self._workers[interpreter] = SpawnedWorker(group, interpreter, self.folder)
        return self._workers[interpreter]

    def wait(self, running: Collection[SpawnedWorker], seconds: float) -> None:
        """See :class:`ocd_bench.runner.executors.Executor`."""
        select.select([worker.interpreter.read for worker in running], [], [], seconds)

    def close(self) -> None:
        """Kill the interpreters."""
        for interpreter in self._workers:
            interpreter.kill()
