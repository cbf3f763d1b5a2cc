"""Stage 2, overfit: the weight changes that fit one layer to each sample on its own. OCD learns them; the oracle applies them.

All samples of a batch are overfitted at once. The sum of the per-sample losses is minimised. The loss of sample s depends on
its own ΔW_s alone, so every sample gets its own gradient, and the optimizers work element by element. The result is that of a
loop which fine-tunes a copy of the model on one sample after another (paper section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ocd_bench.engine.apply import apply
from ocd_bench.engine.capture import TargetLayer, Trace
from ocd_bench.engine.forms import Delta, Full, RankOne
from ocd_bench.engine.problem import Loss
from ocd_bench.errors import UsageError
from ocd_bench.heap import trim

if TYPE_CHECKING:
    from ocd_bench.engine.settings import OCDSettings

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
BETAS = 0.9, 0.999
BLOCK = 2**17
"""Numbers of ΔW that are updated at a time by Adam on one position: half a megabyte."""


@dataclass(frozen=True)
class Overfit:
    """How a sample is overfitted: ``steps`` full steps of plain SGD, or of Adam (β 0.9 and 0.999, ε 1e-8), from the base.

    Raises:
        ValueError: for an unknown optimizer, a learning rate that is not positive, or a negative number of steps.
    """

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 1e-2
    steps: int = 3

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}; known: {', '.join(OPTIMIZERS)}")
        if not self.lr > 0 or self.steps < 0:
            raise ValueError(f"lr must be positive and steps not negative, not {self.lr} and {self.steps}")

    @classmethod
    def of(cls, settings: OCDSettings) -> Overfit:
        """The overfitting part of the settings."""
        return cls(settings.overfit_optimizer, settings.overfit_lr, settings.overfit_steps)  # type: ignore[arg-type]


def overfit(layer: TargetLayer, trace: Trace, targets: Tensor, loss: Loss, how: Overfit) -> Delta:
    """ΔW_s of every sample of the trace after ``how.steps`` steps on its own loss. The bias stays, as in the paper's code.

    Where the layer sees one position a per sample, every gradient is an outer product δ aᵀ. SGD then gives u aᵀ exactly, and
    only δ is computed: the result is a :class:`RankOne`. Otherwise it is a :class:`Full`. Nothing below the layer is run. Where
    the layer runs several times, the gradient goes back through all its calls, as through time.
    Memory: N x O x I numbers for Full (three times that with Adam) and the layer's positions; batch accordingly.

    Args:
        targets: of the N samples, on the layer's device.
        loss: per-sample losses ``(N,)`` of outputs and targets.

    Returns:
        The weight changes, without gradient history.
    """
    rank_one = trace.single and how.optimizer == "sgd"
    if trace.single and how.optimizer == "adam":
        return _adam_on_one_position(layer, trace, targets, loss, how)
    outputs, columns = layer.shape
    with torch.inference_mode(False), torch.enable_grad():
        # u (N, O), or ΔW (N, O, I)
        change = layer.weight.new_zeros(len(targets), outputs, *(() if rank_one else (columns,)))
        optimizer = OPTIMIZERS[how.optimizer]([change], lr=how.lr)
        for _ in range(how.steps):
            if trace.repeated:
                leaf = change.detach().requires_grad_()
                (change.grad,) = torch.autograd.grad(loss(apply(trace, Full(leaf)), targets).sum(), leaf)
            else:
                delta = RankOne(change, trace.positions[:, 0]) if rank_one else Full(change)
                shift = delta.shift(trace.positions).requires_grad_()  # (N, P, O)
                (slope,) = torch.autograd.grad(loss(trace.replay(shift), targets).sum(), shift)
                change.grad = slope[:, 0] if rank_one else torch.bmm(slope.mT, trace.positions)
                del shift, slope  # as large as the layer's response: not beside the next step's
            optimizer.step()
    change.grad = None
    return RankOne(change, trace.positions[:, 0]) if rank_one else Full(change)


@torch.inference_mode(False)
def _adam_on_one_position(layer: TargetLayer, trace: Trace, targets: Tensor, loss: Loss, how: Overfit) -> Full:
    """Adam where every gradient is an outer product δ aᵀ with the same a.

    Both moments are then outer products too: (mean of δ) aᵀ and (mean of δ²) (a²)ᵀ, so that only their factors of O numbers are
    kept. The update is none, because of ε, and is added to ΔW in place, block by block, so that a block stays in the cache.
    """
    a = trace.positions[:, 0]  # (N, I)
    size, (beta1, beta2), epsilon = a.abs(), BETAS, 1e-8
    first = second = a.new_zeros(len(targets), layer.shape[0])  # (N, O)
    change = a.new_zeros(len(targets), *layer.shape)  # (N, O, I)
    rows = max(1, BLOCK // (layer.shape[0] * layer.shape[1]))
    for step in range(1, how.steps + 1):
        with torch.enable_grad():
            shift = torch.bmm(trace.positions, change.mT).requires_grad_()  # (N, 1, O)
            (slope,) = torch.autograd.grad(loss(trace.replay(shift), targets).sum(), shift)
        with torch.no_grad():
            first = beta1 * first + (1 - beta1) * slope[:, 0]
            second = beta2 * second + (1 - beta2) * slope[:, 0].square()
            move = -how.lr / (1 - beta1**step) * first
            spread = (second / (1 - beta2**step)).sqrt()
            parts = (tensor.split(rows) for tensor in (change, move, spread, a, size))
            for own, up, down, along, long in zip(*parts, strict=True):
                below = torch.baddbmm(own.new_tensor(epsilon), down.unsqueeze(2), long.unsqueeze(1))
                own.addcdiv_(up.unsqueeze(2) * along.unsqueeze(1), below)
    return Full(change)


def overfitted(
    layer: TargetLayer, inputs: Tensor, targets: Tensor, loss: Loss, how: Overfit
) -> Iterator[tuple[Trace, Tensor, Delta]]:
    """Trace, targets and overfitted ΔW of samples ``(N, ...)`` from any device, in chunks that memory allows.

    Raises:
        UsageError: if overfitting diverges.
    """
    for trace, answers in layer.pairs(inputs, targets):
        delta = overfit(layer, trace, answers, loss, how)
        bad = int((~delta.norm().isfinite()).sum())
        if bad:
            raise UsageError(
                f"overfitting ({how.optimizer}, learning rate {how.lr:g}, {how.steps} steps) diverges for "
                f"{bad} of {len(answers)} samples; lower the learning rate (overfit_lr)"
            )
        yield trace, answers, delta
        del trace, answers, delta  # not while the next trace is made
        trim()


def losses(trace: Trace, targets: Tensor, loss: Loss, delta: Delta | None = None) -> Tensor:
    """Per-sample losses ``(N,)`` with W + ΔW_s, or of the base where ``delta`` is None; without gradients."""
    with torch.no_grad():
        return loss(trace.output if delta is None else apply(trace, delta), targets)
