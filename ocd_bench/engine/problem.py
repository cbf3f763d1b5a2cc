"""What the engine needs to know of a task: tensors and callables only."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ocd_bench.engine.capture import TargetLayer, flat
from ocd_bench.errors import NotApplicable
from ocd_bench.progress import Progress

Data = tuple[Tensor, Tensor]
"""Inputs and targets of N samples, on the CPU."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Per-sample losses ``(N,)`` of outputs and targets ``(N, ...)``."""

Change = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Other inputs and targets from inputs, targets and a CPU generator (augmentation, subsampling)."""

Positions = Callable[[Tensor, Tensor], tuple[Tensor, int, Callable[[Tensor], Tensor]]]
"""From inputs and outputs: features of P positions ``(N, P, D)``, how many numbers C the output has at each, and a function
from numbers ``(N, P, C)`` to a tensor in the form of the output."""

Combine = Callable[[Tensor], Tensor]
"""Outputs of D draws ``(D, N, ...)`` to one ``(N, ...)``."""

FoldBases = Callable[[int], Sequence[tuple[TargetLayer, Tensor]]]
"""From K to the layers of K further bases, each with the indices of the training samples that its base has not seen."""

CPU = torch.device("cpu")


def no_folds(count: int) -> Sequence[tuple[TargetLayer, Tensor]]:
    """Where no further base can be trained.

    Raises:
        NotApplicable: always.
    """
    raise NotApplicable("no further base can be trained here, as cross-fitting (ocd.folds) needs")


@dataclass(frozen=True)
class Quality:
    """The task's primary metric, for choices on validation samples.

    Args:
        scores: per-sample scores ``(N,)`` of outputs and targets.
        reduce: from scores ``(G, M)`` to G numbers; higher is better.
    """

    scores: Loss
    reduce: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """What the engine needs to know of a task.

    Args:
        layer: the layer to change.
        train, val: inputs and targets on the CPU. ``val`` must hold no training sample.
        loss: per-sample losses ``(N,)``.
        device: of the base and of the networks trained here.
        augment, subsample, excerpt: changes of samples on the CPU, or None. ``subsample`` takes a part of each sample;
            ``excerpt`` takes a smaller part, for samples that are only run through the base.
        positions: of a large output; None where the task names none.
        output_features: the model's output as features ``(N, D)``.
        signature: features ``(N, D)`` of inputs for out-of-distribution detection; None where the task has none.
        encoder: gives a new encoder of the inputs, ``(N, ...) -> (N, E)``, or None. Without parameters it is a fixed feature.
        quality: a choice on validation samples must not make it worse; None for nothing.
        combine: from the outputs of several draws to one.
        seed: every random number drawn here derives from it.
        folds: gives bases trained without a part of the training samples, for cross-fitting.
        stage: ``stage(what, key)`` gives the progress of a loop that can be continued. ``key`` is what its result depends on,
            beside the problem.
        remember: ``remember(key, build)`` returns what ``build`` built on the first call with an equal key, so that several
            fits of one problem share their targets.
    """

    layer: TargetLayer
    train: Data
    val: Data
    loss: Loss
    device: torch.device = CPU
    augment: Change | None = None
    subsample: Change | None = None
    excerpt: Change | None = None
    positions: Positions | None = None
    output_features: Callable[[Tensor], Tensor] = flat
    signature: Callable[[Tensor], Tensor] | None = None
    encoder: Callable[[], nn.Module | None] = lambda: None
    quality: Quality | None = None
    combine: Combine = lambda outputs: outputs.mean(0)
    seed: int = 0
    folds: FoldBases = no_folds
    stage: Callable[[str, Hashable], Progress] = lambda what, key: Progress()
    remember: Callable[[Hashable, Callable[[], Any]], Any] = lambda key, build: build()
