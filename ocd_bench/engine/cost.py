"""What a fit costs, counted and not timed: in samples that run through the base, forward and back.

The unit of the count is a multiplication of a weight layer (Linear, Conv, recurrent). A pass back counts twice as much as a
pass forward. Rounding is upwards: where only the part of the base above the layer runs, the whole base is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ocd_bench.engine.learn import Trainee
from ocd_bench.engine.ocd import FittedOCD, LossSettings, losses
from ocd_bench.engine.targets import Targets, validation_samples
from ocd_bench.seeds import seeded

BACK_AND_FORTH = 3
"""A pass forward and back, in passes forward."""
FEW = 2
"""Samples on which the count is made."""


def multiplications(model: nn.Module, action: Callable[[], Any]) -> float:
    """Multiplications in the weight layers of ``model`` while ``action`` runs it: the size of a weight, times how many
    positions of all samples it is applied to."""
    total = 0.0

    def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.RNNBase):
            weights = sum(weight.numel() for weight in module.parameters() if weight.ndim > 1)
            total += weights * args[0].numel() / args[0].shape[-1]
        elif isinstance(module, nn.Linear):
            total += module.weight.numel() * output.numel() / module.out_features
        elif isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            total += module.weight.numel() * args[0].numel() / module.in_channels
        elif isinstance(module, nn.modules.conv._ConvNd):
            total += module.weight.numel() * output.numel() / module.out_channels

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    try:
        action()
    finally:
        for hook in hooks:
            hook.remove()
    return total


@torch.no_grad()
def samples_of_fit(fitted: FittedOCD) -> float:
    """What :func:`ocd_bench.engine.ocd.fit` cost, as a number of samples run through the base forward and back.

    Counted: the hypernetwork's training steps; the base's passes for I(x), for overfitting, and for the task's loss. Not
    counted: validation, which every method has.
    """
    problem, settings = fitted.problem, fitted.settings
    whole, targets = problem.train[0][:FEW], problem.train[1][:FEW]
    part, few = (
        whole if take is None else take(whole, targets, seeded(problem.seed, "cost"))[0]
        for take in (problem.subsample, problem.excerpt or problem.subsample)
    )
    base, model = _per_sample(fitted, whole), _per_sample(fitted, part)
    task = _per_sample(fitted, few) * BACK_AND_FORTH * settings.task_draws if settings.task_weight else 0.0
    overfitting = model * (1 + BACK_AND_FORTH * settings.overfit_steps)
    made = settings.passes * len(problem.train[0]) or settings.steps * settings.batch_size
    run = settings.steps * (settings.task_batch or settings.batch_size)
    trained = settings.steps * settings.batch_size * BACK_AND_FORTH * _hypernetwork(fitted)
    return (trained + made * overfitting + run * task) / (BACK_AND_FORTH * base)


def _per_sample(fitted: FittedOCD, inputs: Tensor) -> float:
    model, x = fitted.problem.layer.model, inputs.to(fitted.problem.device)
    return multiplications(model, lambda: model(x)) / len(inputs)


def _hypernetwork(fitted: FittedOCD) -> float:
    """Multiplications of the hypernetwork for one sample of a training step, forward."""
    problem = fitted.problem
    inputs, _ = validation_samples(problem, FEW)
    trace = next(problem.layer.traces(inputs))
    code = torch.ones(len(trace.inputs), fitted.form.size, device=problem.device)
    known = Targets(fitted.describe(trace), code, trace.inputs)
    trainee, how = Trainee(fitted.network, None), LossSettings.of(fitted.settings)
    action: Callable[[], Any] = lambda: losses(trainee, known, None, how, seeded(problem.seed, "cost"))  # noqa: E731
    return multiplications(fitted.network, action) / len(code)
