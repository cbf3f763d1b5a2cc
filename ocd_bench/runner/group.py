"""One group of cells: load the samples, obtain the base, choose the layer, measure each method on every test variant.

A group runs in a process of its own (see :mod:`ocd_bench.runner.supervisor`). This module is the order of its steps; each step
has a module: ``prepare`` (samples, base, layer), ``reuse`` (which cells are missing), ``rows`` (the methods), ``pictures``.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch

from ocd_bench.errors import OCDBenchError
from ocd_bench.method import Context
from ocd_bench.runner.base import BaseFailed, BaseModel, Bases
from ocd_bench.runner.cells import Group, Variant
from ocd_bench.runner.job import Job, Settings
from ocd_bench.runner.pictures import draw_figures
from ocd_bench.runner.prepare import Ranking, Views, check_trained, choose_layer, load, rank_layers
from ocd_bench.runner.reuse import heads_of, unfinished
from ocd_bench.runner.rows import Rows, all_fail
from ocd_bench.runner.sandbox import Message, Send, arm
from ocd_bench.runner.store import RunFolder
from ocd_bench.runner.trainer import Throttled


class GroupRunner:
    """Runs the unfinished cells of one (task, dataset, seed), and sends each as a message.

    Messages: ``doing`` (what comes next), ``note`` (a line for the user), ``data`` (the note on the samples), ``began`` (a
    method), ``cell`` (with ``scores`` if it has any), ``problem`` (bad input), ``progress``.

    Args:
        manager: plugins (tasks, methods, hooks).
        folder: the run folder. Finished cells are read from it; only figures and bases are written to it.
        send: takes the messages.
    """

    def __init__(self, group: Group, manager: Any, settings: Settings, folder: RunFolder, send: Send) -> None:
        self.job = job = Job(group, manager, settings, folder, send)
        self.bases = Bases(
            job.task,
            job.request,
            job.config,
            settings.device,
            manager,
            job.contract,
            Throttled(lambda message: job.send(message)).progress,
            job.note,
            settings.isolate,
            settings.cell_timeout,
            settings.bases,
            job.kept_bases,
        )

    def execute(self) -> None:
        """Measure all missing cells. Bad data or settings become a ``problem`` message."""
        try:
            self._execute()
        except OCDBenchError as error:
            self.job.send(Message("problem", {"text": str(error)}))

    def _execute(self) -> None:
        job = self.job
        torch.set_num_threads(1 if job.run.isolate else job.threads)
        views = load(job)
        job.doing("base_model, loss and metrics on a few samples")
        heads = heads_of(job, self.bases.examine(views.hidden))
        self._tell(views)  # after weights that do not fit were refused, in one line
        todo = unfinished(job, heads, views.data)
        if not todo and not job.run.keep_bases:
            return
        job.doing("training")
        arm(None)  # the child that trains has its own time
        try:
            base = self.bases.shared(views.hidden)
            if not todo:
                return
            job.doing("layer selection")
            check_trained(job, base.model, views.hidden.val)
            ranking = functools.cache(lambda: rank_layers(job, base.model, views.hidden.train))
            layer = choose_layer(job, base.model, views.hidden.train, ranking)
        except BaseFailed as failure:
            all_fail(job, todo, heads, views.data, str(failure), failure.trace)
            return
        context = self._context(views, base, layer, ranking)
        rows = Rows(job, self.bases, views, heads, base, context, ranked=bool(ranking.cache_info().currsize))
        rows.measure(todo)
        if rows.outputs and Variant() in views.tests:
            draw_figures(job, dataclasses.replace(views.hidden, test=views.tests[Variant()]), rows.outputs)

    def _tell(self, views: Views) -> None:
        """Send what a reader took the data for, before any training."""
        group = self.job.group
        self.job.send(Message("data", {"note": views.note}))
        if views.note and not any(each.embedded and each.name == group.dataset for each in self.job.task.datasets()):
            self.job.send(Message("note", {"text": f"{group.task}, {group.dataset}: {views.note}"}))

    def _context(self, views: Views, base: BaseModel, layer: str, ranking: Ranking) -> Context:
        job = self.job
        return Context(
            task=job.task,
            request=job.request,
            splits=views.hidden,
            base=base.model,
            layer=layer,
            device=job.run.device,
            settings=job.config.section,
            batch_size=job.config.section("run").batch_size,
            ranking=ranking,
        )
