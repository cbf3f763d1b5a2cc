"""Codes of ΔW: the K numbers per sample that a network predicts, and the way back to a weight change.

Every form is linear: a scaled ΔW has the scaled code. All but the learned basis are orthogonal projections: what is lost
is what the form does not span. Forms are modules: what they learn is in their ``state_dict``, and they follow ``.to(device)``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ocd_bench.engine.deltas import Delta, Full, LowRank, RankOne
from ocd_bench.engine.layer import TargetLayer, Trace
from ocd_bench.engine.overfit import Loss, losses


class Form(nn.Module):
    """A code of ΔW for a layer of ``shape`` (O, I).

    Attributes:
        size: K, the length of a code.
        shape: (O, I).
    """

    size: int

    def __init__(self, shape: tuple[int, int], size: int) -> None:
        super().__init__()
        if size < 1 or size > shape[0] * shape[1]:
            raise ValueError(f"a code of {size} numbers cannot stand for a weight change of shape {tuple(shape)}")
        self.shape, self.size = (int(shape[0]), int(shape[1])), int(size)

    @abstractmethod
    def encode(self, delta: Delta, trace: Trace) -> Tensor:
        """Codes ``(N, K)`` of the deltas nearest to ``delta`` that this form can express."""

    @abstractmethod
    def decode(self, code: Tensor, trace: Trace) -> Delta:
        """The weight changes of codes ``(N, K)``, differentiable in ``code``; ``trace`` is that of the same N samples."""

    def refusal(self, trace: Trace) -> str | None:
        """Why this form cannot be used on such a trace, or None."""
        return None

    def energy(self, delta: Delta, trace: Trace) -> Tensor:
        """Fraction ``(N,)`` of each sample's ‖ΔW‖² that survives encoding and decoding; 1 where ΔW is zero."""
        total = delta.norm().square()
        kept = self.decode(self.encode(delta, trace), trace).norm().square()
        return torch.where(total > 0, kept / total.clamp_min(torch.finfo(total.dtype).tiny), torch.ones_like(total)).clamp(0, 1)

    def describe(self) -> str:
        """The name in tables, for example ``rank-one (84)``."""
        return f"{self.label} ({self.size})"

    label = "form"


class FullForm(Form):
    """Every number of ΔW: K = O x I."""

    label = "full"

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(shape, shape[0] * shape[1])

    def encode(self, delta: Delta, trace: Trace) -> Tensor:
        return delta.matrix().flatten(1)

    def decode(self, code: Tensor, trace: Trace) -> Delta:
        return Full(code.reshape(len(code), *self.shape))


class RankOneForm(Form):
    """ΔW = r aᵀ / ‖a‖² with a the layer's own input, known at test time: K = O, and only r = ΔW a is to be predicted.

    Exact for SGD on a layer of one position per sample. A ΔW of another origin is projected: its effect on the sample itself,
    the change r of the layer's response, is kept whole even where its energy is not. As a code, r is what later layers meet,
    however long a is. Where a is zero so is ΔW.
    """

    label = "rank-one"

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(shape, shape[0])

    def refusal(self, trace: Trace) -> str | None:
        positions = trace.response.shape[1]
        return None if trace.single else f"the layer sees {positions} positions per sample, and one is needed"

    def encode(self, delta: Delta, trace: Trace) -> Tensor:
        return delta.shift(_usable(self, trace).positions)[:, 0]

    def decode(self, code: Tensor, trace: Trace) -> Delta:
        a = _usable(self, trace).positions[:, 0]
        square = a.square().sum(1, keepdim=True)
        return RankOne(torch.where(square > 0, code / square.clamp_min(torch.finfo(square.dtype).tiny), 0.0), a)


class BasisForm(Form):
    """Coordinates in the space of the ``components`` first principal directions of training ΔW's (not centred: ΔW = 0 has
    code 0, and a scaled ΔW the scaled code)."""

    label = "basis"
    basis: Tensor

    def __init__(self, shape: tuple[int, int], components: int) -> None:
        super().__init__(shape, components)
        self.register_buffer("basis", torch.zeros(components, *self.shape))

    @classmethod
    def fit(cls, delta: Delta, components: int) -> BasisForm:
        """The directions of largest energy of M training ΔW's, orthonormal; ``components`` at most min(M, O x I).

        Found in float64 from the smaller Gram matrix, of min(M, O x I) rows; the (M, O x I) matrix must fit into memory.
        """
        flat = delta.matrix().flatten(1).double()
        if not 1 <= components <= min(flat.shape):
            raise ValueError(f"{components} components of {len(flat)} weight changes with {flat.shape[1]} numbers each")
        if len(flat) <= flat.shape[1]:
            rows = _leading(flat @ flat.T, components).T @ flat
            rows = torch.linalg.qr(rows.T).Q.T  # orthonormal also where the changes span fewer directions than asked for
        else:
            rows = _leading(flat.T @ flat, components).T
        form = cls(delta.shape, components).to(delta.matrix())
        form.basis.copy_((rows * _signs(rows)).reshape(form.basis.shape))
        return form

    def encode(self, delta: Delta, trace: Trace) -> Tensor:
        return delta.matrix().flatten(1) @ self.basis.flatten(1).T

    def decode(self, code: Tensor, trace: Trace) -> Delta:
        return Full((code @ self.basis.flatten(1)).reshape(len(code), *self.shape))


class LearnedBasisForm(BasisForm):
    """Coordinates along ``components`` directions that are trained with the hypernetwork, from the principal ones on.

    Overfitted ΔW's are coded by the principal directions for good, so that what is to be imitated stays where it is; what a
    code means for the weights, ``directions``, follows the task's own loss. Beyond the paper.
    """

    label = "learned basis"

    def __init__(self, shape: tuple[int, int], components: int) -> None:
        super().__init__(shape, components)
        self.directions = nn.Parameter(torch.zeros(components, *self.shape))

    @classmethod
    def fit(cls, delta: Delta, components: int) -> LearnedBasisForm:
        """Begin at the principal directions of M training ΔW's; see :meth:`BasisForm.fit`."""
        form = super().fit(delta, components)
        assert isinstance(form, LearnedBasisForm)
        with torch.no_grad():
            form.directions.copy_(form.basis)
        return form

    def decode(self, code: Tensor, trace: Trace) -> Delta:
        return Full((code @ self.directions.flatten(1)).reshape(len(code), *self.shape))


class InputBasisForm(Form):
    """ΔW on the ``rank`` first right singular vectors V of the sample's own positions: code ΔW V, K = O x rank.

    Gradients lie in the span of the positions, so rank = min(P, I) loses nothing of SGD; nothing is learned, and V is known at
    test time. Each vector's largest entry is made positive; vectors of equal singular values are arbitrary among themselves.
    """

    label = "input-basis"

    def __init__(self, shape: tuple[int, int], rank: int) -> None:
        super().__init__(shape, shape[0] * rank)
        self.rank = rank

    def refusal(self, trace: Trace) -> str | None:
        limit = min(trace.positions.shape[1:])
        return None if self.rank <= limit else f"rank {self.rank} exceeds the {limit} directions of a sample's positions"

    def encode(self, delta: Delta, trace: Trace) -> Tensor:
        # ΔW V, as the layer's answer to the vectors of V.
        return delta.shift(self._vectors(trace).mT).mT.flatten(1)

    def decode(self, code: Tensor, trace: Trace) -> Delta:
        return LowRank(code.reshape(len(code), self.shape[0], self.rank), self._vectors(trace))

    def _vectors(self, trace: Trace) -> Tensor:
        """V, ``(N, I, rank)``."""
        positions = _usable(self, trace).positions
        if positions.shape[1] > positions.shape[2]:
            # I x I: P can be a hundred thousand
            vectors = _leading(torch.bmm(positions.mT, positions).double(), self.rank).to(positions.dtype)
        else:
            vectors = torch.linalg.svd(positions, full_matrices=False).Vh[:, : self.rank].mT
        return vectors * _signs(vectors.mT).mT


@dataclass(frozen=True)
class FormScore:
    """What rounding overfitted ΔW's to a form costs.

    Attributes:
        form: the form.
        loss: mean loss of the samples with the rounded ΔW's; None if the form cannot be used here.
        kept: fraction of the oracle's improvement over the base that is left.
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
    """The form taken, and what it was taken by; losses are means over the samples."""

    form: Form
    base_loss: float
    oracle_loss: float
    scores: Sequence[FormScore]


def choose_form(
    layer: TargetLayer,
    trace: Trace,
    targets: Tensor,
    loss: Loss,
    delta: Delta,
    candidates: Sequence[Form],
    tolerance: float = 0.05,
) -> FormChoice:
    """The form of the shortest code that keeps the oracle's gain.

    Each candidate rounds ``delta``, the overfitted ΔW's of the trace's samples. It passes if the mean loss rises by at most
    ``tolerance`` times what overfitting gained over the base. If none passes, the one of least loss is taken.

    Raises:
        ValueError: if no candidate can be used on this trace.
    """
    base = float(losses(layer, trace, targets, loss).mean())
    oracle = float(losses(layer, trace, targets, loss, delta).mean())
    scores = [_score(form, layer, trace, targets, loss, delta, base, oracle) for form in candidates]
    usable = [(score.loss, score.form) for score in scores if score.loss is not None]
    if not usable:
        raise ValueError("; ".join(f"{score.form.describe()}: {score.reason}" for score in scores) or "no form to choose from")
    passing = [form for value, form in usable if value <= oracle + tolerance * abs(base - oracle)]
    best = min(passing, key=lambda form: form.size) if passing else min(usable, key=lambda pair: pair[0])[1]
    return FormChoice(best, base, oracle, scores)


def _score(
    form: Form, layer: TargetLayer, trace: Trace, targets: Tensor, loss: Loss, delta: Delta, base: float, oracle: float
) -> FormScore:
    if reason := form.refusal(trace):
        return FormScore(form, None, None, None, reason)
    rounded = form.decode(form.encode(delta, trace), trace)
    value = float(losses(layer, trace, targets, loss, rounded).mean())
    kept = (base - value) / (base - oracle) if base != oracle else 1.0
    return FormScore(form, value, kept, float(form.energy(delta, trace).mean()))


def _usable(form: Form, trace: Trace) -> Trace:
    if reason := form.refusal(trace):
        raise ValueError(f"{form.describe()} form: {reason}")
    return trace


def _leading(gram: Tensor, count: int) -> Tensor:
    """Eigenvectors ``(..., D, count)`` of the largest eigenvalues of a symmetric matrix, largest first."""
    return torch.linalg.eigh(gram).eigenvectors.flip(-1)[..., :count]


def _signs(rows: Tensor) -> Tensor:
    """Signs ``(..., K, 1)`` that make the largest entry of each of K rows positive: singular vectors come with either."""
    largest = rows.abs().argmax(-1, keepdim=True)
    return rows.gather(-1, largest).sign()
