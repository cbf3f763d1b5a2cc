"""Traces of training samples that are kept from step to step, where the base is slow and a sample never changes.

A kept trace is without the outputs of the layer. They are often the largest part of it, and cost little to compute again from
the layer's inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ocd_bench.engine.capture import Trace

KEPT = 2**28
"""Numbers (not bytes) that kept traces may take."""

Piece = tuple[Trace, Tensor]
"""A trace, and the task's targets of its samples."""


@dataclass(frozen=True)
class _Thin:
    """A trace without the layer's own outputs, and the targets. Where the layer runs several times, the trace is ``whole``."""

    trace: Trace
    answers: Tensor
    whole: bool

    @classmethod
    def of(cls, trace: Trace, answers: Tensor) -> _Thin:
        whole = trace.repeated or bool(trace.target.stand_ins)
        nothing = torch.empty(0)
        entries = trace.recording.entries if whole else [(given, nothing) for given, _ in trace.recording.entries]
        return cls(_copy(trace, entries), answers, whole)

    def piece(self) -> Piece:
        if self.whole:
            return self.trace, self.answers
        with torch.no_grad():
            entries = [(given, self.trace.target.layer.forward(given)) for given, _ in self.trace.recording.entries]
        return _copy(self.trace, entries), self.answers


def _copy(trace: Trace, entries: list[tuple[Tensor, Tensor]]) -> Trace:
    """The trace with other entries, and without what it has computed from them."""
    return Trace(trace.inputs, trace.output, trace.target, replace(trace.recording, entries=entries))


class KeptTraces:
    """Traces of samples by their index, as far as :data:`KEPT` allows."""

    def __init__(self) -> None:
        self._known: dict[int, _Thin] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, index: int, make: Callable[[], Piece]) -> Piece:
        """The trace of a sample with its targets, equal to what ``make`` gives. It is made if it is not kept."""
        if index in self._known:
            return self._known[index].piece()
        made = make()
        thin = _Thin.of(*made)
        if (len(self) + 1) * numbers(thin.trace, thin.answers) <= KEPT:
            self._known[index] = thin
        return made


def numbers(trace: Trace, *others: Tensor) -> int:
    """Numbers that a trace and other tensors hold, in whole memory blocks: a view holds all of what it is a view of."""
    held = tree_leaves((trace.inputs, trace.output, trace.recording.entries, trace.recording.calls, others))
    blocks = {leaf.untyped_storage().data_ptr(): leaf for leaf in held if isinstance(leaf, Tensor) and not leaf.is_meta}
    return sum(leaf.untyped_storage().nbytes() // leaf.element_size() for leaf in blocks.values())
