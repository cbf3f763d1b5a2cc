"""The training of one base model, in this process or in a child. Its state is kept, so that a killed run continues there."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ocd_bench.cache import pack
from ocd_bench.config import BaseSettings
from ocd_bench.errors import OCDBenchError, UsageError
from ocd_bench.precision import fast_layout
from ocd_bench.progress import Progress
from ocd_bench.runner.blame import message_of
from ocd_bench.runner.contract import TaskContract
from ocd_bench.runner.sandbox import Child, Message, Send, run_child
from ocd_bench.runner.stages import Stages
from ocd_bench.runner.training import train
from ocd_bench.samples import Splits
from ocd_bench.task import Request, Task


class BaseFailed(OCDBenchError):
    """The base model could not be trained: every cell that needs it fails, for this reason.

    Args:
        reason: in one line.
        trace: a stack for the author of the task.
    """

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.trace = trace


@dataclass(frozen=True)
class Trainer:
    """Trains base models of a task: by its own ``train_base``, or by the runner.

    Args:
        settings: of the runner's training.
        contract: calls the task's members.
        progress: function of (what, steps done, steps in total).
    """

    task: Task
    request: Request
    settings: BaseSettings
    device: torch.device
    contract: TaskContract
    progress: Callable[[str, int, int], None]

    def here(
        self, model: torch.nn.Module, splits: Splits, kept: Stages | None, renew: Callable[[], None] = lambda: None
    ) -> tuple[bytes, float]:
        """Train in this process; returns the packed weights, and the seconds that it took.

        Raises:
            BaseFailed: if the task's training raises an error.
        """

        def show(done: int, total: int) -> None:
            renew()
            self.progress("base", done, total)

        start = time.perf_counter()
        progress = Progress(show) if kept is None else kept.loop("base", None, show)
        try:
            trained = self.task.train_base(model, splits, self.request, progress)
            if trained is None:
                with fast_layout(model, self.settings.precision, self.device):
                    trained = train(model, self.task, splits, self.request, self.settings, self.device, progress)
        except OCDBenchError:
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            where = self.contract.blame.of_error(error, self.task)
            raise BaseFailed(f"training of the base model: {message_of(error)} ({where})") from error
        if not isinstance(trained, torch.nn.Module):
            raise self.contract.broken("train_base", f"returned {type(trained).__name__}", "a torch.nn.Module or None")
        fit_s = time.perf_counter() - start + progress.earlier
        return pack({name: tensor.detach().cpu() for name, tensor in trained.state_dict().items()}), fit_s

    def in_child(
        self,
        model: torch.nn.Module,
        splits: Splits,
        kept: Stages | None,
        renew: Callable[[], None],
        seconds: float | None,
        threads: int,
    ) -> tuple[bytes, float]:
        """As :meth:`here`, in a child process of so many threads that may take so many seconds (None: no limit).

        Raises:
            BaseFailed: if training raises an error, or ends the child.
        """
        answers: dict[str, Message] = {}

        def work(send: Send) -> None:
            torch.set_num_threads(threads)
            shown = Throttled(send)
            child = dataclasses.replace(self, progress=shown.progress)
            try:
                content, fit_s = child.here(model, splits, kept)
            except BaseFailed as failure:
                send(Message("failed", {"reason": str(failure), "trace": failure.trace}))
            except OCDBenchError as error:
                send(Message("refused", {"reason": str(error)}))
            else:
                send(Message("base", {"fit_s": fit_s}, {"state": content}))

        def receive(child: Child, message: Message) -> None:
            if message.what == "progress":
                self.progress(message.values["what"], message.values["done"], message.values["total"])
            else:
                answers[message.what] = message

        ending = run_child(work, receive, seconds, idle=renew)
        if "base" in answers:
            return answers["base"].blobs["state"], answers["base"].values["fit_s"]
        if "refused" in answers:
            raise UsageError(answers["refused"].values["reason"])
        if "failed" in answers:
            raise BaseFailed(answers["failed"].values["reason"], answers["failed"].values["trace"])
        where = self.contract.blame.of_trace(ending.trace, self.task)
        raise BaseFailed(f"training of the base model: {ending} ({where})", ending.trace)


class Throttled:
    """Progress as messages, at most ten per second, because sending one may take longer than a training step."""

    def __init__(self, send: Send) -> None:
        self.send, self._last = send, 0.0

    def progress(self, what: str, done: int, total: int) -> None:
        """Step ``done`` of ``total``."""
        now = time.monotonic()
        if now - self._last >= 0.1 or done >= total:
            self._last = now
            self.send(Message("progress", {"what": what, "done": done, "total": total}))
