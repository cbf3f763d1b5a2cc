"""Tells plugins about finished cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ocd_bench.runner.blame import Blame, message_of


def tell_observers(cell: Mapping[str, Any], manager: Any, say: Callable[[str], None]) -> None:
    """Call the hook of finished cells. An error in it must not lose the cell: it is said in one line."""
    try:
        manager.hook.ocd_bench_cell_finished(cell=cell)
    except (Exception, SystemExit, GeneratorExit) as error:
        where = Blame(manager).of_error(error, manager.task(cell["task"]))
        say(f"hook ocd_bench_cell_finished failed: {message_of(error)} ({where})")
