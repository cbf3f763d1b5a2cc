"""The task's own loss of predicted weight changes, taken through the base: what an overfitted ΔW is wanted for.

Imitating ΔW_s treats all its numbers alike, and a sample's ΔW_s is one of many that would serve. The loss of the base with the
predicted change in it knows which errors count. This goes beyond the paper, whose hypernetwork only imitates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_bench.engine.deltas import Delta
from ocd_bench.engine.forms import Form
from ocd_bench.engine.layer import TargetLayer, Trace
from ocd_bench.engine.overfit import Loss, losses


@dataclass(frozen=True)
class Through:
    """The mean of the task's loss over samples, in units of ``unit``.

    Attributes:
        pieces: traces of the first samples of a batch in turn (or of all N), each with its targets.
    """

    layer: TargetLayer
    loss: Loss
    pieces: Sequence[tuple[Trace, Tensor]]
    unit: float = 1.0

    def of_codes(self, codes: Tensor, form: Form) -> Tensor:
        """Of codes ``(D, N, K)`` in the base's weights, the mean also over draws: a scalar, differentiable in them.

        Gradients are taken piece by piece and draw by draw, so that only one piece's run through the base is in memory at a
        time. What the form itself learns gets its gradients on the way, when the value is computed.
        """
        leaf = codes.detach().requires_grad_(torch.is_grad_enabled())
        total = torch.zeros((), device=codes.device)
        for rows, trace, targets in self._rows():
            for draw in leaf:
                output = self.layer.forward(trace, form.decode(draw[rows], trace))
                part = self.loss(output, targets).sum() / (self.unit * len(leaf) * self._count)
                if leaf.requires_grad:
                    part.backward()
                total += part.detach()
        if leaf.grad is None:
            return total
        # The gradient found above, handed on to whatever made the codes; the value added is zero.
        return total + ((codes - codes.detach()) * leaf.grad).sum()

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """Of other outputs ``(N, D)`` than the base's: a scalar."""
        parts = [self.loss(outputs[rows].reshape(trace.output.shape), y).sum() for rows, trace, y in self._rows()]
        return torch.stack(parts).sum() / (self.unit * self._count)

    @property
    def _count(self) -> int:
        return sum(len(trace) for trace, _ in self.pieces)

    def _rows(self) -> Iterator[tuple[slice, Trace, Tensor]]:
        start = 0
        for trace, targets in self.pieces:
            yield slice(start, start + len(trace)), trace, targets
            start += len(trace)


def overfitting_gains(layer: TargetLayer, loss: Loss, deltas: Iterable[tuple[Trace, Tensor, Delta]]) -> float:
    """How much overfitting lowers the task's loss, mean over the samples; 1 where it does not.

    Args:
        deltas: traces, targets and overfitted ΔW, as :meth:`ocd_bench.engine.targets.Overfitter.deltas` gives them.
    """
    gained, count = 0.0, 0
    for trace, targets, delta in deltas:
        gained += float((losses(layer, trace, targets, loss) - losses(layer, trace, targets, loss, delta)).sum())
        count += len(trace)
    return gained / count if gained > 0 else 1.0
