"""Measures the methods of one group, the rows of its table.

Each method runs in a process of its own, forked when samples and base are ready. So a method cannot harm another method or the
run. Shared values (:meth:`Context.shared`) are still built only once: the process of a method that has built one becomes the
parent of the following methods' processes, if it left everything else unchanged. If processes cannot be forked (a GPU, other
systems), all methods run in one process, with the same checks.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ocd_bench.account import Account
from ocd_bench.heap import trim
from ocd_bench.method import Context, Method
from ocd_bench.progress import Progress
from ocd_bench.runner.base import BaseModel, Bases
from ocd_bench.runner.cells import Variant
from ocd_bench.runner.contract import Watch
from ocd_bench.runner.job import Job, Todo
from ocd_bench.runner.measure import Measured, MethodRun
from ocd_bench.runner.prepare import Views, base_anew, copied_kinds, fold_bases, longer_base
from ocd_bench.runner.reuse import Heads, fits_of
from ocd_bench.runner.sandbox import Child, Message, Send, arm, run_child
from ocd_bench.runner.stages import Stages
from ocd_bench.runner.store import new_cell, pack_scores
from ocd_bench.runner.trainer import Throttled
from ocd_bench.task import Task


class Rows:
    """The methods of one group.

    Args:
        context: what methods are fitted with.
        heads: what the cells of each method begin with.
        ranked: whether the entropy criterion chose the layer. If so, every cell has the entropies.

    Attributes:
        outputs: on the plain test set, of methods whose outputs are small; for figures.
        copied: kinds of corruption that the training samples' copies contain.
    """

    def __init__(
        self,
        job: Job,
        bases: Bases,
        views: Views,
        heads: Heads,
        base: BaseModel,
        context: Context,
        ranked: bool,
    ) -> None:
        self.job, self.bases, self.views, self.heads = job, bases, views, heads
        self.base, self.context, self.ranked = base, context, ranked
        self.watch = Watch(
            base.model, [views.hidden.train, views.hidden.val, *{id(each): each for each in views.tests.values()}.values()]
        )
        self.stages = Stages(job.name, fits_of(job, base, context.layer), job.note)
        self.outputs: dict[str, torch.Tensor] = {}
        self.copied = copied_kinds(job, views)
        self.in_child = False
        """Whether this process is one method's own."""

    def measure(self, todo: Todo) -> None:
        """Measure each method, and send its cells. States of unfinished fits are kept until all are measured."""
        try:
            if self.job.run.isolate:
                self._in_children(todo)
            else:
                self._in_this_process(todo)
            self.stages.discard()
        finally:
            self.context.forget()

    def _one(self, method: Method, variants: Sequence[Variant]) -> bool:
        """Measure a method in this process; returns whether it left the shared state unchanged."""
        asked = [self.ranked]
        self.watch.begin()
        context = self._restrict(method, asked)
        runner = MethodRun(method, context, self.base, self.heads[method.name], self.job.blame, self.watch, self.in_child)
        for course in self.views.courses:
            if course.variants[0] not in variants:
                continue
            arm(self.job.run.cell_timeout)
            found = runner.measure(course, self.views.tests, self.job.group.dataset, self.views.data)
            for variant, measured in zip(course.variants, found, strict=True):
                if variant.kind in self.copied:
                    measured.cell["in_copies"] = True
                if asked[0] and measured.cell["status"] == "ok":
                    measured.cell["detail"]["entropies"] = dict(self.context.ranking())
                send_cell(self.job, measured, variant)
        arm(None)
        return not runner.changed

    def _restrict(self, method: Method, asked: list[bool]) -> Context:
        """The context of one method, with its own sections, its own account of seconds, and loops that keep their state."""
        account = Account()

        def ranking() -> list[tuple[str, float]]:
            asked[0] = True
            return self.context.ranking()

        def loop(what: str, key: Hashable) -> Progress:
            def show(done: int, total: int) -> None:
                self.bases.progress(what, done, total)
                trim()

            return self.stages.loop(what, key, show, account.resume)

        return dataclasses.replace(
            self.context,
            settings=self.job.reader_of(method),
            ranking=ranking,
            progress=self.bases.progress,
            loops=loop,
            fold_bases=lambda folds: fold_bases(self.job, self.bases, self.views.hidden, self.base, folds),
            base_anew=lambda: base_anew(self.bases, self.views.hidden),
            longer_base=lambda samples: longer_base(self.bases, self.views.hidden, self.base, samples),
            account=account,
        )

    # -- in processes of their own --------------------------------------------------------------------------------------------
    def _in_children(self, todo: Todo) -> None:
        """Measure methods, each in a child. A child that has built a shared value measures the remaining methods. Methods that
        are left when it ends are measured from here."""
        job = self.job
        while todo:
            settled: set[tuple[str, Variant]] = set()
            began = {todo[0][0].name}

            def work(send: Send, todo: Todo = todo) -> None:
                self._become_child(send)
                (method, variants), rest = todo[0], todo[1:]
                before = self.context.shared_count
                if self._one(method, variants) and self.context.shared_count > before and rest:
                    send(Message("further"))
                    self._go_on(method, rest)

            def receive(child: Child, message: Message, settled: set[Any] = settled, began: set[str] = began) -> None:
                if message.what == "further":
                    child.allow(None)
                    return
                if message.what == "began":
                    began.add(message.values["method"])
                if message.what == "cell":
                    settled.add((message.values["cell"]["method"], Variant(*message.values["variant"])))
                    if child.deadline is not None:
                        child.allow(job.run.cell_timeout)
                    self._keep_output(message)
                job.send(message)

            job.began(todo[0][0])
            ending = run_child(work, receive, job.run.cell_timeout)
            left: Todo = []
            for method, variants in todo:
                missing = [variant for variant in variants if (method.name, variant) not in settled]
                if missing and method.name in began:
                    reason = f"{ending} ({job.blame.of_trace(ending.trace, method)})"
                    all_fail(job, [(method, missing)], self.heads, self.views.data, reason, ending.trace)
                elif missing:
                    left.append((method, missing))
            todo = left

    def _become_child(self, send: Send) -> None:
        """Mark this process as one method's own."""
        self.job.send, self.in_child = send, True
        self.bases = dataclasses.replace(self.bases, isolate=False, seconds=None, progress=Throttled(send).progress)
        torch.set_num_threads(self.job.threads)

    def _go_on(self, method: Method, rest: Todo) -> None:
        """In the child of a method that has built a shared value: measure the methods after it."""
        if self.job.threads == 1:
            self._in_children(rest)
            return
        # Threads do not survive a fork, so the following methods of the same plugin run in this process.
        for other, variants in rest:
            if self.job.manager.owner(other) != self.job.manager.owner(method):
                continue
            self.job.began(other)
            if not self._one(other, variants):
                break

    # -- in one process -------------------------------------------------------------------------------------------------------
    def _in_this_process(self, todo: Todo) -> None:
        """Measure methods one after the other. Shared state that a method has changed is restored before the next."""
        send = self.job.send

        def keep(message: Message) -> None:
            if message.what == "cell":
                self._keep_output(message)
            send(message)

        self.job.send = keep
        try:
            for method, variants in todo:
                self.job.began(method)
                if not self._one(method, variants):
                    self.watch.restore()
                    if self.watch.samples_are_changed:
                        self.views.restore(self.job)
        finally:
            self.job.send = send

    def _keep_output(self, message: Message) -> None:
        if "output" in message.blobs:
            array = np.load(io.BytesIO(message.blobs["output"]), allow_pickle=False)
            self.outputs[message.values["cell"]["method"]] = torch.from_numpy(array)


# -- cells as messages --------------------------------------------------------------------------------------------------------
def send_cell(job: Job, measured: Measured, variant: Variant) -> None:
    """Send a cell, its scores and, where the task draws figures, the outputs on the plain test set."""
    blobs = {}
    if measured.scores is not None:
        blobs["scores"] = pack_scores(measured.scores)
    wanted = job.run.figures and type(job.task).figures is not Task.figures
    if wanted and measured.output is not None and variant == Variant():
        buffer = io.BytesIO()
        np.save(buffer, measured.output.numpy())
        blobs["output"] = buffer.getvalue()
    key = (variant.kind, variant.severity, variant.stream)
    values = {"cell": measured.cell, "reused": False, "variant": key, "trace": measured.trace}
    job.send(Message("cell", values, blobs))


def all_fail(job: Job, todo: Todo, heads: Heads, data: Mapping[Variant, str], reason: str, trace: str = "") -> None:
    """Send a failed cell for every method and variant."""
    for method, variants in todo:
        for variant in variants:
            cell = new_cell(job.group.task, variant.label(job.group.dataset), method.name, job.group.seed)
            head = heads[method.name]
            cell.update(head, reason=reason, fingerprint={**head["fingerprint"], "data": data[variant]})
            send_cell(job, Measured(cell, trace=trace or None), variant)
