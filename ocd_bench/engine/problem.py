"""What fitting a hypernetwork needs to know: tensors and callables, no task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ocd_bench.engine.condition import flat
from ocd_bench.engine.folds import FoldBases
from ocd_bench.engine.layer import TargetLayer
from ocd_bench.engine.overfit import Loss
from ocd_bench.engine.targets import Change
from ocd_bench.errors import NotApplicable
from ocd_bench.seeds import derive

Data = tuple[Tensor, Tensor]
"""Inputs and targets of N samples, on the CPU."""
Combine = Callable[[Tensor], Tensor]
"""Outputs of D draws ``(D, N, ...)`` to one ``(N, ...)``."""

CPU = torch.device("cpu")


def no_folds(count: int) -> Sequence[tuple[TargetLayer, Tensor]]:
    """Where no further base can be trained."""
    raise NotApplicable("no further base can be trained here, as cross-fitting (ocd.folds) needs")


@dataclass(frozen=True)
class Quality:
    """What the table will show of outputs, beside the loss that is trained on.

    Args:
        scores: per-sample scores ``(N,)`` of outputs and targets.
        reduce: of scores ``(G, M)`` to G numbers, of which the higher is the better.
    """

    scores: Loss
    reduce: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """What the engine needs to know of a task: callables only.

    Args:
        layer: the layer to change.
        train, val: inputs and targets on the CPU; ``val`` must hold no training sample.
        loss: per-sample losses ``(N,)``.
        device: of the base and of what is trained.
        augment, subsample, excerpt: changes of samples on the CPU; None for none. An excerpt is smaller still than a subsample.
        output_features: the output as features ``(N, D)``.
        signature: numbers ``(N, D)`` of inputs by which a stranger is told; None: no sample counts as one.
        encoder: gives a new encoder of the inputs, ``(N, ...) -> (N, E)``, or None. One without parameters is a fixed feature.
        quality: what else a choice on validation samples must not make worse; None for nothing.
        combine: how the outputs of several draws become one.
        seed: of every random number drawn here.
        folds: gives layers of bases trained without a part of the training samples each, see :mod:`ocd_bench.engine.folds`.
        progress: told what is done, how far and out of how much.
        remember: ``remember(name, build)`` gives what ``build`` built the first time it was asked: several fits of one problem
            under the same settings then overfit their training samples once.
    """

    layer: TargetLayer
    train: Data
    val: Data
    loss: Loss
    device: torch.device = CPU
    augment: Change | None = None
    subsample: Change | None = None
    excerpt: Change | None = None
    output_features: Callable[[Tensor], Tensor] = flat
    signature: Callable[[Tensor], Tensor] | None = None
    encoder: Callable[[], nn.Module | None] = lambda: None
    quality: Quality | None = None
    combine: Combine = lambda outputs: outputs.mean(0)
    seed: int = 0
    folds: FoldBases = no_folds
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    remember: Callable[[str, Callable[[], Any]], Any] = lambda name, build: build()

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator of its own for each purpose."""
        return torch.Generator().manual_seed(derive(self.seed, purpose))

    def validation(self, limit: int) -> Data:
        """At most ``limit`` validation samples, subsampled: always the same."""
        generator = self.generator("validation")
        chosen = torch.randperm(len(self.val[0]), generator=generator)[:limit].sort().values
        inputs, targets = self.val[0][chosen], self.val[1][chosen]
        return (inputs, targets) if self.subsample is None else self.subsample(inputs, targets, generator)


class NoiseStream:
    """Standard normal numbers for draw d of sample i, the same however the samples are batched and whatever ran before."""

    BLOCK = 64

    def __init__(self, seed: int, size: int) -> None:
        self.seed, self.size = seed, size

    def __call__(self, start: int, count: int, draw: int) -> Tensor:
        """``(count, size)`` for the samples from ``start`` on."""
        blocks = range(start // self.BLOCK, -(-(start + count) // self.BLOCK))
        rows = torch.cat([self._block(block, draw) for block in blocks])
        offset = start - blocks[0] * self.BLOCK
        return rows[offset : offset + count]

    def _block(self, block: int, draw: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive(self.seed, block, draw))
        return torch.randn(self.BLOCK, self.size, generator=generator)
