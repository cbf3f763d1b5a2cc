"""Which form of ΔW is predicted: the one that the settings name, or the shortest code that keeps the oracle's gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ocd_bench.engine.banks import whole_bank
from ocd_bench.engine.capture import BUDGET, Trace
from ocd_bench.engine.forms import FORMS, BasisForm, Delta, Form, Full, FullForm, RankOneForm, concatenate
from ocd_bench.engine.input_basis import InputBasisForm
from ocd_bench.engine.overfit import losses, overfitted
from ocd_bench.engine.problem import Loss
from ocd_bench.engine.stream import TargetStream
from ocd_bench.errors import UsageError
from ocd_bench.seeds import seeded

FITTED = 256
"""Overfitted ΔW's that a form is fitted to, at most."""


@dataclass(frozen=True)
class Picked:
    """A form; and where it was chosen among several, what each of them costs."""

    form: Form
    scores: Sequence[FormScore] = ()


def pick_form(stream: TargetStream) -> Picked:
    """The form that the settings name, fitted to training samples where it needs fitting; or the choice of ``auto``.

    ``auto`` is rank one where the layer sees one position per sample. Otherwise up to :data:`FITTED` samples are overfitted:
    bases are fitted to three quarters of them, and the choice is made on the rest.

    Raises:
        UsageError: if a form asked for by name cannot be used with the layer.
    """
    how = replace(stream.how, answers=False)  # the form does not depend on what the hypernetwork is trained for
    return stream.problem.remember(("form", how), lambda: _pick(stream))


def _pick(stream: TargetStream) -> Picked:
    problem, layer, name, basis = stream.problem, stream.problem.layer, stream.how.form, stream.how.basis
    generator = seeded(problem.seed, "form")
    whole = whole_bank(stream)
    if whole is not None:
        chosen = torch.randperm(len(whole), generator=generator)[:FITTED]
        return Picked(_fitted(name, basis, Full(whole.code[chosen].reshape(-1, *layer.shape))).to(problem.device))
    if name == "full":
        return Picked(FullForm(layer.shape).to(problem.device))
    inputs, targets = problem.train

    def changed(rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        return stream.part(*stream.copy(inputs[rows], targets[rows], generator), generator)

    first, _ = changed(slice(1))
    trace = layer.trace(first.to(problem.device))
    if name == "auto" and trace.single:
        name = RankOneForm.name
    if name != "auto" and not FORMS[name].fitted:
        return Picked(_usable(FORMS[name].of(layer.shape, basis), trace).to(problem.device))
    limit = max(2, min(FITTED, BUDGET // (layer.shape[0] * layer.shape[1]), max(64, 8 * layer.rows(first))))
    x, y = changed(torch.randperm(len(inputs), generator=generator)[:limit])
    pieces = overfitted(layer, x, y, problem.loss, stream.how.overfit)
    if name != "auto":
        return Picked(_fitted(name, basis, concatenate([delta for _, _, delta in pieces])).to(problem.device))
    trace, answers, delta = next(pieces)
    held = max(1, len(trace) // 4)
    known = concatenate([delta.take(slice(held, None)), *(other for _, _, other in pieces)])
    trace = layer.trace(trace.inputs[:held])
    candidates = _candidates(trace, known, layer.shape)
    choice = choose_form(trace, answers[:held], problem.loss, delta.take(slice(held)), candidates, tolerance=0.1)
    return Picked(choice.form, choice.scores)


def _fitted(name: str, basis: int, delta: Delta) -> Form:
    outputs, columns = delta.shape
    return FORMS[name].fit(delta, min(basis, len(delta), outputs * columns))


def _candidates(trace: Trace, fitted: Delta, shape: tuple[int, int]) -> list[Form]:
    """Forms to choose from whose codes are short enough to predict and whose bases are cheap enough to find."""
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


@dataclass(frozen=True)
class FormScore:
    """The loss of accuracy when overfitted ΔW's are encoded in a form and decoded again.

    Attributes:
        form: the form.
        loss: mean loss of the samples with the rounded ΔW's; None if the form cannot be used here.
        kept: fraction of the oracle's gain over the base that is left.
        energy: mean fraction of ‖ΔW‖² that is left.
        reason: why it cannot be used; None otherwise.
    """

    form: Form
    loss: float | None
    kept: float | None
    energy: float | None
    reason: str | None = None


@dataclass(frozen=True)
class FormChoice:
    """The chosen form, and the mean losses that decided."""

    form: Form
    base_loss: float
    oracle_loss: float
    scores: Sequence[FormScore]


def choose_form(
    trace: Trace,
    targets: Tensor,
    loss: Loss,
    delta: Delta,
    candidates: Sequence[Form],
    tolerance: float = 0.05,
) -> FormChoice:
    """The form with the shortest code that keeps the oracle's gain.

    Each candidate encodes and decodes ``delta``, the overfitted ΔW's of the trace's samples. It passes if the mean loss rises
    by at most ``tolerance`` times the gain of overfitting over the base. If none passes, the one with the least loss is taken.

    Raises:
        ValueError: if no candidate can be used on this trace.
    """
    base = float(losses(trace, targets, loss).mean())
    oracle = float(losses(trace, targets, loss, delta).mean())
    scores = [_score(form, trace, targets, loss, delta, base, oracle) for form in candidates]
    usable = [(score.loss, score.form) for score in scores if score.loss is not None]
    if not usable:
        raise ValueError("; ".join(f"{score.form.describe()}: {score.reason}" for score in scores) or "no form to choose from")
    passing = [form for value, form in usable if value <= oracle + tolerance * abs(base - oracle)]
    best = min(passing, key=lambda form: form.size) if passing else min(usable, key=lambda pair: pair[0])[1]
    return FormChoice(best, base, oracle, scores)


def _score(form: Form, trace: Trace, targets: Tensor, loss: Loss, delta: Delta, base: float, oracle: float) -> FormScore:
    if reason := form.refusal(trace):
        return FormScore(form, None, None, None, reason)
    rounded = form.decode(form.encode(delta, trace), trace)
    value = float(losses(trace, targets, loss, rounded).mean())
    kept = (base - value) / (base - oracle) if base != oracle else 1.0
    return FormScore(form, value, kept, float(form.energy(delta, trace).mean()))
