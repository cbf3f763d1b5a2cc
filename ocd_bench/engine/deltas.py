"""What a per-sample weight change ΔW_s can be: a full matrix, a product of thin factors, or one outer product.

Every kind answers the same questions; which one it is matters for memory and speed only. Shapes: N samples, P positions
per sample, a layer of O outputs and I inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Delta(ABC):
    """A weight change for each of N samples. The first field is the one a scale multiplies; all have N rows."""

    @abstractmethod
    def shift(self, positions: Tensor) -> Tensor:
        """What ΔW adds to the layer's response: ``positions @ ΔWᵀ``, ``(N, P, I) -> (N, P, O)``."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """ΔW written out, ``(N, O, I)``."""

    @abstractmethod
    def norm(self) -> Tensor:
        """Frobenius norm of each sample's ΔW, ``(N,)``."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """``(O, I)``."""

    def scaled(self, scale: Tensor) -> Self:
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
        """The same numbers without their history."""
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
        """Refuse factors of the wrong rank or of different lengths, which broadcasting would hide."""
        parts = self._parts()
        if tuple(part.ndim for part in parts) != dimensions or len({len(part) for part in parts}) != 1:
            shapes = ", ".join(f"{field.name} {tuple(part.shape)}" for field, part in zip(fields(self), parts, strict=True))
            raise ValueError(f"{type(self).__name__} needs factors of {dimensions} dimensions and one first size, not {shapes}")


@dataclass(frozen=True, eq=False)
class Full(Delta):
    """ΔW as it is.

    Args:
        weight: ``(N, O, I)``.
    """

    weight: Tensor

    def __post_init__(self) -> None:
        self._expect(3)

    def shift(self, positions: Tensor) -> Tensor:
        return torch.bmm(positions, self.weight.mT)

    def matrix(self) -> Tensor:
        return self.weight

    def norm(self) -> Tensor:
        return self.weight.flatten(1).norm(dim=1)

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[1], self.weight.shape[2]


@dataclass(frozen=True, eq=False)
class LowRank(Delta):
    """ΔW = left · rightᵀ, of rank R at most.

    Args:
        left: ``(N, O, R)``.
        right: ``(N, I, R)``.
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        self._expect(3, 3)

    def shift(self, positions: Tensor) -> Tensor:
        return torch.bmm(torch.bmm(positions, self.right), self.left.mT)

    def matrix(self) -> Tensor:
        return torch.bmm(self.left, self.right.mT)

    def norm(self) -> Tensor:
        # ‖L Rᵀ‖² = <LᵀL, RᵀR>: R × R instead of O × I numbers.
        grams = torch.bmm(self.left.mT, self.left) * torch.bmm(self.right.mT, self.right)
        return grams.sum((1, 2)).clamp_min(0).sqrt()

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[1], self.right.shape[1]


@dataclass(frozen=True, eq=False)
class RankOne(Delta):
    """ΔW = u aᵀ: what gradient descent gives where a layer sees one input vector ``a`` per sample.

    Args:
        u: ``(N, O)``.
        a: ``(N, I)``.
    """

    u: Tensor
    a: Tensor

    def __post_init__(self) -> None:
        self._expect(2, 2)

    def shift(self, positions: Tensor) -> Tensor:
        return torch.bmm(positions, self.a.unsqueeze(2)) * self.u.unsqueeze(1)

    def matrix(self) -> Tensor:
        return self.u.unsqueeze(2) * self.a.unsqueeze(1)

    def norm(self) -> Tensor:
        return self.u.norm(dim=1) * self.a.norm(dim=1)

    @property
    def shape(self) -> tuple[int, int]:
        return self.u.shape[1], self.a.shape[1]


def concatenate(deltas: Sequence[Delta]) -> Delta:
    """The deltas of several batches as one; all must be of one kind and layer.

    Raises:
        ValueError: if there are none, or of different kinds.
    """
    kinds = {type(delta) for delta in deltas}
    if len(kinds) != 1:
        raise ValueError(f"cannot concatenate {', '.join(sorted(kind.__name__ for kind in kinds)) or 'no deltas'}")
    parts = zip(*(delta._parts() for delta in deltas), strict=True)
    return kinds.pop()(*(torch.cat(part) for part in parts))
