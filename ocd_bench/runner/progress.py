"""Progress on stderr during a run: a live line on a terminal, else one line per cell."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ocd_bench.printable import one_line


def describe(cell: Mapping[str, Any], reused: bool) -> str:
    """One line about a finished cell."""
    name = f"{cell['task']} {cell['dataset']} {cell['method']} seed {cell['seed']}"
    if cell["status"] != "ok":
        return f"{name}: {cell['status']}: {cell['reason']}"
    primary = next(f"{key} {m['value']:.4g}" for key, m in cell["metrics"].items() if m["primary"])
    cost = cell["cost"]
    tail = "reused" if reused else f"fit {cost['fit_s']:.1f} s, test {cost['adapt_s']:.1f} s"
    return f"{name}: {primary} ({tail})"


class Reporter(Protocol):
    """Receives progress and finished cells."""

    def progress(self, what: str, done: int, total: int) -> None: ...
    def cell(self, cell: Mapping[str, Any], reused: bool) -> None: ...
    def note(self, text: str) -> None: ...


class ConsoleReporter:
    """Writes progress and finished cells to stderr, unless ``quiet``."""

    def __init__(self, total: int, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Progress | None = None
        if not quiet and sys.stderr.isatty():
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
            )
            self._cells = self._live.add_task("cells", total=total)
            self._step = self._live.add_task("", total=None, visible=False)

    def __enter__(self) -> ConsoleReporter:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def progress(self, what: str, done: int, total: int) -> None:
        """Step ``done`` of ``total`` of the work named ``what``."""
        if self._live:
            self._live.update(self._step, description=escape(what), completed=done, total=total, visible=done < total)

    def cell(self, cell: Mapping[str, Any], reused: bool) -> None:
        """A finished cell."""
        if self._live:
            self._live.advance(self._cells)
        if not self.quiet:
            self.console.print(escape(one_line(describe(cell, reused))))

    def note(self, text: str) -> None:
        """A line that is neither progress nor a result. It is shown even if quiet, because it reports a problem."""
        self.console.print(escape(one_line(text)))
