"""``oracle`` and ``oracle-all``: overfitting to the test label itself. What OCD tries to predict; upper bounds, not methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ocd_bench.engine.apply import apply
from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.controls.all_layers import overfit_all
from ocd_bench.engine.overfit import OPTIMIZERS, Overfit, overfitted
from ocd_bench.errors import UsageError
from ocd_bench.method import Context, Method

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class OracleSettings:
    """How a test sample is overfitted; an empty or zero value means as ``ocd`` overfits its training samples."""

    optimizer: str = ""
    lr: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        if self.optimizer and self.optimizer not in OPTIMIZERS:
            raise UsageError(f"setting oracle.optimizer={self.optimizer!r}: expected {', '.join(OPTIMIZERS)}, or nothing")
        for name in ("lr", "steps"):
            if getattr(self, name) < 0:
                raise UsageError(f"setting oracle.{name}={getattr(self, name)}: expected 0 (as ocd) or more")

    def resolve(self, ocd: Any) -> Overfit:
        """These numbers, with those of the ``ocd`` section where they are left open."""
        return Overfit(
            self.optimizer or ocd.overfit_optimizer,  # type: ignore[arg-type]
            self.lr or ocd.overfit_lr,
            self.steps or ocd.overfit_steps,
        )


class Oracle(Method):
    """The chosen layer, overfitted to each whole test sample and its label: what a perfect hypernetwork would do."""

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
            with torch.no_grad():
                pieces = overfitted(layer, inputs, targets, context.task.loss, how)
                return torch.cat([apply(trace, delta) for trace, _, delta in pieces])

        return predict


class OracleAll(Method):
    """Every parameter of the base, overfitted to each whole test sample and its label."""

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
