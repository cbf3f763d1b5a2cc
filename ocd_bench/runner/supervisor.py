"""The process that the user started. It plans, writes files and shows progress. It computes nothing itself.

Workers measure groups of cells; an executor starts them (see :mod:`ocd_bench.runner.executors`). Their results arrive as
messages, and only this process writes cells. So the death of a worker affects only the cells that it was measuring, an
interrupt takes effect quickly, and every finished cell is in the folder.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ocd_bench.errors import OCDBenchError, Terminated
from ocd_bench.runner.blame import Blame
from ocd_bench.runner.cells import Group, cell_name
from ocd_bench.runner.clock import BASE, DATA
from ocd_bench.runner.executors import Executor, Worker
from ocd_bench.runner.group import GroupRunner
from ocd_bench.runner.job import Settings
from ocd_bench.runner.lease import Lease
from ocd_bench.runner.messages import Message
from ocd_bench.runner.observers import tell_observers
from ocd_bench.runner.order import Outcome
from ocd_bench.runner.sandbox import Ending
from ocd_bench.runner.store import RunFolder, new_cell

if TYPE_CHECKING:
    from ocd_bench.runner.progress import Reporter

CONTRACT = ("load_data", "corrupt", "base_model, loss and metrics on a few samples")
"""Steps of a group before training. A task that ends its process during these is bad input, not a failed cell."""
LOOK = 0.3
"""Seconds between two checks of cells that other processes measure."""

CellKey = tuple[str, str, int, str]


@dataclass
class _Work:
    """A group and its progress.

    Attributes:
        doing: description of the worker's present step.
        began: methods that the worker has started to measure.
        leases: leases of the methods that the worker measures.
        lost: how many workers of this group were lost with their machine.
    """

    group: Group
    doing: str = ""
    began: list[str] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    busy: tuple[str, ...] = ()
    """Methods that another process is measuring."""
    lost: int = 0


class Supervisor:
    """Runs groups and collects their cells.

    Args:
        groups: what to run.
        folder: the run folder, where cells are written.
        manager: the loaded plugins.
        reporter: shows progress to the user.
        executor: starts workers; or settings, and the groups are measured one after another in this process.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        folder: RunFolder,
        manager: Any,
        reporter: Reporter,
        executor: Executor | Settings,
    ) -> None:
        self.groups, self.folder, self.manager, self.reporter = list(groups), folder, manager, reporter
        self.executor = executor
        self.outcome = Outcome()
        self.blame = Blame(manager)
        self._cells: dict[CellKey, dict[str, Any]] = {}
        self._written: dict[CellKey, tuple[dict[str, Any], bytes | None]] = {}
        self._told: set[str] = set()
        self._running: dict[Worker, _Work] = {}

    def run(self) -> Outcome:
        """Measure every cell that can be measured. Ctrl-C and SIGTERM end it early; finished cells are kept."""
        try:
            if isinstance(self.executor, Settings):
                self._run_here(self.executor)
            else:
                self._run_workers(self.executor)
        except KeyboardInterrupt:
            self.outcome.stopped = signal.SIGINT
        except Terminated as ended:
            self.outcome.stopped = ended.number
        finally:
            for worker, work in self._running.items():
                worker.kill()
                self._release(work)
            self._save_again()
            self.folder.remove_locks()
        self.outcome.cells = self._in_plan_order()
        return self.outcome

    @property
    def unsaved(self) -> list[dict[str, Any]]:
        """Cells that could not be written."""
        return [cell for cell, _ in self._written.values() if not self.folder.holds(cell)]

    # -- workers ------------------------------------------------------------------------------------------------------
    def _run_workers(self, executor: Executor) -> None:
        waiting = [_Work(group) for group in executor.parts(self.groups)]
        while waiting or self._running:
            for work in list(waiting):
                if executor.admits(work.group, len(self._running)) and self._claim(work):
                    waiting.remove(work)
                    self.reporter.begin(work.group, DATA)
                    self._running[executor.start(work.group)] = work
            if not self._running:
                self._tell_busy(waiting)
                time.sleep(LOOK)
                continue
            executor.wait(self._running, LOOK if waiting else 0.5)
            self.reporter.tick()
            for worker, work in list(self._running.items()):
                for message in worker.messages():
                    self._receive(work, message)
                if worker.ending is not None:
                    del self._running[worker]
                    self._release(work)
                    self.reporter.end(work.group, worker.ending.how == "returned")
                    waiting += self._after(work, worker.ending, executor.retries)
                for lease in work.leases:
                    lease.renew()

    def _run_here(self, settings: Settings) -> None:
        for group in self.groups:
            work = _Work(group)
            while not self._claim(work):
                self._tell_busy([work])
                time.sleep(LOOK)
            self.reporter.begin(group, DATA)
            try:
                send = functools.partial(self._receive, work)
                GroupRunner(work.group, self.manager, settings, self.folder, send).execute()
                self.reporter.end(group, True)
            finally:
                self._release(work)

    def _claim(self, work: _Work) -> bool:
        """Take the leases of cells that no other process measures, and leave the others for later. False if there are none."""
        group = work.group
        stem = f"{group.task}-{group.dataset}-s{group.seed}"
        claim = Lease(self.folder.lock_path(f"{stem}.claim"))
        if not claim.acquire():
            return False
        try:
            leases = {
                name: Lease(self.folder.lock_path(cell_name(group.task, group.dataset, name, group.seed)))
                for name in group.methods
            }
            mine = [name for name, lease in leases.items() if lease.acquire()]
        finally:
            claim.release()
        work.busy = tuple(name for name in group.methods if name not in mine)
        if not mine:
            return False
        work.leases = [leases[name] for name in mine]
        work.group = Group(group.task, group.dataset, group.seed, tuple(mine), group.variants)
        return True

    def _release(self, work: _Work) -> None:
        for lease in work.leases:
            lease.release()
        work.leases = []

    def _tell_busy(self, waiting: Sequence[_Work]) -> None:
        group = waiting[0].group
        lease = Lease(self.folder.lock_path(cell_name(group.task, group.dataset, group.methods[0], group.seed)))
        self._once(f"waiting for {lease.owner()}, which measures cells of {group.task} {group.dataset} seed {group.seed}")

    def _after(self, work: _Work, ending: Ending, retries: int) -> list[_Work]:
        """Finish the group of a worker that has ended."""
        group = work.group
        again = [Group(group.task, group.dataset, group.seed, work.busy, group.variants)] if work.busy else []
        left = [name for name in group.methods if not self._is_settled(group, name)]
        if ending.how == "lost" and left:
            return [_Work(part) for part in again] + self._after_loss(work, left, ending, retries)
        if ending.how != "returned" and left:
            begun = [name for name in left if name in work.began]
            task = self.manager.task(group.task)
            if not begun and work.doing in CONTRACT and (ending.how, ending.code) != ("killed", signal.SIGKILL):
                where = self.blame.of_trace(ending.trace, task)
                problem = f"task {group.task!r} ({where}): {work.doing}: {ending}; {self.blame.how_to_check(task)}"
                self._problem(problem)
            elif not begun:
                self._fail(group, left, f"the worker ended during {work.doing or 'its start'}: {ending}", ending)
            else:
                self._fail(group, begun, f"the worker ended: {ending}", ending)
                rest = tuple(name for name in left if name not in begun)
                again += [Group(group.task, group.dataset, group.seed, rest, group.variants)] if rest else []
        return [_Work(part) for part in again]

    def _after_loss(self, work: _Work, left: Sequence[str], ending: Ending, retries: int) -> list[_Work]:
        """The cells of a machine that was lost are measured on another one, but not for ever."""
        group = work.group
        where = f"{group.task} {group.dataset} seed {group.seed}"
        if work.lost >= retries:
            self._fail(group, left, f"its worker was lost {work.lost + 1} times; the last time: {ending}", ending)
            return []
        again = Group(group.task, group.dataset, group.seed, tuple(left), group.variants)
        self.reporter.note(f"ocd-bench: a worker of {where} was lost ({ending}); measured again: {', '.join(left)}")
        return [_Work(again, lost=work.lost + 1)]

    # -- messages -----------------------------------------------------------------------------------------------------
    def _receive(self, work: _Work, message: Message) -> None:
        values = message.values
        if message.what == "progress":
            self.reporter.progress(work.group, values["what"], values["done"], values["total"])
        elif message.what == "note":
            self._once(values["text"])
        elif message.what == "problem":
            self._problem(values["text"])
        elif message.what == "data":
            if values["note"]:
                for variant in work.group.variants:
                    self.outcome.notes[f"{work.group.task}-{variant.label(work.group.dataset)}"] = values["note"]
        elif message.what == "doing":
            work.doing = values["what"]
            if work.doing == "training":
                self.reporter.begin(work.group, BASE)
        elif message.what == "began":
            work.began.append(values["method"])
            self.reporter.begin(work.group, values["method"])
        elif message.what == "cell":
            self._finish(work.group, values["cell"], values["reused"], message.blobs.get("scores"), values.get("trace"))

    def _finish(
        self, group: Group, cell: dict[str, Any], reused: bool, scores: bytes | None = None, trace: str | None = None
    ) -> None:
        """Handle a new cell: write it, unless it was reused, and announce it."""
        key = (cell["task"], cell["dataset"], cell["seed"], cell["method"])
        if not reused:
            name = cell_name(cell["task"], cell["dataset"], cell["method"], cell["seed"])
            if trace:
                with contextlib.suppress(OSError):
                    cell["reason"] += f" (traceback: {self.folder.write_error(name, trace)})"
            try:
                cell = self.folder.write_cell(cell, scores)
            except OSError as error:
                self._once(f"--out {self.folder.path}: cannot write: {error.strerror or error}; trying again at the end")
            self._written[key] = (cell, scores)
        self._cells[key] = cell
        self.reporter.cell(cell, reused)
        tell_observers(cell, self.manager, self._once)

    def _fail(self, group: Group, methods: Sequence[str], reason: str, ending: Ending) -> None:
        for name in methods:
            method = self.manager.method(name)
            for variant in group.variants:
                if (group.task, variant.label(group.dataset), group.seed, name) in self._cells:
                    continue
                cell = new_cell(group.task, variant.label(group.dataset), name, group.seed)
                cell["reason"] = f"{reason} ({self.blame.of_trace(ending.trace, method)})"
                self._finish(group, cell, False, trace=ending.trace or None)

    def _problem(self, text: str) -> None:
        if text in self.outcome.problems:  # every seed meets the same
            return
        self.outcome.problems.append(text)
        self.reporter.note(f"ocd-bench: error: {' '.join(text.split())}")

    def _once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.reporter.note(f"ocd-bench: {text}")

    # -- the end ------------------------------------------------------------------------------------------------------
    def _is_settled(self, group: Group, method: str) -> bool:
        labels = [variant.label(group.dataset) for variant in group.variants]
        return all((group.task, label, group.seed, method) in self._cells for label in labels)

    def _save_again(self) -> None:
        """Write cells that are missing in the folder because the disk was full or a plugin has removed them."""
        for cell, scores in self._written.values():
            if not self.folder.holds(cell):
                try:
                    self.folder.write_cell(cell, scores)
                except (OSError, OCDBenchError) as error:
                    reason = getattr(error, "strerror", None) or error
                    self._problem(f"--out {self.folder.path}: {len(self.unsaved)} cells could not be written: {reason}")
                    return

    def _in_plan_order(self) -> list[dict[str, Any]]:
        keys = [
            (group.task, variant.label(group.dataset), group.seed, method)
            for group in self.groups
            for variant in group.variants
            for method in group.methods
        ]
        return [self._cells[key] for key in keys if key in self._cells]

    @property
    def scores(self) -> Mapping[CellKey, bytes]:
        """Archives of the scores of cells that were measured in this run."""
        return {key: scores for key, (_, scores) in self._written.items() if scores is not None}
