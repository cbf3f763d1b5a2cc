"""How far a loop is: shown while it runs, and kept, so that a run that was killed continues in the middle of the loop.

A training loop that wants to be continued asks for the state of an earlier process, and offers its own after every step::

    first = 0
    if state := progress.resume():
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    for step in range(first, steps):
        ...
        progress(step + 1, steps)
        progress.save(lambda: {"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()})

.. versionadded:: 0.1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Progress"]


def _nowhere(done: int, total: int) -> None:
    """Shows nothing."""


class Progress:
    """What a loop tells how far it is. This class only shows it; the runner's keep states as well.

    Args:
        show: function of (steps done, steps in total).

    .. versionadded:: 0.1
    """

    earlier: float = 0.0
    """Seconds of work behind the state that :meth:`resume` gave."""

    def __init__(self, show: Callable[[int, int], None] = _nowhere) -> None:
        self._show = show

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` steps of ``total`` are done."""
        self._show(done, total)

    def resume(self) -> Mapping[str, Any] | None:
        """The state that the same loop last saved, in a process that was killed; None if there is none.

        "The same" means: the same code, data, settings, seed and number of threads. torch's global generator continues as it
        was. Call it once, before the first step.
        """
        return None

    def save(self, state: Callable[[], Mapping[str, Any]], finished: bool = False) -> None:
        """Offer the state after a step. Call it after every step: a state is taken now and then, and otherwise costs nothing.

        Args:
            state: returns everything that the next steps depend on: weights, optimizer, generators of one's own
                (``generator.get_state()``), counts. Tensors and plain values, in dictionaries, lists and tuples.
            finished: whether this was the last step. Its state is kept after less work than that of other steps.
        """
