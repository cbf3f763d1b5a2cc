"""From a sample to its targets: stages 1 to 3 for a few training samples at a time.

Cross-fitting (``ocd.folds``): a base errs less on the samples it was trained on than on others, so overfitting to them teaches
a hypernetwork too short a change. With K folds, a sample's I(x) and ΔW come from a base trained on the other K - 1 folds, as in
stacked generalisation (Wolpert 1992). Those bases start at the same weights, so that a change of one fits the others nearly as
well. Validation and test samples meet the base itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ocd_bench.engine.capture import Describe, TargetLayer, Trace
from ocd_bench.engine.forms import Delta, Form
from ocd_bench.engine.kept import KeptTraces, Piece
from ocd_bench.engine.overfit import losses, overfitted
from ocd_bench.engine.problem import Data, Problem
from ocd_bench.engine.targets import Targets, TargetSettings, join
from ocd_bench.seeds import seeded

Pieces = Sequence[Piece]
"""Traces of the first samples of a batch in turn, or of all of them, each with the task's targets."""


class TargetStream:
    """The training samples of a problem as targets, a few at a time.

    Args:
        problem: the task, as the engine sees it.
        how: what the targets depend on.
        describe: I(x) of a trace.
        keep_inputs: whether targets carry the samples themselves, for an encoder in training.

    Attributes:
        layers: one layer, or with cross-fitting the layer of every fold's base.
        fold: the fold of each training sample, ``(N,)``; zeros without cross-fitting.
        known: traces that are kept from step to step.
    """

    def __init__(self, problem: Problem, how: TargetSettings, describe: Describe, keep_inputs: bool = False) -> None:
        self.problem, self.how, self.describe, self.keep_inputs = problem, how, describe, keep_inputs
        self.augment = problem.augment if how.augment else None
        self.layers: list[TargetLayer] = [problem.layer]
        self.fold = torch.zeros(len(problem.train[0]), dtype=torch.long)
        if how.folds:
            self.layers = []
            for number, (layer, held) in enumerate(problem.folds(how.folds)):
                self.fold[held] = number
                self.layers.append(layer)
        self.known: KeptTraces = problem.remember("traces", KeptTraces)

    @property
    def random(self) -> bool:
        """Whether the same sample has other targets the next time."""
        return self.augment is not None or self.problem.subsample is not None

    # --- samples

    def grouped(self, indices: Tensor) -> Tensor:
        """Indices with those of a fold together. Indices from N on stand for further passes over the N samples."""
        if len(self.layers) == 1:
            return indices
        return indices[self.fold[indices % len(self.fold)].argsort(stable=True)]

    def parts(self, indices: Tensor) -> Iterator[tuple[TargetLayer, Tensor, Tensor]]:
        """The layer of each fold with the inputs and targets of its samples, from :meth:`grouped` indices."""
        inputs, targets = self.problem.train
        samples = indices % len(self.fold)
        for number, layer in enumerate(self.layers):
            some = samples if len(self.layers) == 1 else samples[self.fold[samples] == number]
            if len(some):
                yield layer, inputs[some], targets[some]

    def copy(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> Data:
        """Samples augmented, where the settings say so."""
        return (inputs, targets) if self.augment is None else self.augment(inputs, targets, generator)

    def part(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> Data:
        """Samples subsampled."""
        subsample = self.problem.subsample
        return (inputs, targets) if subsample is None else subsample(inputs, targets, generator)

    def changed(self, indices: Tensor, generator: torch.Generator) -> Iterator[tuple[TargetLayer, Tensor, Tensor]]:
        """As :meth:`parts`, augmented and subsampled."""
        for layer, x, y in self.parts(indices):
            yield layer, *self.part(*self.copy(x, y, generator), generator)

    # --- targets

    def deltas(self, indices: Tensor, generator: torch.Generator) -> Iterator[tuple[Trace, Tensor, Delta]]:
        """Trace, targets and overfitted ΔW of changed samples, from :meth:`grouped` indices, chunk by chunk."""
        for layer, x, y in self.changed(indices, generator):
            yield from overfitted(layer, x, y, self.problem.loss, self.how.overfit)

    def make(self, form: Form, indices: Tensor, generator: torch.Generator) -> tuple[Targets, Pieces]:
        """Targets of changed samples at :meth:`grouped` indices, on the device, and their traces where answers are kept."""
        parts, pieces = [], list[Piece]()
        for layer, x, y in self.parts(indices):
            parts.append(self.encoded(layer, form, *self.copy(x, y, generator), generator, pieces))
        return join(parts), pieces

    def encoded(
        self,
        layer: TargetLayer,
        form: Form,
        inputs: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        pieces: list[Piece] | None = None,
    ) -> Targets:
        """Targets of samples as they are, but subsampled. Their traces are added to ``pieces`` where answers are kept; without
        a list they are dropped chunk by chunk, since those of a few hundred samples can take gigabytes."""
        x, y = self.part(inputs, targets, generator)
        parts, start = [], 0
        for trace, answers, delta in overfitted(layer, x, y, self.problem.loss, self.how.overfit):
            rows = slice(start, start + len(answers))
            found = Targets(self.describe(trace), form.encode(delta, trace))
            if self.keep_inputs or self.how.answers:
                found = replace(found, inputs=inputs[rows].to(answers.device))
            if self.how.answers:
                found = replace(found, answers=targets[rows].to(answers.device))
                if pieces is not None:
                    pieces.append((trace, answers))
            parts.append(found)
            start = rows.stop
            del trace, answers, delta, found  # not while the next trace is made
        return join(parts)

    def traced(self, targets: Targets, generator: torch.Generator, most: int = 0, layer: TargetLayer | None = None) -> Pieces:
        """Traces of the samples of targets: the base runs on them again, on new parts of them where a part is taken.

        Args:
            targets: with inputs and answers.
            most: only the first so many are traced; 0 for all.
            layer: of the base that runs; None: of the problem's.
        """
        assert targets.inputs is not None
        assert targets.answers is not None
        layer = layer or self.problem.layer
        few = slice(most or None)
        x, y = (self.problem.excerpt or self.part)(targets.inputs[few].cpu(), targets.answers[few].cpu(), generator)
        return list(layer.pairs(x, y))

    def traced_from_bank(self, targets: Targets, indices: Tensor, generator: torch.Generator) -> Pieces:
        """Traces of a batch taken from a bank at :meth:`grouped` indices, each from its own fold's base.

        Where only a few samples of a batch are traced, the base is slow. A sample that never changes then runs through it once,
        as far as :data:`ocd_bench.engine.kept.KEPT` allows; but not where the model's state belongs to a batch: to make it for
        each sample costs a batch each.
        """
        most = self.how.task_batch
        if len(self.layers) > 1:
            start, pieces = 0, list[Piece]()
            for layer, x, _ in self.parts(indices):
                rows = slice(start, start + len(x))
                pieces += self.traced(targets.take(rows), generator, 0, layer)
                start = rows.stop
            return pieces
        partial = self.problem.subsample is not None or self.problem.excerpt is not None
        if not most or partial or self.problem.layer.by_batch:
            return self.traced(targets, generator, most)
        return [self._kept(targets, row, index) for row, index in enumerate(indices[:most].tolist())]

    def _kept(self, targets: Targets, row: int, index: int) -> Piece:
        def make() -> Piece:
            one = targets.take(torch.tensor([row], device=targets.code.device))  # a copy: a slice would hold the whole batch
            (piece,) = self.traced(one, torch.Generator())
            return piece

        return self.known.get(index, make)

    def gain(self) -> float:
        """How much overfitting lowers the task's loss, mean over some training samples; 1 where it does not."""
        problem, gained, count = self.problem, 0.0, 0
        generator, inputs = seeded(problem.seed, "unit"), problem.train[0]
        few = torch.randperm(len(inputs), generator=generator)[: min(256, max(8, problem.layer.rows(inputs)))]
        for trace, answers, delta in self.deltas(self.grouped(few), generator):
            before = losses(trace, answers, problem.loss)  # (N,)
            after = losses(trace, answers, problem.loss, delta)
            gained += float((before - after).sum())
            count += len(answers)
            del trace, answers, delta
        return gained / count if gained > 0 else 1.0
