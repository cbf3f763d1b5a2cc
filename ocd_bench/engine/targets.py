"""Training targets: what overfitting makes of samples, ready for a hypernetwork."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ocd_bench.engine.condition import features
from ocd_bench.engine.deltas import Delta, Full, concatenate
from ocd_bench.engine.forms import (
    BasisForm,
    Form,
    FormScore,
    FullForm,
    InputBasisForm,
    LearnedBasisForm,
    RankOneForm,
    choose_form,
)
from ocd_bench.engine.layer import TargetLayer, Trace
from ocd_bench.engine.overfit import Loss, Overfit, overfit
from ocd_bench.errors import UsageError

Change = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Function of inputs, targets and a CPU generator giving other inputs and targets (augmentation, subsampling)."""

BASES = ("basis", "learned")
"""Forms by name that are fitted to overfitted ΔW's."""

FITTED = 256
"""Overfitted ΔW's that a form is fitted to, at most."""

BUDGET = 2**26
"""Numbers (not bytes) that one chunk's positions and weight changes may take."""


@dataclass(frozen=True)
class Targets:
    """N samples as a hypernetwork is trained on them.

    Attributes:
        features: I(x), each ``(N, D)``.
        code: of the overfitted ΔW, ``(N, K)``.
        inputs: the samples themselves ``(N, ...)``, augmented but whole, where somebody will ask for them, else None.
        answers: the task's targets ``(N, ...)`` beside ``inputs``, where the task's loss is to be trained on, else None.
        pieces: traces of the samples in turn, each with its targets, where the base is to be run on from the layer; of all N
            or of the first few. They get lost where samples are taken out or moved.
    """

    features: dict[str, Tensor]
    code: Tensor
    inputs: Tensor | None = None
    answers: Tensor | None = None
    pieces: tuple[tuple[Trace, Tensor], ...] = ()

    def __len__(self) -> int:
        return len(self.code)

    def take(self, indices: Tensor | slice) -> Targets:
        """The samples at ``indices``."""
        return self._map(lambda part: part[indices])

    def to(self, device: torch.device) -> Targets:
        """On another device."""
        return self._map(lambda part: part.to(device))

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
        tuple(piece for part in parts for piece in part.pieces),
    )


@dataclass
class Overfitter:
    """Overfits batches of samples, in chunks that memory allows.

    Args:
        layer: the layer to change, of a base on ``device``.
        loss: per-sample losses of outputs and targets.
        how: the optimizer and its steps.
        augment, subsample: applied in this order to samples on the CPU; None for neither.
        excerpt: in place of ``subsample`` where samples are only run through the base, in :meth:`traced`.
        output_features: the model's output as features of the condition.
        conditions: which features of I(x) are given.
        fixed: features of the inputs that need no training.
        keep_inputs: whether targets carry the samples, for an encoder in training.
        keep_answers: whether they carry the task's targets too, and the traces, for training on the task's own loss.
    """

    layer: TargetLayer
    loss: Loss
    how: Overfit
    device: torch.device
    output_features: Callable[[Tensor], Tensor]
    augment: Change | None = None
    subsample: Change | None = None
    excerpt: Change | None = None
    conditions: Sequence[str] = ("input", "activation", "output")
    fixed: Callable[[Tensor], Tensor] | None = None
    keep_inputs: bool = False
    keep_answers: bool = False

    def __post_init__(self) -> None:
        self._rows: dict[tuple[int, ...], int] = {}

    @property
    def random(self) -> bool:
        """Whether the same sample gives other targets the next time."""
        return self.augment is not None or self.subsample is not None

    def rows(self, inputs: Tensor) -> int:
        """Samples of this shape that can be handled at once: at most 1,024, and what :data:`BUDGET` allows."""
        shape = tuple(inputs.shape[1:])
        if shape not in self._rows:
            trace = self.layer.trace(inputs[:1].to(self.device))
            outputs, columns = self.layer.shape
            numbers = 2 * trace.positions.numel() + 4 * trace.response.numel()
            if not trace.single:
                numbers += 4 * outputs * columns
            self._rows[shape] = max(1, min(1024, BUDGET // numbers))
        return self._rows[shape]

    def describe(self, trace: Trace) -> dict[str, Tensor]:
        """I(x) of a trace."""
        with torch.no_grad():
            found = features(trace, self.output_features, self.fixed)
            return {name: value for name, value in found.items() if name in self.conditions or name == "sample"}

    def change(
        self, inputs: Tensor, targets: Tensor, generator: torch.Generator, augment: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Samples augmented (if ``augment``) and subsampled."""
        return self.part(*self.copy(inputs, targets, generator, augment), generator)

    def copy(self, inputs: Tensor, targets: Tensor, generator: torch.Generator, augment: bool = True) -> tuple[Tensor, Tensor]:
        """Samples augmented, if ``augment``."""
        return self.augment(inputs, targets, generator) if augment and self.augment is not None else (inputs, targets)

    def part(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Samples subsampled."""
        return (inputs, targets) if self.subsample is None else self.subsample(inputs, targets, generator)

    def deltas(self, inputs: Tensor, targets: Tensor) -> Iterator[tuple[Trace, Tensor, Delta]]:
        """Trace, targets and overfitted ΔW, chunk by chunk, on the device.

        Raises:
            UsageError: if overfitting diverges.
        """
        rows = self.rows(inputs)
        for x, y in zip(inputs.split(rows), targets.split(rows), strict=True):
            x, y = x.to(self.device), y.to(self.device)
            trace = self.layer.trace(x)
            delta = overfit(self.layer, trace, y, self.loss, self.how)
            bad = int((~delta.norm().isfinite()).sum())
            if bad:
                raise UsageError(
                    f"overfitting ({self.how.optimizer}, learning rate {self.how.lr:g}, {self.how.steps} steps) diverges for "
                    f"{bad} of {len(x)} samples; lower the learning rate (overfit_lr)"
                )
            yield trace, y, delta

    def make(self, form: Form, inputs: Tensor, targets: Tensor, generator: torch.Generator, augment: bool = True) -> Targets:
        """Targets of the samples, on the device."""
        inputs, targets = self.copy(inputs, targets, generator, augment)
        x, y = self.part(inputs, targets, generator)
        parts, start = [], 0
        for trace, answers, delta in self.deltas(x, y):
            rows = slice(start, start + len(trace))
            found = Targets(self.describe(trace), form.encode(delta, trace))
            if self.keep_inputs or self.keep_answers:
                found = replace(found, inputs=inputs[rows].to(self.device))
            if self.keep_answers:
                found = replace(found, answers=targets[rows].to(self.device), pieces=((trace, answers),))
            parts.append(found)
            start = rows.stop
        return join(parts)

    def traced(self, targets: Targets, generator: torch.Generator, most: int = 0) -> Targets:
        """The same targets with ``pieces``: the base is run again on the samples, on other parts of them where there are parts.

        Args:
            targets: with inputs and answers.
            most: only the first so many are traced; 0 for all.
        """
        assert targets.inputs is not None
        assert targets.answers is not None
        few = slice(most or None)
        x, y = (self.excerpt or self.part)(targets.inputs[few].cpu(), targets.answers[few].cpu(), generator)
        rows = self.rows(x)
        pairs = zip(x.split(rows), y.split(rows), strict=True)
        pieces = tuple((self.layer.trace(a.to(self.device)), b.to(self.device)) for a, b in pairs)
        return replace(targets, pieces=pieces)

    def bank(
        self,
        form: Form,
        inputs: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        passes: int = 1,
        augment: bool = True,
        batch: int = 256,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Targets:
        """Targets of all samples, ``passes`` times over, on the CPU; augmented anew each time."""
        cpu = torch.device("cpu")
        parts, total = [], passes * len(inputs)
        for part in range(passes):
            for start in range(0, len(inputs), batch):
                piece = slice(start, start + batch)
                parts.append(self.make(form, inputs[piece], targets[piece], generator, augment).to(cpu))
                progress(min(total, part * len(inputs) + start + batch), total)
        return join(parts)


@dataclass(frozen=True)
class Picked:
    """A form, and where it was chosen among several what each of them would have cost."""

    form: Form
    scores: Sequence[FormScore] = ()


def pick_form(
    name: str, basis: int, overfitter: Overfitter, inputs: Tensor, targets: Tensor, generator: torch.Generator
) -> Picked:
    """The form of that name, fitted to training samples where it needs fitting; see ``OCDSettings.form`` for ``auto``.

    Up to :data:`FITTED` samples are overfitted: principal directions come from three quarters of them, and the choice is made
    by the rest.

    Raises:
        UsageError: if a form asked for by name cannot be used with the layer.
    """
    layer = overfitter.layer
    shape = layer.shape
    if name == "full":
        return Picked(FullForm(shape).to(overfitter.device))
    first = overfitter.change(inputs[:1], targets[:1], generator)[0]
    trace = layer.trace(first.to(overfitter.device))
    if name == "rank-one" or (name == "auto" and trace.single):
        return Picked(_usable(RankOneForm(shape), trace).to(overfitter.device))
    if name == "input-basis":
        return Picked(_usable(InputBasisForm(shape, min(basis, shape[1])), trace).to(overfitter.device))
    limit = max(2, min(FITTED, BUDGET // (shape[0] * shape[1]), max(64, 8 * overfitter.rows(first))))
    chosen = torch.randperm(len(inputs), generator=generator)[:limit]
    x, y = overfitter.change(inputs[chosen], targets[chosen], generator)
    pieces = list(overfitter.deltas(x, y))
    if name in BASES:
        fitted = concatenate([delta for _, _, delta in pieces])
        return Picked(_basis(name, basis, fitted).to(overfitter.device))
    trace, y, delta = pieces[0]
    held = max(1, len(trace) // 4)
    fitted = concatenate([delta.take(slice(held, None)), *(other for _, _, other in pieces[1:])])
    trace = layer.trace(trace.inputs[:held])
    candidates = _candidates(trace, fitted, shape)
    choice = choose_form(layer, trace, y[:held], overfitter.loss, delta.take(slice(held)), candidates, tolerance=0.1)
    return Picked(choice.form, choice.scores)


def basis_of(name: str, basis: int, codes: Tensor, overfitter: Overfitter, generator: torch.Generator) -> Picked:
    """The basis of that name, fitted to at most :data:`FITTED` of known ΔW's ``(M, O x I)``."""
    chosen = torch.randperm(len(codes), generator=generator)[:FITTED]
    fitted = Full(codes[chosen].reshape(-1, *overfitter.layer.shape))
    return Picked(_basis(name, basis, fitted).to(overfitter.device))


def basis_codes(form: Form, codes: Tensor) -> Tensor:
    """Known ΔW's ``(M, O x I)`` as codes of a basis."""
    assert isinstance(form, BasisForm)
    return codes @ form.basis.flatten(1).T.to(codes)


def _basis(name: str, basis: int, fitted: Delta) -> BasisForm:
    outputs, columns = fitted.shape
    kind = BasisForm if name == "basis" else LearnedBasisForm
    return kind.fit(fitted, min(basis, len(fitted), outputs * columns))


def _candidates(trace: Trace, fitted: Delta, shape: tuple[int, int]) -> list[Form]:
    """Forms to choose from: their codes short enough to predict, their bases cheap enough to find."""
    most = min(len(fitted), shape[0] * shape[1])
    forms: list[Form] = (
        [BasisForm.fit(fitted, size) for size in sorted({min(size, most) for size in (8, 32, 128)})] if most else []
    )
    side = min(trace.positions.shape[1:])
    if side <= 256:
        forms += [InputBasisForm(shape, rank) for rank in (1, 2, 4) if rank <= side and shape[0] * rank <= 2048]
    if shape[0] * shape[1] <= 16_384 or not forms:
        forms.append(FullForm(shape))
    return [form.to(trace.output.device) for form in forms]


def _usable(form: Form, trace: Trace) -> Form:
    if reason := form.refusal(trace):
        raise UsageError(f"form {form.describe()}: {reason}")
    return form
