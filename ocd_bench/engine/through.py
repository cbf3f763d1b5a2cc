"""The task's own loss of predicted weight changes, taken through the base: what an overfitted ΔW is wanted for.

Imitating ΔW_s treats all its numbers alike, and a sample's ΔW_s is one of many that would serve. The loss of the base with the
predicted change in it knows which errors count. This goes beyond the paper, whose hypernetwork only imitates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ocd_bench.engine.deltas import Delta
from ocd_bench.engine.forms import Form
from ocd_bench.engine.layer import TargetLayer, Trace
from ocd_bench.engine.overfit import Loss, losses

Through = Callable[[Tensor], Tensor]
"""Loss of codes ``(D, N, K)``, a scalar, differentiable in them."""


def through_base(
    layer: TargetLayer, loss: Loss, form: Form, pieces: Sequence[tuple[Trace, Tensor]], unit: float = 1.0
) -> Through:
    """The mean of the task's loss over samples and draws, in units of ``unit``, as a function of codes.

    Gradients are taken piece by piece and draw by draw, so that only one piece's run through the base is in memory at a time.

    Args:
        pieces: traces of the first samples in turn (or of all N), each with its targets.
    """
    count = sum(len(trace) for trace, _ in pieces)

    def value(codes: Tensor) -> Tensor:
        leaf = codes.detach().requires_grad_(torch.is_grad_enabled())
        total, start = torch.zeros((), device=codes.device), 0
        for trace, targets in pieces:
            rows = slice(start, start + len(trace))
            for draw in leaf:
                output = layer.forward(trace, form.decode(draw[rows], trace))
                part = loss(output, targets).sum() / (unit * len(leaf) * count)
                if leaf.requires_grad:
                    part.backward()
                total += part.detach()
            start = rows.stop
        if leaf.grad is None:
            return total
        # The gradient found above, handed on to whatever made the codes; the value added is zero.
        return total + ((codes - codes.detach()) * leaf.grad).sum()

    return value


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
