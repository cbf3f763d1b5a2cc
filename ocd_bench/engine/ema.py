"""Exponential moving average of a module's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class EMA(Generic[Network]):
    """A frozen copy of ``module`` that follows it.

    Args:
        module: what to follow; its structure must not change afterwards.
        decay: weight of the past, in [0, 1). Early updates use less, ``(1 + n) / (10 + n)``, so that short trainings do not
            keep their random start.
    """

    def __init__(self, module: Network, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay {decay}: expected 0 <= decay < 1")
        self.module: Network = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._parameters: list[torch.Tensor] = list(self.module.parameters())
        self._buffers = list(self.module.buffers())

    @torch.no_grad()
    def update(self, module: Network) -> None:
        """Move towards ``module``; buffers (batch-norm statistics) are copied as they are."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for own, other in zip(self._parameters, module.parameters(), strict=True):
            own.lerp_(other.detach(), 1 - decay)
        for own, value in zip(self._buffers, module.buffers(), strict=True):
            own.copy_(value)
