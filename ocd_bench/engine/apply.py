"""Stage 6, apply: the base with every sample's own ΔW in it, for predictions and for the task's loss of predicted ΔW.

Imitation treats all numbers of ΔW_s alike, although many other ΔW would serve the sample as well. The task's loss of the base
with the predicted change knows which errors count. Training on it goes beyond the paper, whose hypernetwork only imitates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocd_bench.engine.capture import Trace
from ocd_bench.engine.forms import Delta, Form
from ocd_bench.engine.problem import Combine, Loss


def apply(trace: Trace, delta: Delta) -> Tensor:
    """Output of the base with W + ΔW_s for every sample s of the trace, ``(N, ...)``, differentiable in ``delta``.

    Raises:
        ValueError: if ``delta`` is of another number of samples or another shape.
    """
    return trace.respond(delta.shift)


def combined(trace: Trace, deltas: Sequence[Delta], factor: float | Tensor, combine: Combine) -> Tensor:
    """Outputs ``(N, ...)`` with the weight changes of D draws times a factor, combined over the draws.

    Args:
        factor: a number, or ``(N,)`` for one per sample. The number 0 gives the base's own output.
    """
    if isinstance(factor, float) and factor == 0:
        return trace.output
    outputs = [apply(trace, delta.scaled(factor)) for delta in deltas]
    return outputs[0] if len(outputs) == 1 else combine(torch.stack(outputs))


@dataclass(frozen=True)
class TaskLoss:
    """The mean of the task's loss over samples, in units of ``unit``.

    Attributes:
        pieces: traces of the first samples of a batch in turn (or of all N), each with its targets.
    """

    loss: Loss
    pieces: Sequence[tuple[Trace, Tensor]]
    unit: float = 1.0

    def of_codes(self, codes: Tensor, form: Form) -> Tensor:
        """Of codes ``(D, N, K)`` in the base's weights, the mean also over draws: a scalar.

        Differentiable in the codes and in what the form learns. The base runs piece by piece and draw by draw, forward and
        back, so that only one run is in memory at a time.
        """
        return _Piecewise.apply(self, form, codes, torch.is_grad_enabled(), *form.parameters())

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """Of other outputs ``(N, D)`` than the base's: a scalar."""
        parts = [self.loss(outputs[rows].reshape(trace.output.shape), y).sum() for rows, trace, y in self.rows()]
        return torch.stack(parts).sum() / (self.unit * self.count)

    @property
    def count(self) -> int:
        """Samples that have a trace."""
        return sum(len(targets) for _, targets in self.pieces)

    def rows(self) -> Iterator[tuple[slice, Trace, Tensor]]:
        """The rows of each piece in the batch, its trace and its targets."""
        start = 0
        for trace, targets in self.pieces:
            yield slice(start, start + len(targets)), trace, targets
            start += len(targets)


class _Piecewise(torch.autograd.Function):
    """The value of :meth:`TaskLoss.of_codes`; its gradients are found piece by piece in the forward pass."""

    @staticmethod
    def forward(ctx: Any, task: TaskLoss, form: Form, codes: Tensor, gradients: bool, *learned: Tensor) -> Tensor:
        leaf = codes.detach().requires_grad_(gradients)
        wanted = [leaf, *(parameter for parameter in learned if parameter.requires_grad)]
        sums: list[Tensor | None] = [None] * len(wanted)
        total = torch.zeros((), device=codes.device)
        count = task.count
        for rows, trace, targets in task.rows():
            for draw in range(len(codes)):
                with torch.set_grad_enabled(gradients):
                    output = apply(trace, form.decode(leaf[draw][rows], trace))
                    part = task.loss(output, targets).sum() / (task.unit * len(codes) * count)
                if gradients:
                    slopes = torch.autograd.grad(part, wanted, allow_unused=True)
                    sums = [b if a is None else a if b is None else a + b for a, b in zip(sums, slopes, strict=True)]
                total += part.detach()
        rest = iter(sums[1:])
        ctx.slopes = (sums[0], *(next(rest) if parameter.requires_grad else None for parameter in learned))
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        codes, *learned = (None if own is None else own * slope for own in ctx.slopes)
        return None, None, codes, None, *learned
