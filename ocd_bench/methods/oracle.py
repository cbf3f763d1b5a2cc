"""``oracle`` and ``oracle-all``: overfitting to the test label, which OCD tries to predict. Upper bounds, no usable methods."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ocd_bench.engine.apply import apply
from ocd_bench.engine.capture import TargetLayer
from ocd_bench.engine.controls.all_layers import overfit_all
from ocd_bench.engine.overfit import Overfit, overfitted
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.method import Context, Method
from ocd_bench.methods.settings import OracleSettings

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def resolved(own: OracleSettings, settings: OCDSettings) -> Overfit:
    """The oracle's settings; those that are not set come from the section ``ocd``."""
    ocd = Overfit.of(settings)
    return Overfit(own.optimizer or ocd.optimizer, own.lr or ocd.lr, own.steps or ocd.steps)  # type: ignore[arg-type]


class Oracle(Method):
    """The chosen layer, overfitted to each whole test sample and its label, as a perfect hypernetwork would predict it."""

    name = "oracle"
    description = "the layer overfitted to each test label (upper bound)"
    section = "oracle"
    Settings = OracleSettings
    reads = ("ocd",)
    uses_test_labels = True
    chosen = "hindsight"

    def fit(self, context: Context) -> Predict:
        layer = TargetLayer(context.fresh_base(), context.layer)
        how = resolved(context.settings("oracle"), context.settings("ocd"))

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
    chosen = "hindsight"

    def fit(self, context: Context) -> Predict:
        model = context.fresh_base()
        how = resolved(context.settings("oracle"), context.settings("ocd"))
        return lambda inputs, targets: overfit_all(model, inputs, targets, context.task.loss, how)


METHODS = [Oracle(), OracleAll()]
