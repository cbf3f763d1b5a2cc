"""Progress on stderr during a run: bars on a terminal, else one line per cell, and one every half minute between them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ocd_bench.printable import one_line
from ocd_bench.runner.cells import Group
from ocd_bench.runner.clock import Clock, Place, Times, in_words, place_of
from ocd_bench.shapes import STATUSES

SILENCE = 30.0
"""Seconds without a line after which a log is told what is being done."""


def describe(cell: Mapping[str, Any], reused: bool) -> str:
    """One line about a finished cell."""
    name = f"{cell['task']} {cell['dataset']} {cell['method']} seed {cell['seed']}"
    if cell["status"] != "ok":
        return f"{name}: {STATUSES[cell['status']]}: {cell['reason']}"
    primary = next(f"{key} {m['value']:.4g}" for key, m in cell["metrics"].items() if m["primary"])
    cost = cell["cost"]
    tail = "reused" if reused else f"fit {cost['fit_s']:.1f} s, test {cost['adapt_s']:.1f} s"
    return f"{name}: {primary} ({tail})"


class Reporter(Protocol):
    """Receives progress and finished cells."""

    def begin(self, group: Group, step: str) -> None: ...
    def progress(self, group: Group, what: str, done: int, total: int) -> None: ...
    def end(self, group: Group, whole: bool = True) -> None: ...
    def tick(self) -> None: ...
    def cell(self, cell: Mapping[str, Any], reused: bool) -> None: ...
    def note(self, text: str) -> None: ...


class ConsoleReporter:
    """Writes progress and finished cells to stderr, unless ``quiet``.

    Args:
        total: number of cells.
        clock: follows the steps of the run; None if nothing is measured.
        silence: seconds between two lines at least, where stderr is no terminal.
    """

    def __init__(self, total: int, quiet: bool = False, clock: Clock | None = None, silence: float = SILENCE) -> None:
        self.quiet, self.total, self.done, self.silence = quiet, total, 0, silence
        self.clock = clock or Clock([], Times("quick"))
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Progress | None = None
        self._bars: dict[Place, TaskID] = {}
        self._doing: dict[Place, str] = {}
        self._spoken = self._began = time.monotonic()
        if not quiet and clock is not None and sys.stderr.isatty():
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[count]}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=self.console,
                transient=True,
            )
            self._all = self._live.add_task("all cells", total=total, count=f"{0}/{total}", left="")

    def __enter__(self) -> ConsoleReporter:
        if self._live:
            self._live.start()
            self._show_left()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    # -- steps ------------------------------------------------------------------------------------------------------------
    def begin(self, group: Group, step: str) -> None:
        """A step of a group begins: its data, its base model, or a method."""
        self.clock.begin(group, step)
        self._doing[place_of(group)] = f"{name_of(group)} {step}"
        if self._live:
            place = place_of(group)
            if place in self._bars:
                self._live.remove_task(self._bars[place])
            self._bars[place] = self._live.add_task(escape(self._doing[place]), total=None, count="", left="")
            self._show_left()

    def progress(self, group: Group, what: str, done: int, total: int) -> None:
        """Step ``done`` of ``total`` of the work named ``what`` inside the group's present step."""
        if total > 0:
            self.clock.progress(group, done / total)
        place = place_of(group)
        step = self.clock.running[place].name if place in self.clock.running else ""
        inner = "" if what in (step, "base") else f": {what}"
        self._doing[place] = f"{name_of(group)} {step}{inner}"
        if self._live and place in self._bars:
            text, count = escape(self._doing[place]), f"{done}/{total}"
            self._live.update(self._bars[place], description=text, completed=done, total=total, count=count)
            self._show_left()
        self._doing[place] += f" {done}/{total}"
        self.tick()

    def end(self, group: Group, whole: bool = True) -> None:
        """A group has ended; ``whole``: not cut short."""
        self.clock.end(group, whole)
        place = place_of(group)
        self._doing.pop(place, None)
        if self._live and place in self._bars:
            self._live.remove_task(self._bars.pop(place))

    def tick(self) -> None:
        """Called at least once a second: a line after a long silence, so that a log shows that the run is alive."""
        if self._live:
            self._show_left()
        elif not self.quiet and time.monotonic() - self._spoken >= self.silence:
            counted = f"{self.done} of {self.total} cells, {in_words(time.monotonic() - self._began)} so far, {self.left()}"
            for text in list(self._doing.values()) or ["working"]:
                self._say(f"... {text}; {counted}")

    def left(self) -> str:
        """The time left, in words."""
        return f"about {in_words(self.clock.seconds_left())} left" + (" (rough)" if self.clock.rough else "")

    # -- lines --------------------------------------------------------------------------------------------------------------
    def cell(self, cell: Mapping[str, Any], reused: bool) -> None:
        """A finished cell."""
        self.done += 1
        if self._live:
            self._live.update(self._all, completed=self.done, count=f"{self.done}/{self.total}")
        if not self.quiet:
            self._say(describe(cell, reused))

    def note(self, text: str) -> None:
        """A line that is neither progress nor a result. It is shown even if quiet, because it reports a problem."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._spoken = time.monotonic()
        self.console.print(escape(one_line(text)))

    def _show_left(self) -> None:
        if self._live:
            self._live.update(self._all, left=self.left())


def name_of(group: Group) -> str:
    """A group in words."""
    return f"{group.task} {group.dataset} seed {group.seed}"


class Heartbeat:
    """Calls :meth:`ConsoleReporter.tick` once a second from a thread, for runs that measure in this very process."""

    def __init__(self, reporter: Any) -> None:
        self.reporter, self._stop = reporter, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self.reporter.tick()
