"""``oracle`` and ``oracle-all``: overfitting to the test label itself. What OCD tries to predict; upper bounds, not methods."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ocd_bench.engine.layer import TargetLayer
from ocd_bench.engine.overfit import overfit_all
from ocd_bench.engine.targets import Overfitter
from ocd_bench.method import Context, Method
from ocd_bench.methods.settings import OracleSettings

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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
        overfitter = Overfitter(layer, context.task.loss, how, context.device, context.task.encode_output)

        def predict(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return torch.cat([layer.forward(trace, delta) for trace, _, delta in overfitter.deltas(inputs, targets)])

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
