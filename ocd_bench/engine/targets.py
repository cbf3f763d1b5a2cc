"""Training targets of a problem: samples with their I(x) and the codes of their overfitted ΔW (stages 1 to 3, batch by batch).

Cross-fitting (``ocd.folds``): a base errs less on the samples it was trained on than on others, so overfitting to them teaches
a hypernetwork too short a change. With K folds, a sample's I(x) and ΔW come from a base trained on the other K - 1 folds, as in
stacked generalisation (Wolpert 1992). Those bases start at the same weights, so that a change of one fits the others nearly as
well. Validation and test samples meet the base itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ocd_bench.engine.capture import Describe, TargetLayer, Trace
from ocd_bench.engine.forms import FORMS, Delta, Form, FullForm
from ocd_bench.engine.learn import RandomSource
from ocd_bench.engine.overfit import Overfit, losses, overfitted
from ocd_bench.engine.problem import CPU, Data, Problem
from ocd_bench.progress import Progress
from ocd_bench.seeds import seeded

if TYPE_CHECKING:
    from ocd_bench.engine.settings import OCDSettings

BANK_LIMIT = 2**28
"""Numbers that targets made beforehand may take, where the settings do not ask for them."""

KEPT = 2**28
"""Numbers (not bytes) that traces kept from step to step may take."""

Pieces = Sequence[tuple[Trace, Tensor]]
"""Traces of the first samples of a batch in turn, or of all of them, each with the task's targets."""


@dataclass(frozen=True)
class TargetSettings:
    """What the targets depend on; see :class:`ocd_bench.engine.settings.OCDSettings` for the fields.

    Attributes:
        answers: whether the task's own targets and the traces are kept, for training on the task's loss.
        steps, batch_size: of the training that the targets are for.
    """

    overfit: Overfit
    form: str
    basis: int
    passes: int
    folds: int
    augment: bool
    conditions: tuple[str, ...]
    input_encoder: bool
    answers: bool
    task_batch: int
    steps: int
    batch_size: int

    @classmethod
    def of(cls, settings: OCDSettings) -> TargetSettings:
        """The part of the settings that the targets depend on."""
        same = {name: getattr(settings, name) for name in cls.__annotations__ if name not in ("overfit", "answers")}
        return cls(overfit=Overfit.of(settings), answers=settings.task_weight > 0, **same)


@dataclass(frozen=True)
class Targets:
    """N samples as a hypernetwork is trained on them.

    Attributes:
        features: I(x), each ``(N, D)``.
        code: of the overfitted ΔW, ``(N, K)``.
        inputs: the samples themselves ``(N, ...)``, augmented but not subsampled; None where nothing needs them.
        answers: the task's targets ``(N, ...)`` of ``inputs``; None where the task's loss is not trained on.
    """

    features: dict[str, Tensor]
    code: Tensor
    inputs: Tensor | None = None
    answers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.code)

    def take(self, indices: Tensor | slice) -> Targets:
        """The samples at ``indices``."""
        return self._map(lambda part: part[indices])

    def to(self, device: torch.device) -> Targets:
        """On another device."""
        return self._map(lambda part: part.to(device, non_blocking=device.type == "cuda"))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Targets:
        inputs = None if self.inputs is None else change(self.inputs)
        answers = None if self.answers is None else change(self.answers)
        return Targets({name: change(value) for name, value in self.features.items()}, change(self.code), inputs, answers)

    def numbers(self) -> int:
        """Numbers held per sample."""
        parts = [*self.features.values(), self.code, self.inputs, self.answers]
        return sum(part[0].numel() for part in parts if part is not None)


def join(parts: Sequence[Targets]) -> Targets:
    """Several batches of targets as one."""

    def whole(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [value for value in values if value is not None]
        return torch.cat(known) if known else None

    return Targets(
        {name: torch.cat([part.features[name] for part in parts]) for name in parts[0].features},
        torch.cat([part.code for part in parts]),
        whole([part.inputs for part in parts]),
        whole([part.answers for part in parts]),
    )


def validation_samples(problem: Problem, limit: int) -> Data:
    """At most ``limit`` validation samples, subsampled: the same in every call."""
    generator = seeded(problem.seed, "validation")
    chosen = torch.randperm(len(problem.val[0]), generator=generator)[:limit].sort().values
    inputs, targets = problem.val[0][chosen], problem.val[1][chosen]
    return (inputs, targets) if problem.subsample is None else problem.subsample(inputs, targets, generator)


class TargetStream:
    """The training samples of a problem as targets: made anew for every batch, or beforehand.

    Args:
        problem: the task, as the engine sees it.
        how: what the targets depend on.
        describe: I(x) of a trace.
        keep_inputs: whether targets carry the samples themselves, for an encoder in training.

    Attributes:
        layers: one layer, or with cross-fitting the layer of every fold's base.
        fold: the fold of each training sample, ``(N,)``; zeros without cross-fitting.
        known: traces that are kept from step to step, each with its targets, by index of the sample.
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
        self.known: dict[int, tuple[Trace, Tensor]] = problem.remember("traces", dict)

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
        parts, pieces = [], list[tuple[Trace, Tensor]]()
        for layer, x, y in self.parts(indices):
            parts.append(self._encoded(layer, form, *self.copy(x, y, generator), generator, pieces))
        return join(parts), pieces

    def _encoded(
        self,
        layer: TargetLayer,
        form: Form,
        inputs: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        pieces: list[tuple[Trace, Tensor]] | None = None,
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
        as far as :data:`KEPT` allows.
        """
        most = self.how.task_batch
        if len(self.layers) > 1:
            start, pieces = 0, list[tuple[Trace, Tensor]]()
            for layer, x, _ in self.parts(indices):
                rows = slice(start, start + len(x))
                pieces += self.traced(targets.take(rows), generator, 0, layer)
                start = rows.stop
            return pieces
        if not most or self.problem.subsample is not None or self.problem.excerpt is not None:
            return self.traced(targets, generator, most)
        return [self._kept(targets, row, index) for row, index in enumerate(indices[:most].tolist())]

    def _kept(self, targets: Targets, row: int, index: int) -> tuple[Trace, Tensor]:
        if index in self.known:
            return self.known[index]
        (piece,) = self.traced(targets.take(slice(row, row + 1)), torch.Generator())
        if (len(self.known) + 1) * numbers(piece[0]) <= KEPT:
            self.known[index] = piece
        return piece

    # --- targets made beforehand

    def bank(self, form: Form) -> Targets:
        """Targets of all training samples, ``passes`` times over (at least once), in their order, on the CPU."""
        generator, passes = seeded(self.problem.seed, "targets"), max(1, self.how.passes)
        order = self.grouped(torch.arange(len(self.fold)))
        pieces = (piece for _ in range(passes) for part in self.parts(order) for piece in _split(*part))

        def made(layer: TargetLayer, x: Tensor, y: Tensor) -> Targets:
            return self._encoded(layer, form, *self.copy(x, y, generator), generator).to(CPU)

        loop = self.problem.stage("overfit", ("bank", self.how, type(form), form.size))
        found = gathered(pieces, made, generator, loop, passes * len(order))
        if len(self.layers) == 1:
            return found
        places = order.argsort() + len(order) * torch.arange(passes)[:, None]
        return found.take(places.flatten())

    def whole_bank(self) -> Targets | None:
        """Targets made beforehand with ΔW itself as the code, which a basis is fitted to.

        None where ``how.form`` is no such form, or they are too many.
        """
        outputs, columns = self.problem.layer.shape
        count = self.how.passes * len(self.fold)
        fitted = self.how.form in FORMS and FORMS[self.how.form].fitted
        if not fitted or not 0 < count * outputs * columns <= BANK_LIMIT:
            return None
        return self.problem.remember(("whole", self.how), lambda: self.bank(FullForm((outputs, columns))))

    def beforehand(self, form: Form) -> bool:
        """Whether targets are made beforehand: asked for, or one pass is cheaper than new targets for every batch.

        It is cheaper where nothing is random, or not even a batch fits into memory.
        """
        how, (inputs, _) = self.how, self.problem.train
        if how.passes:
            return True
        if how.steps * how.batch_size < len(inputs):
            return False
        if self.random and self.problem.layer.rows(inputs) >= min(how.batch_size, len(inputs)):
            return False
        x, y = self.problem.train[0][:1], self.problem.train[1][:1]
        pilot = seeded(self.problem.seed, "pilot")
        example = self._encoded(self.problem.layer, form, *self.copy(x, y, pilot), pilot)
        return len(inputs) * example.numbers() <= BANK_LIMIT

    def batches(self, form: Form) -> tuple[Callable[[], tuple[Targets, Pieces]], Targets, Sequence[RandomSource]]:
        """A function that gives the next training batch on the device; targets to take statistics from, on the CPU; and the
        sources of random numbers behind the batches."""
        seed, how = self.problem.seed, self.how
        indices = Shuffled(len(self.fold) * max(1, how.passes), how.batch_size, seeded(seed, "order"))
        changes = seeded(seed, "augment")
        if self.beforehand(form):
            bank = self._bank(form)

            def known() -> tuple[Targets, Pieces]:
                chosen = self.grouped(next(indices))
                found = bank.take(chosen).to(self.problem.device)
                return found, self.traced_from_bank(found, chosen, changes) if how.answers else ()

            return known, bank, (indices, changes)

        def fresh() -> tuple[Targets, Pieces]:
            return self.make(form, self.grouped(next(indices)), changes)

        pilot = seeded(seed, "pilot")
        some = torch.randperm(len(self.fold), generator=pilot)[:512]
        pilot = seeded(seed, "pilot")
        some_targets = join([self.make(form, self.grouped(few), pilot)[0].to(CPU) for few in some.split(256)])
        return fresh, some_targets, (indices, changes)

    def _bank(self, form: Form) -> Targets:
        whole = self.whole_bank()
        if whole is None:
            return self.problem.remember(("targets", self.how), lambda: self.bank(form))
        return replace(whole, code=form.project(whole.code))

    def validation(self, form: Form, limit: int) -> Targets:
        """Targets of at most ``limit`` validation samples, not augmented, on the CPU."""

        def build() -> Targets:
            inputs, targets = validation_samples(self.problem, limit)
            generator = seeded(self.problem.seed, "validation")

            def made(layer: TargetLayer, x: Tensor, y: Tensor) -> Targets:
                return self._encoded(layer, form, x, y, generator).to(CPU)

            loop = self.problem.stage("overfit", ("validation", self.how, limit, type(form), form.size))
            return gathered(_split(self.problem.layer, inputs, targets), made, generator, loop, len(inputs))

        return self.problem.remember(("validation", self.how, limit), build)

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
        return gained / count if gained > 0 else 1.0


def _split(layer: TargetLayer, inputs: Tensor, targets: Tensor) -> Iterator[tuple[TargetLayer, Tensor, Tensor]]:
    """The samples 256 at a time."""
    for x, y in zip(inputs.split(256), targets.split(256), strict=True):
        yield layer, x, y


def gathered(
    pieces: Iterable[tuple[TargetLayer, Tensor, Tensor]],
    made: Callable[[TargetLayer, Tensor, Tensor], Targets],
    generator: torch.Generator,
    loop: Progress,
    total: int,
) -> Targets:
    """What ``made`` makes of all pieces, as one. Begins where a process that was killed has kept the loop's state.

    Args:
        generator: the only source of random numbers of ``made``.
        total: samples in all pieces.
    """
    done, count, found = 0, 0, list[Targets]()
    if state := loop.resume():
        done, count, found = state["pieces"], state["count"], [Targets(**state["targets"])]
        generator.set_state(state["generator"])

    def now() -> dict[str, Any]:
        targets = {field.name: getattr(join(found), field.name) for field in fields(Targets)}
        return {"pieces": done, "count": count, "targets": targets, "generator": generator.get_state()}

    for layer, x, y in islice(pieces, done, None):
        found.append(made(layer, x, y))
        done, count = done + 1, count + len(x)
        loop(count, total)
        loop.save(now, finished=count == total)
    return join(found)


class Shuffled:
    """Index batches without end: permutations, cut into batches of equal size. A remainder is left out of its permutation.

    Its place in the permutation can be kept and set, as the state of a generator.
    """

    def __init__(self, samples: int, batch_size: int, generator: torch.Generator) -> None:
        self.samples, self.batch_size, self.generator = samples, min(batch_size, samples), generator
        self._before = generator.get_state()
        self._left: list[Tensor] = []

    def __iter__(self) -> Shuffled:
        return self

    def __next__(self) -> Tensor:
        if not self._left:
            self._before = self.generator.get_state()
            whole = self.samples // self.batch_size * self.batch_size
            self._left = list(torch.randperm(self.samples, generator=self.generator)[:whole].split(self.batch_size))[::-1]
        return self._left.pop()

    def get_state(self) -> dict[str, Any]:
        """The generator before the present permutation, and how many of its batches are left."""
        return {"before": self._before if self._left else self.generator.get_state(), "left": len(self._left)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to the place of a state."""
        self.generator.set_state(state["before"])
        self._left = []
        if state["left"]:
            first = next(self)
            self._left = [*self._left, first][: state["left"]]


def numbers(trace: Trace) -> int:
    """Numbers that a trace holds. Those that it holds in two forms count twice."""
    held = tree_leaves((trace.inputs, trace.output, trace.recording.entries, trace.recording.calls, trace.positions))
    return sum(leaf.numel() for leaf in held if isinstance(leaf, Tensor))
