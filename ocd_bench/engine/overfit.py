"""Overfitting one layer, or all of them, to each sample on its own: the targets OCD learns, and the oracle rows of the table.

All samples of a batch are overfitted at once. The sum of the per-sample losses is minimised: sample s's loss depends on its own
ΔW_s alone, so each gets its own gradient, and the optimizers, which work element by element, keep the samples apart. The result
is that of a loop which fine-tunes a copy of the model on one sample after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ocd_bench.engine.deltas import Delta, Full, RankOne
from ocd_bench.engine.layer import TargetLayer, Trace, close
from ocd_bench.engine.replay import quiet

Loss = Callable[[Tensor, Tensor], Tensor]
"""Function of outputs and targets ``(N, ...)`` giving per-sample losses ``(N,)``."""

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


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


def overfit(layer: TargetLayer, trace: Trace, targets: Tensor, loss: Loss, how: Overfit) -> Delta:
    """ΔW_s of every sample of the trace after ``how.steps`` steps on its own loss; the bias stays (as in the paper's code).

    Where the layer sees one position a per sample, every gradient is an outer product δ aᵀ, so SGD gives u aᵀ exactly and
    needs δ only: the result is :class:`RankOne`. Else it is :class:`Full`. Nothing below the layer is run, forward or back.
    Memory: N x O x I numbers for Full (three times that with Adam) and the layer's positions; batch accordingly.

    Returns:
        The deltas, without gradient history; pass them to :func:`losses` for what they achieve.
    """
    rank_one = trace.single and how.optimizer == "sgd"
    outputs, columns = layer.shape
    with torch.inference_mode(False), torch.enable_grad():
        change = layer.weight.new_zeros(len(trace), outputs, *(() if rank_one else (columns,)))
        optimizer = OPTIMIZERS[how.optimizer]([change], lr=how.lr)
        for _ in range(how.steps):
            delta = RankOne(change, trace.positions[:, 0]) if rank_one else Full(change)
            shift = delta.shift(trace.positions).requires_grad_()
            (slope,) = torch.autograd.grad(loss(layer.replay(trace, shift), targets).sum(), shift)
            change.grad = slope[:, 0] if rank_one else torch.bmm(slope.mT, trace.positions)
            optimizer.step()
    change.grad = None
    return RankOne(change, trace.positions[:, 0]) if rank_one else Full(change)


def losses(layer: TargetLayer, trace: Trace, targets: Tensor, loss: Loss, delta: Delta | None = None) -> Tensor:
    """Per-sample losses ``(N,)`` with W + ΔW_s, or of the base where ``delta`` is None; without gradients."""
    with torch.no_grad():
        return loss(trace.output if delta is None else layer.forward(trace, delta), targets)


def overfit_all(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Loss,
    how: Overfit,
    names: Sequence[str] | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Outputs ``(N, ...)`` of the model after overfitting all of it to each sample alone (the ``oracle-all`` row).

    Args:
        names: the modules whose parameters are tuned, biases and norms included; None for every parameter of the model.
        chunk: samples at a time; by default as many as keep parameters, gradients and optimizer state under 64 MB (float32).

    The parameters of a chunk are stacked and the model is vectorised over them by :func:`torch.func.vmap`. Where that cannot
    (recurrent layers, Python control flow on values) or does not give the model's own output, samples are taken one by one.

    Raises:
        ValueError: for a name that is no module of the model, or if there is no parameter to tune.
    """
    parameters = _parameters(model, names)
    with quiet(model), torch.inference_mode(False):
        vectorised = _vectorises(model, parameters, inputs[:2])
        size = sum(parameter.numel() for parameter in parameters.values())
        chunk = (chunk or max(1, _STATE_NUMBERS // (4 * size))) if vectorised else 1
        pieces = zip(inputs.split(chunk), targets.split(chunk), strict=True)
        return torch.cat([_overfit_chunk(model, parameters, x, y, loss, how, vectorised) for x, y in pieces])


_STATE_NUMBERS = 2**24


def _overfit_chunk(
    model: nn.Module, parameters: dict[str, Tensor], x: Tensor, y: Tensor, loss: Loss, how: Overfit, vectorised: bool
) -> Tensor:
    stacked = {name: _stack(parameter, len(x)).requires_grad_() for name, parameter in parameters.items()}
    optimizer = OPTIMIZERS[how.optimizer](stacked.values(), lr=how.lr)
    with torch.enable_grad():
        for _ in range(how.steps):
            total = loss(_outputs(model, stacked, x, vectorised), y).sum()
            slopes = torch.autograd.grad(total, list(stacked.values()), allow_unused=True)
            for parameter, slope in zip(stacked.values(), slopes, strict=True):
                parameter.grad = slope
            optimizer.step()
    with torch.no_grad():
        return _outputs(model, stacked, x, vectorised)


def _parameters(model: nn.Module, names: Sequence[str] | None) -> dict[str, Tensor]:
    modules = dict(model.named_modules())
    if unknown := [name for name in names or () if name not in modules]:
        raise ValueError(f"no module {unknown[0]!r} in the model")
    chosen = None if names is None else {id(p) for name in names for p in modules[name].parameters()}
    parameters = {key: p.detach() for key, p in model.named_parameters() if chosen is None or id(p) in chosen}
    if not parameters:
        raise ValueError("the model has no parameter to tune" if names is None else f"no parameter in {', '.join(names)}")
    return parameters


def _stack(parameter: Tensor, samples: int) -> Tensor:
    return parameter.unsqueeze(0).repeat(samples, *(1,) * parameter.ndim)


def _outputs(model: nn.Module, stacked: dict[str, Tensor], x: Tensor, vectorised: bool) -> Tensor:
    """Row s is the model's output for sample s with the s-th set of parameters."""
    if not vectorised:
        return functional_call(model, {name: parameter[0] for name, parameter in stacked.items()}, (x,))

    def one(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(model, parameters, (row.unsqueeze(0),)).squeeze(0)

    return vmap(one)(stacked, x)


def _vectorises(model: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> bool:
    """Whether vmap over stacked parameters works for this model and agrees with it."""
    stacked = {name: _stack(parameter, len(x)) for name, parameter in parameters.items()}
    with torch.no_grad():
        expected = model(x)
        try:
            found = _outputs(model, stacked, x, True)
        except (RuntimeError, ValueError):  # what vmap raises for operations without a batching rule, or for control flow
            return False
    return found.shape == expected.shape and close(expected, found)
