"""``oracle`` and ``oracle-all``: overfitting to the test label itself. What OCD tries to predict; upper bounds, not methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ocd_bench.engine.layer import TargetLayer
from ocd_bench.engine.overfit import OPTIMIZERS, Overfit, overfit, overfit_all
from ocd_bench.errors import UsageError
from ocd_bench.method import Context, Method

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CHUNK_NUMBERS = 2**26
"""Floats that a chunk of samples may take (256 MB)."""


@dataclass(frozen=True)
class OracleSettings:
    """How a test sample is overfitted; an empty or zero value means as ``ocd`` overfits its training samples."""

    optimizer: str = ""
    lr: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        if self.optimizer and self.optimizer not in OPTIMIZERS:
            raise UsageError(f"oracle.optimizer={self.optimizer!r}: expected one of {', '.join(OPTIMIZERS)}, or nothing")
        if self.lr < 0 or self.steps < 0:
            raise UsageError(f"oracle.lr={self.lr} and oracle.steps={self.steps} must not be negative")

    def resolve(self, ocd: Any) -> Overfit:
        """These numbers, with those of the ``ocd`` section where they are left open."""
        return Overfit(
            self.optimizer or ocd.overfit_optimizer,  # type: ignore[arg-type]
            self.lr or ocd.overfit_lr,
            self.steps or ocd.overfit_steps,
        )


class Oracle(Method):
    """The chosen layer, overfitted to each test sample and its label: what a perfect hypernetwork would do."""

    name = "oracle"
    description = "the layer overfitted to each test label (upper bound)"
    section = "oracle"
    Settings = OracleSettings
    reads = ("ocd",)
    uses_test_labels = True

    def fit(self, context: Context) -> Predict:
        layer = TargetLayer(context.fresh_base(), context.layer)
        how = context.settings("oracle").resolve(context.settings("ocd"))

        def predict(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            size = chunk(layer, inputs)
            return torch.cat([part(x, y) for x, y in zip(inputs.split(size), targets.split(size), strict=True)])

        def part(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            trace = layer.trace(inputs)
            delta = overfit(layer, trace, targets, context.task.loss, how)
            with torch.no_grad():
                return layer.forward(trace, delta)

        return predict


def chunk(layer: TargetLayer, inputs: torch.Tensor) -> int:
    """Samples to overfit at once: their ΔW with optimizer state, and a few activations of the layer's size, fit the limit."""
    rows, columns = layer.shape
    positions = layer.trace(inputs[:1]).response.shape[1]
    return max(1, CHUNK_NUMBERS // (4 * rows * columns + 8 * positions * max(rows, columns)))


class OracleAll(Method):
    """Every parameter of the base, overfitted to each test sample and its label."""

    name = "oracle-all"
    description = "all layers overfitted to each test label (upper bound)"
    section = "oracle"
    Settings = OracleSettings
    reads = ("ocd",)
    uses_test_labels = True

    def fit(self, context: Context) -> Predict:
        model = context.fresh_base()
        how = context.settings("oracle").resolve(context.settings("ocd"))
        return lambda inputs, targets: overfit_all(model, inputs, targets, context.task.loss, how)


METHODS = [Oracle(), OracleAll()]
