"""Every parameter of a model, overfitted to each sample on its own: the ``oracle-all`` row."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ocd_bench.engine._replay import quiet
from ocd_bench.engine.capture import close
from ocd_bench.engine.overfit import OPTIMIZERS, Overfit
from ocd_bench.engine.problem import Loss

_STATE_NUMBERS = 2**24


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

    return quiet_vmap(one)(stacked, x)


def quiet_vmap(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``torch.func.vmap`` without its warning that an operation (a recurrent cell) is computed sample by sample."""

    def mapped(*arguments: Any) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "There is a performance drop because we have not yet implemented the batching rule"
            )
            return vmap(function)(*arguments)

    return mapped


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
