"""``mixnorm`` and ``sita``: batch norm statistics of a test sample and its augmented copies, mixed into the running ones."""

from __future__ import annotations

import torch

from ocd_bench.engine.norms import BatchNorm, NormLayers, Statistics, normalised, own, running
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.settings import MixNormSettings, SitaSettings
from ocd_bench.methods.views import Views
from ocd_bench.online import keep_group_norms_contiguous, probe


def pooled(x: torch.Tensor, rows: int) -> Statistics:
    """Statistics ``(N, C)`` over ``rows`` copies of each of N samples and over their positions.

    Args:
        x: ``(N * rows, C, ...)``, the copies of a sample together.
    """
    each = own(x)
    mean, variance = each.mean.unflatten(0, (-1, rows)), each.variance.unflatten(0, (-1, rows))  # (N, rows, C)
    return Statistics(mean.mean(1), variance.mean(1) + mean.var(1, correction=0))


class MixedPredictor(Predictor):
    """Every sample is run together with its copies. A layer normalises all of them by the same mixture of statistics.

    Args:
        copies: augmented copies of each sample.
        share: of the sample's own statistics in the mixture.
        speed: by how much one sample moves the statistics that its own are mixed into, see :meth:`_move`. 0: not at all.
    """

    def __init__(self, context: Context, method: str, copies: int, share: float, speed: float = 0.0) -> None:
        model = context.fresh_base()
        keep_group_norms_contiguous(model)
        self._layers = NormLayers(model, probe(context))
        self._views = Views(context, method) if copies else None
        self._copies, self._share, self._speed = copies, share, speed
        self.detail = {"layers": len(self._layers.layers), "copies": copies, "share": share}
        self.reset()

    def reset(self) -> None:
        if self._views is not None:
            self._views.reset()
        self._common = [running(layer) for layer in self._layers.layers]

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = [inputs[:, None]]
        if self._views is not None:
            rows.append(self._views(inputs, self._copies))
        with torch.no_grad():
            output = self._layers.run(torch.cat(rows, 1).flatten(0, 1), self._forward)
        return output[:: 1 + self._copies]

    def _forward(self, number: int, layer: BatchNorm, x: torch.Tensor) -> torch.Tensor:
        found, common = pooled(x, 1 + self._copies), self._common[number]
        mixed = common.moved(found, self._share)
        if self._speed:
            self._common[number] = self._moved(common, found)
        every = [part.repeat_interleave(1 + self._copies, 0) for part in (mixed.mean, mixed.variance)]
        return normalised(layer, x, Statistics(*every))

    def _moved(self, common: Statistics, found: Statistics) -> Statistics:
        """An exponential moving average, once for each of the batch's N samples. Their mean is taken N times, so that the
        order of the samples in the batch does not matter."""
        share = 1 - (1 - self._speed) ** len(found.mean)
        return common.moved(Statistics(found.mean.mean(0), found.variance.mean(0)), share)


class MixNorm(Method):
    """Hu et al. 2021: the sample and a copy give local statistics; the global ones follow the test stream slowly."""

    name = "mixnorm"
    description = "batch norm statistics of a test sample and a copy of it, mixed into slowly moving ones"
    section = "mixnorm"
    Settings = MixNormSettings
    default = False

    def fit(self, context: Context) -> MixedPredictor:
        settings: MixNormSettings = context.settings("mixnorm")
        return MixedPredictor(context, self.name, settings.copies, settings.share, settings.speed)


class Sita(Method):
    """AugBN of Khurana et al. 2021: statistics of a single sample's copies, mixed with the training set's."""

    name = "sita"
    description = "AugBN: batch norm statistics of augmented copies of each test sample, mixed with the training set's"
    section = "sita"
    Settings = SitaSettings
    default = False

    def fit(self, context: Context) -> MixedPredictor:
        settings: SitaSettings = context.settings("sita")
        return MixedPredictor(context, self.name, settings.copies, 1 - settings.prior)


METHODS = [MixNorm(), Sita()]
