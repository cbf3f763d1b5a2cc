"""Stage 3, encode: what a per-sample weight change ΔW_s is (:class:`Delta`), and the code that is predicted (:class:`Form`).

A :class:`Delta` holds the weight changes of N samples, as full matrices or as factors. A :class:`Form` turns them into codes of
K numbers per sample and back. Every form is linear: a scaled ΔW has the scaled code. All but the learned basis are orthogonal
projections: what they lose is what they do not span.

A new form is one subclass of :class:`Form` with a ``name``, in any module, of a plugin too; ``ocd.form`` then accepts the name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ocd_bench.engine.capture import Trace

FORMS: dict[str, type[Form]] = {}
"""Forms by name, the values of ``ocd.form`` other than ``auto``. Filled by subclassing :class:`Form`."""


@dataclass(frozen=True, eq=False)
class Delta(ABC):
    """Weight changes of N samples, for a layer of O outputs and I inputs with P positions per sample.

    Subclasses differ in memory and speed only. All their fields have N rows; a scale multiplies the first field.
    """

    def shift(self, positions: Tensor) -> Tensor:
        """The change of the layer's response, ``positions @ ΔWᵀ``: ``(N, P, I) -> (N, P, O)``.

        Raises:
            ValueError: if the positions are of another number of samples or inputs.
        """
        if len(positions) != len(self) or positions.shape[2] != self.shape[1]:
            raise ValueError(
                f"ΔW of {len(self)} samples and shape {self.shape} does not fit positions {tuple(positions.shape)}"
            )
        return self._shift(positions)

    @abstractmethod
    def _shift(self, positions: Tensor) -> Tensor:
        """As :meth:`shift`, for positions that fit."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """ΔW as full matrices, ``(N, O, I)``."""

    @abstractmethod
    def norm(self) -> Tensor:
        """Frobenius norm of each sample's ΔW, ``(N,)``."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """``(O, I)``."""

    def scaled(self, scale: float | Tensor) -> Self:
        """ΔW times a scale per sample, ``(N,)`` (or one number for all)."""
        scale = torch.as_tensor(scale, dtype=self._parts()[0].dtype, device=self.device)
        first, *rest = self._parts()
        return self._with(first * scale.reshape(-1, *(1,) * (first.ndim - 1)), *rest)

    def take(self, indices: Any) -> Self:
        """The samples at ``indices`` (a slice, a list or an index tensor)."""
        return self._map(lambda part: part[indices])

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """On another device or of another dtype, as :meth:`torch.Tensor.to`."""
        return self._map(lambda part: part.to(*args, **kwargs))

    def detach(self) -> Self:
        """The same numbers, detached from the graph."""
        return self._map(Tensor.detach)

    @property
    def device(self) -> torch.device:
        return self._parts()[0].device

    def __len__(self) -> int:
        return len(self._parts()[0])

    def _parts(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(*map(function, self._parts()))

    def _with(self, *parts: Tensor) -> Self:
        kind: Callable[..., Self] = type(self)
        return kind(*parts)

    def _expect(self, *dimensions: int) -> None:
        """Refuse factors of the wrong rank or of different lengths; broadcasting would hide the mistake."""
        parts = self._parts()
        if tuple(part.ndim for part in parts) != dimensions or len({len(part) for part in parts}) != 1:
            shapes = ", ".join(f"{field.name} {tuple(part.shape)}" for field, part in zip(fields(self), parts, strict=True))
            raise ValueError(f"{type(self).__name__} needs factors of {dimensions} dimensions and one first size, not {shapes}")


@dataclass(frozen=True, eq=False)
class Full(Delta):
    """ΔW as full matrices.

    Args:
        weight: ``(N, O, I)``.
    """

    weight: Tensor

    def __post_init__(self) -> None:
        self._expect(3)

    def _shift(self, positions: Tensor) -> Tensor:
        return torch.bmm(positions, self.weight.mT)

    def matrix(self) -> Tensor:
        return self.weight

    def norm(self) -> Tensor:
        return self.weight.flatten(1).norm(dim=1)

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[1], self.weight.shape[2]


@dataclass(frozen=True, eq=False)
class RankOne(Delta):
    """ΔW = u aᵀ: the result of gradient descent where a layer sees one input vector ``a`` per sample.

    Args:
        u: ``(N, O)``.
        a: ``(N, I)``.
    """

    u: Tensor
    a: Tensor

    def __post_init__(self) -> None:
        self._expect(2, 2)

    def _shift(self, positions: Tensor) -> Tensor:
        return torch.bmm(positions, self.a.unsqueeze(2)) * self.u.unsqueeze(1)

    def matrix(self) -> Tensor:
        return self.u.unsqueeze(2) * self.a.unsqueeze(1)

    def norm(self) -> Tensor:
        return self.u.norm(dim=1) * self.a.norm(dim=1)

    @property
    def shape(self) -> tuple[int, int]:
        return self.u.shape[1], self.a.shape[1]


def concatenate(deltas: Sequence[Delta]) -> Delta:
    """The deltas of several batches as one. All must be of one class and one layer.

    Raises:
        ValueError: if there are none, or of different kinds.
    """
    kinds = {type(delta) for delta in deltas}
    if len(kinds) != 1:
        raise ValueError(f"cannot concatenate {', '.join(sorted(kind.__name__ for kind in kinds)) or 'no deltas'}")
    parts = zip(*(delta._parts() for delta in deltas), strict=True)
    return kinds.pop()(*(torch.cat(part) for part in parts))


class Form(nn.Module):
    """A code of ΔW for a layer of ``shape`` (O, I). What a form learns is in its ``state_dict``, and follows ``.to(device)``.

    Attributes:
        name: the value of ``ocd.form`` that asks for it.
        label: the name in tables.
        fitted: whether it is fitted to overfitted weight changes (:meth:`fit`), or needs only the layer's shape (:meth:`of`).
        size: K, the length of a code.
        shape: (O, I).
    """

    name: ClassVar[str]
    label: ClassVar[str] = "form"
    fitted: ClassVar[bool] = False
    size: int
    shape: tuple[int, int]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        FORMS[cls.name] = cls

    def __init__(self, shape: tuple[int, int], size: int) -> None:
        super().__init__()
        if size < 1 or size > shape[0] * shape[1]:
            raise ValueError(f"a code of {size} numbers cannot stand for a weight change of shape {tuple(shape)}")
        self.shape, self.size = (int(shape[0]), int(shape[1])), int(size)

    @classmethod
    def of(cls, shape: tuple[int, int], components: int) -> Form:
        """The form for a layer of ``shape``; ``components`` is the setting ``ocd.basis``."""
        raise NotImplementedError

    @classmethod
    def fit(cls, delta: Delta, components: int) -> Form:
        """The form fitted to M training weight changes, where ``fitted`` is true."""
        raise NotImplementedError

    def project(self, matrices: Tensor) -> Tensor:
        """Codes ``(N, K)`` of weight changes ``(N, O x I)``, where ``fitted`` is true: the trace is not needed then."""
        raise NotImplementedError

    @abstractmethod
    def encode(self, delta: Delta, trace: Trace) -> Tensor:
        """Codes ``(N, K)`` of the weight changes nearest to ``delta`` that this form can express."""

    @abstractmethod
    def decode(self, code: Tensor, trace: Trace) -> Delta:
        """The weight changes of codes ``(N, K)``, differentiable in ``code``; ``trace`` is of the same N samples."""

    def refusal(self, trace: Trace) -> str | None:
        """Why this form cannot be used on such a trace, or None."""
        return None

    def energy(self, delta: Delta, trace: Trace) -> Tensor:
        """Fraction ``(N,)`` of each sample's ‖ΔW‖² that is left after encoding and decoding; 1 where ΔW is zero."""
        total = delta.norm().square()
        kept = self.decode(self.encode(delta, trace), trace).norm().square()
        return torch.where(total > 0, kept / total.clamp_min(torch.finfo(total.dtype).tiny), torch.ones_like(total)).clamp(0, 1)

    def describe(self) -> str:
        """The name in tables, for example ``rank-one (84)``."""
        return f"{self.label} ({self.size})"


class FullForm(Form):
    """Every number of ΔW: K = O x I."""

    name = label = "full"

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(shape, shape[0] * shape[1])

    @classmethod
    def of(cls, shape: tuple[int, int], components: int) -> FullForm:
        return cls(shape)

    def encode(self, delta: Delta, trace: Trace) -> Tensor:
        return delta.matrix().flatten(1)

    def decode(self, code: Tensor, trace: Trace) -> Delta:
        return Full(code.reshape(len(code), *self.shape))


class RankOneForm(Form):
    """ΔW = r aᵀ / ‖a‖². The layer's input a is known at test time, so only r = ΔW a is predicted: K = O.

    Exact for SGD on a layer of one position per sample. Any other ΔW is projected. The projection keeps the change r of the
    layer's response to the sample itself, even where it loses energy of ΔW. Where a is zero, ΔW is zero.
    """

    name = label = "rank-one"

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(shape, shape[0])

    @classmethod
    def of(cls, shape: tuple[int, int], components: int) -> RankOneForm:
        return cls(shape)

    def refusal(self, trace: Trace) -> str | None:
        return None if trace.single else f"the layer sees {trace.response.shape[1]} positions per sample, and one is needed"

    def encode(self, delta: Delta, trace: Trace) -> Tensor:
        return delta.shift(usable(self, trace).positions)[:, 0]

    def decode(self, code: Tensor, trace: Trace) -> Delta:
        a = usable(self, trace).positions[:, 0]
        square = a.square().sum(1, keepdim=True)
        return RankOne(torch.where(square > 0, code / square.clamp_min(torch.finfo(square.dtype).tiny), 0.0), a)


class BasisForm(Form):
    """Coordinates along the first ``components`` principal directions of training ΔW's.

    The directions are not centred, so that ΔW = 0 has code 0 and a scaled ΔW the scaled code.
    """

    name = label = "basis"
    fitted = True
    basis: Tensor

    def __init__(self, shape: tuple[int, int], components: int) -> None:
        super().__init__(shape, components)
        self.register_buffer("basis", torch.zeros(components, *self.shape))

    @classmethod
    def fit(cls, delta: Delta, components: int) -> BasisForm:
        """The orthonormal directions of largest energy of M training ΔW's.

        They are found in float64 from the smaller Gram matrix, which has min(M, O x I) rows. The ``(M, O x I)`` matrix must fit
        into memory.

        Raises:
            ValueError: for more than min(M, O x I) components, or none.
        """
        flat = delta.matrix().flatten(1).double()  # (M, O x I)
        if not 1 <= components <= min(flat.shape):
            raise ValueError(f"{components} components of {len(flat)} weight changes with {flat.shape[1]} numbers each")
        if len(flat) <= flat.shape[1]:
            rows = leading(flat @ flat.T, components).T @ flat  # (K, O x I)
            rows = torch.linalg.qr(rows.T).Q.T  # orthonormal also where the changes span fewer directions than asked for
        else:
            rows = leading(flat.T @ flat, components).T  # (K, O x I)
        form = cls(delta.shape, components).to(delta.matrix())
        form.basis.copy_((rows * signs(rows)).reshape(form.basis.shape))
        return form

    def encode(self, delta: Delta, trace: Trace) -> Tensor:
        return self.project(delta.matrix().flatten(1))

    def project(self, matrices: Tensor) -> Tensor:
        return matrices @ self.basis.flatten(1).T.to(matrices)

    def decode(self, code: Tensor, trace: Trace) -> Delta:
        return Full((code @ self.basis.flatten(1)).reshape(len(code), *self.shape))


class LearnedBasisForm(BasisForm):
    """Coordinates along ``components`` directions that are trained with the hypernetwork, from the principal directions on.

    Encoding uses the fixed principal directions, so that the training targets stay the same. Decoding uses the trained
    ``directions``, which follow the task's own loss. Beyond the paper.
    """

    name = "learned"
    label = "learned basis"

    def __init__(self, shape: tuple[int, int], components: int) -> None:
        super().__init__(shape, components)
        self.directions = nn.Parameter(torch.zeros(components, *self.shape))

    @classmethod
    def fit(cls, delta: Delta, components: int) -> LearnedBasisForm:
        """Start at the principal directions of M training ΔW's; see :meth:`BasisForm.fit`."""
        form = super().fit(delta, components)
        assert isinstance(form, LearnedBasisForm)
        with torch.no_grad():
            form.directions.copy_(form.basis)
        return form

    def decode(self, code: Tensor, trace: Trace) -> Delta:
        return Full((code @ self.directions.flatten(1)).reshape(len(code), *self.shape))


def usable(form: Form, trace: Trace) -> Trace:
    """The trace.

    Raises:
        ValueError: if the form cannot be used on it.
    """
    if reason := form.refusal(trace):
        raise ValueError(f"{form.describe()} form: {reason}")
    return trace


def leading(gram: Tensor, count: int) -> Tensor:
    """Eigenvectors ``(..., D, count)`` of the largest eigenvalues of a symmetric matrix, largest first."""
    return torch.linalg.eigh(gram).eigenvectors.flip(-1)[..., :count]


def signs(rows: Tensor) -> Tensor:
    """Signs ``(..., K, 1)`` that make the largest entry of each of K rows positive, as the signs are arbitrary."""
    largest = rows.abs().argmax(-1, keepdim=True)
    return rows.gather(-1, largest).sign()
