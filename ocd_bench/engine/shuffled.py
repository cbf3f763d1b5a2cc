"""The order of training samples, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Shuffled:
    """Index batches without end: permutations, cut into batches of equal size. A remainder is left out of its permutation.

    Its place in the permutation can be kept and set, as the state of a generator.
    """

    def __init__(self, samples: int, batch_size: int, generator: torch.Generator) -> None:
        self.samples, self.batch_size, self.generator = samples, min(batch_size, samples), generator
        self._before = generator.get_state()
        self._left: list[Tensor] = []

    def __iter__(self) -> Shuffled:
        return self

    def __next__(self) -> Tensor:
        if not self._left:
            self._before = self.generator.get_state()
            whole = self.samples // self.batch_size * self.batch_size
            self._left = list(torch.randperm(self.samples, generator=self.generator)[:whole].split(self.batch_size))[::-1]
        return self._left.pop()

    def get_state(self) -> dict[str, Any]:
        """The generator before the present permutation, and how many of its batches are left."""
        return {"before": self._before if self._left else self.generator.get_state(), "left": len(self._left)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to the place of a state."""
        self.generator.set_state(state["before"])
        self._left = []
        if state["left"]:
            first = next(self)
            self._left = [*self._left, first][: state["left"]]
