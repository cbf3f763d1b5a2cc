"""``bn-adapt``: batch norm statistics of the test batch in place of the training set's (Nado et al. 2020, arXiv 2006.10963;
Schneider et al. 2020, arXiv 2006.16971). No parameter is trained."""

from __future__ import annotations

import torch

from ocd_bench.handover import HandOver
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.online import BATCH_NORMS, BatchModel, find_layers, use_batch_statistics


class _Predictor(Predictor):
    def __init__(self, model: torch.nn.Module) -> None:
        self._model = BatchModel(model)
        self._handed: HandOver | None = None

    def reset(self) -> None:
        self._model.reset()

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            output = self._model(inputs)
        if self._handed is not None:
            self._handed.settle(output)
        return output

    def hand_over(self) -> torch.nn.Module:
        if self._handed is None:
            self._handed = HandOver(self._model.model)
        return self._handed.copy


class BnAdapt(Method):
    """Every batch norm layer uses the mean and variance of the test batch only. Everything else is as in ``base``."""

    name = "bn-adapt"
    description = "batch norm statistics of the test batch, no learning"
    leads = True

    def fit(self, context: Context) -> Predictor:
        model = context.fresh_base()
        find_layers(model, BATCH_NORMS, affine=False)  # raises NotApplicable if there is none
        use_batch_statistics(model)
        return _Predictor(model)


METHODS = [BnAdapt()]
