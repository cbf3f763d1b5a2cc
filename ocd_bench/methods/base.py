"""``base``: the trained base model, unchanged. Every other row is compared with it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ocd_bench.method import Context, Method


class Base(Method):
    """The base model in eval mode."""

    name = "base"
    description = "the trained base model, unchanged"

    def fit(self, context: Context) -> Callable[[torch.Tensor], torch.Tensor]:
        model = context.base

        def predict(inputs: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return model(inputs)

        return predict


METHODS = [Base()]
