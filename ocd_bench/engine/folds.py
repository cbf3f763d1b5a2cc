"""Cross-fitted training targets: every training sample is overfitted from a base that was trained without it.

A base errs less on the samples it was trained on than on others, so what overfitting them gains teaches a hypernetwork too
short a change. With K folds, a sample's I(x), its ΔW and the task's loss of its predicted ΔW come from a base trained on the
other K - 1 folds, as in stacked generalisation (Wolpert 1992). Those bases begin at the same weights, so that a change of one
fits the others nearly as well; validation and test samples meet the base itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ocd_bench.engine.deltas import Delta
from ocd_bench.engine.forms import Form
from ocd_bench.engine.layer import TargetLayer, Trace
from ocd_bench.engine.targets import Overfitter, Targets, join

KEPT = 2**30
"""Numbers (not bytes) that traces kept from step to step may take."""

FoldBases = Callable[[int], Sequence[tuple[TargetLayer, Tensor]]]
"""K to K layers of other bases, each with the indices of the training samples that its base has not seen."""


@dataclass(frozen=True)
class Folds:
    """The training samples, each with the overfitter that makes its targets. Without cross-fitting there is one for all.

    Attributes:
        inputs, targets: the training samples, on the CPU.
        overfitters: one per fold.
        fold: of each training sample, ``(N,)``.
        kept: traces, with targets, by index.
    """

    inputs: Tensor
    targets: Tensor
    overfitters: Sequence[Overfitter]
    fold: Tensor
    kept: dict[int, tuple[Trace, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        train: tuple[Tensor, Tensor],
        overfitter: Overfitter,
        folds: int,
        bases: FoldBases,
        kept: dict[int, tuple[Trace, Tensor]] | None = None,
    ) -> Folds:
        """``folds`` bases, as ``bases`` gives them; 0: the overfitter's own for all samples.

        Args:
            kept: traces that an earlier fit to the same targets has kept; grows.
        """
        fold = torch.zeros(len(train[0]), dtype=torch.long)
        if not folds:
            return cls(*train, [overfitter], fold, {} if kept is None else kept)
        overfitters = []
        for number, (layer, held) in enumerate(bases(folds)):
            fold[held] = number
            overfitters.append(replace(overfitter, layer=layer))
        return cls(*train, overfitters, fold)

    def grouped(self, indices: Tensor) -> Tensor:
        """Indices with those of a fold together. Beyond N they count on through further passes over the samples."""
        return indices[self.fold[indices % len(self.fold)].argsort(stable=True)]

    def parts(self, indices: Tensor) -> Iterator[tuple[Overfitter, Tensor, Tensor]]:
        """Of grouped indices, each fold's overfitter with the inputs and targets of its samples."""
        samples = indices % len(self.fold)
        for number, overfitter in enumerate(self.overfitters):
            some = samples[self.fold[samples] == number]
            if len(some):
                yield overfitter, self.inputs[some], self.targets[some]

    def make(self, form: Form, indices: Tensor, generator: torch.Generator) -> Targets:
        """Targets of samples at grouped indices, on the device."""
        return join([overfitter.make(form, x, y, generator) for overfitter, x, y in self.parts(indices)])

    def deltas(self, indices: Tensor, generator: torch.Generator) -> Iterator[tuple[Trace, Tensor, Delta]]:
        """Trace, targets and overfitted ΔW of changed samples at grouped indices, chunk by chunk."""
        for overfitter, x, y in self.parts(indices):
            yield from overfitter.deltas(*overfitter.change(x, y, generator))

    def bank(
        self,
        form: Form,
        generator: torch.Generator,
        passes: int,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Targets:
        """Targets of all samples, ``passes`` times over, in their order, on the CPU."""
        if len(self.overfitters) == 1:
            return self.overfitters[0].bank(form, self.inputs, self.targets, generator, passes, progress=progress)
        order = self.grouped(torch.arange(len(self.fold)))
        found, done, total = [], 0, passes * len(order)
        for _ in range(passes):
            for overfitter, x, y in self.parts(order):
                found.append(overfitter.bank(form, x, y, generator))
                done += len(x)
                progress(done, total)
        places = order.argsort() + len(order) * torch.arange(passes)[:, None]
        return join(found).take(places.flatten())

    def traced(self, targets: Targets, indices: Tensor, generator: torch.Generator, most: int = 0) -> Targets:
        """Targets taken from a bank at grouped indices, with the traces of their own bases; see :meth:`Overfitter.traced`.

        Where only a few of a batch are traced the base is dear. A sample that is the same each time is then run through it
        once, as far as :data:`KEPT` allows.
        """
        if len(self.overfitters) == 1:
            overfitter = self.overfitters[0]
            if not most or overfitter.subsample is not None or overfitter.excerpt is not None:
                return overfitter.traced(targets, generator, most)
            few = indices[:most].tolist()
            return replace(targets, pieces=tuple(self._piece(targets, row, index) for row, index in enumerate(few)))
        start, pieces = 0, list[tuple[Trace, Tensor]]()
        for overfitter, x, _ in self.parts(indices):
            rows = slice(start, start + len(x))
            pieces += overfitter.traced(targets.take(rows), generator).pieces
            start = rows.stop
        return replace(targets, pieces=tuple(pieces))

    def _piece(self, targets: Targets, row: int, index: int) -> tuple[Trace, Tensor]:
        if index in self.kept:
            return self.kept[index]
        (piece,) = self.overfitters[0].traced(targets.take(slice(row, row + 1)), torch.Generator()).pieces
        if (len(self.kept) + 1) * numbers(piece[0]) <= KEPT:
            self.kept[index] = piece
        return piece


def numbers(trace: Trace) -> int:
    """Numbers that a trace holds, those counted twice that it holds in two forms."""
    held = tree_leaves((trace.inputs, trace.output, trace.recording.entries, trace.recording.calls, trace.positions))
    return sum(leaf.numel() for leaf in held if isinstance(leaf, Tensor))
