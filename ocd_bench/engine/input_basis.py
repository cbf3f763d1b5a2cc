"""A form of ΔW on the singular vectors of each sample's own positions. ``ocd.form=auto`` may choose it; no preset names it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_bench.engine.capture import Trace
from ocd_bench.engine.forms import Delta, Form, leading, signs, usable


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

    def _shift(self, positions: Tensor) -> Tensor:
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


class InputBasisForm(Form):
    """ΔW on the first ``rank`` right singular vectors V of the sample's own positions: code ΔW V, K = O x rank.

    Gradients lie in the span of the positions, so rank = min(P, I) loses nothing of SGD. V is known at test time. The largest
    entry of each vector is positive; vectors of equal singular values are arbitrary among themselves.
    """

    name = label = "input-basis"

    def __init__(self, shape: tuple[int, int], rank: int) -> None:
        super().__init__(shape, shape[0] * rank)
        self.rank = rank

    @classmethod
    def of(cls, shape: tuple[int, int], components: int) -> InputBasisForm:
        return cls(shape, min(components, shape[1]))

    def refusal(self, trace: Trace) -> str | None:
        limit = min(trace.positions.shape[1:])
        return None if self.rank <= limit else f"rank {self.rank} exceeds the {limit} directions of a sample's positions"

    def encode(self, delta: Delta, trace: Trace) -> Tensor:
        # ΔW V: the layer's response to the vectors of V
        return delta.shift(self._vectors(trace).mT).mT.flatten(1)

    def decode(self, code: Tensor, trace: Trace) -> Delta:
        return LowRank(code.reshape(len(code), self.shape[0], self.rank), self._vectors(trace))

    def _vectors(self, trace: Trace) -> Tensor:
        """V, ``(N, I, rank)``."""
        positions = usable(self, trace).positions
        if positions.shape[1] > positions.shape[2]:
            # I x I: P can be a hundred thousand
            vectors = leading(torch.bmm(positions.mT, positions).double(), self.rank).to(positions.dtype)
        else:
            vectors = torch.linalg.svd(positions, full_matrices=False).Vh[:, : self.rank].mT
        return vectors * signs(vectors.mT).mT
