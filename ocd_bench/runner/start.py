"""Starts a run: loads plugins, plans, and measures. What needs no torch comes first, so that a wrong word is answered at once.

Both :func:`ocd_bench.run` and ``ocd-bench run`` call :func:`measure`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocd_bench.config import without_machines
from ocd_bench.plugin.manager import Manager, load_plugins
from ocd_bench.runner.cells import Group, parse_device
from ocd_bench.runner.order import Outcome, RunRequest
from ocd_bench.runner.run import check_continued, check_repeat, default_folder, execute, plan
from ocd_bench.runner.store import check_place
from ocd_bench.runner.stored import check_seeds
from ocd_bench.runner.unchanged import finished_cells, note_finished

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Planned:
    """A run that has been planned, with only the declarations of the core's methods loaded.

    Attributes:
        left_out: lines about tasks that ``all`` skipped.
        own: whether tasks or methods are objects of the caller, which no file describes.
    """

    request: RunRequest
    manager: Manager
    groups: Sequence[Group]
    left_out: Sequence[str]
    path: Path
    own: bool = False

    @property
    def cells(self) -> int:
        """Number of cells."""
        return sum(len(group.methods) * len(group.variants) for group in self.groups)

    def finished(self) -> list[dict[str, Any]] | None:
        """The cells of the folder, if this very run is finished and nothing has changed since; else None."""
        return None if self.own else finished_cells(self.request, self.groups, self.path, self.manager)


def prepare(
    request: RunRequest,
    out: Path | None = None,
    check: Callable[[Manager], None] = lambda manager: None,
    own: Callable[[Manager], None] | None = None,
    quiet: bool = False,
) -> Planned:
    """Load the plugins and plan the run. The core's methods are not imported yet, and with them torch.

    Args:
        out: run folder; default: named after the request.
        check: called with the loaded plugins, to refuse settings of a file.
        own: adds objects of the caller to the plugins.
        quiet: whether to say nothing before plugins are imported that are not part of OCD-Bench and may be slow.

    Raises:
        UsageError, Unavailable: for a wrong name or setting, a plugin with a fault, a task that cannot run here, a run folder
            that cannot be written or holds another experiment, or stored bases that lack a seed.
    """
    if request.plugins and not quiet:
        say_loading(", ".join(request.plugins))
    manager = load_plugins(request.plugins, declared=True)
    if own is not None:
        own(manager)
    check(manager)
    parse_device(request.device)
    groups, left_out = plan(request, manager, try_import=False)
    if request.bases is not None:
        check_seeds(request.bases, groups)
    path = out or default_folder(request, groups)
    check_place(path)
    check_continued(path, request, groups, manager)
    return Planned(request, manager, groups, left_out, path, own is not None)


def measure(planned: Planned, quiet: bool = False, repeated: Path | None = None) -> tuple[Outcome, Path]:
    """Measure what is not finished; returns all cells, and the run folder.

    Args:
        quiet: whether to show no progress on stderr.
        repeated: the run.json of the run that is to be repeated.

    Raises:
        UsageError, Unavailable: before anything is measured.
    """
    from ocd_bench.runner.clock import Clock, Times
    from ocd_bench.runner.progress import ConsoleReporter

    request, manager = planned.request, planned.manager
    cells = planned.finished()
    if cells is not None:
        from ocd_bench.runner.observers import tell_observers

        with ConsoleReporter(len(cells), quiet, None) as reporter:
            for line in planned.left_out:
                reporter.note(line)
            for cell in cells:
                reporter.cell(cell, reused=True)
                tell_observers(cell, manager, reporter.note)
        return Outcome(cells), planned.path
    if not quiet:
        say_loading()
    manager.complete()
    groups, left_out = plan(request, manager)

    from ocd_bench.runner.machine import choose_device
    from ocd_bench.runner.store import RunFolder

    choose_device(request.local_device)
    if repeated is not None:
        check_repeat(repeated, request, groups, manager)
    existed, beside = planned.path.exists(), planned.path.parent.exists()
    folder = RunFolder(planned.path)
    others = folder.other_tasks(group.task for group in groups)
    clock = Clock(groups, Times(request.preset, without_machines(request.overrides), request.device), request.jobs)
    with ConsoleReporter(planned.cells, quiet, clock) as reporter:
        for line in left_out:
            reporter.note(line)
        if others:
            reporter.note(f"ocd-bench: {planned.path} has cells of {', '.join(others)} too; they stay beside the new ones")
        outcome = execute(request, groups, folder, manager, reporter)
    if not outcome.cells and not existed:
        folder.discard()
        if not beside:
            with contextlib.suppress(OSError):
                planned.path.parent.rmdir()
    elif not planned.own and not outcome.stopped and outcome.exit_code == 0:
        note_finished(request, groups, planned.path, manager)
    return outcome, planned.path


def check_defaults(planned: Planned, repeated: Path, quiet: bool = False) -> None:
    """Refuse to repeat a run whose settings differ now because a default has changed, as :func:`measure` does.

    Raises:
        UsageError: naming the first setting that differs.
    """
    if not quiet:
        say_loading()
    planned.manager.complete()
    check_repeat(repeated, planned.request, plan(planned.request, planned.manager)[0], planned.manager)


def say_loading(what: str = "PyTorch") -> None:
    """One line before imports that take seconds."""
    if "torch" not in sys.modules:
        print(f"ocd-bench: loading {what}", file=sys.stderr, flush=True)
