"""``memo``: marginal entropy minimisation with one test point (Zhang, Levine, Finn, NeurIPS 2022, arXiv 2110.09506)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.func import functional_call, grad

from ocd_bench.engine.controls.all_layers import quiet_vmap
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.settings import MemoSettings
from ocd_bench.methods.views import Views
from ocd_bench.online import class_count, keep_group_norms_contiguous, probe

Weights = dict[str, torch.Tensor]


class MemoPredictor(Predictor):
    """For each sample, from the base's weights: SGD on the entropy of the mean prediction over its copies, then predict."""

    def __init__(self, context: Context, settings: MemoSettings) -> None:
        self.task, self.settings = context.task, settings
        self._views = Views(context, "memo")
        self._model = context.fresh_base()
        keep_group_norms_contiguous(self._model)
        self._weights: Weights = {name: p.detach() for name, p in self._model.named_parameters()}
        self._run = self._vectorised(probe(context, 2))

    def reset(self) -> None:
        self._views.reset()

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([self._run(self._copies(part), part) for part in inputs.split(self.settings.chunk)])

    def _copies(self, inputs: torch.Tensor) -> torch.Tensor:
        """Augmented copies ``(N, copies, ...)``."""
        return self._views(inputs, self.settings.copies)

    def _loss(self, weights: Weights, copies: torch.Tensor) -> torch.Tensor:
        """Entropy of the mean class probabilities over ``copies`` ``(copies, ...)``, a scalar in nats (paper, equation 2)."""
        logits = self.task.logits(functional_call(self._model, weights, (copies,)))
        log_mean = logits.log_softmax(-1).logsumexp(0) - math.log(len(copies))  # type: ignore[union-attr]
        return -(log_mean.exp() * log_mean).sum()

    def _one(self, copies: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """The output for one sample ``(...)``, from its copies ``(copies, ...)``."""
        weights = self._weights
        for _ in range(self.settings.steps):
            slopes = grad(self._loss)(weights, copies)
            weights = {name: value - self.settings.lr * slopes[name] for name, value in weights.items()}
        return functional_call(self._model, weights, (sample.unsqueeze(0),)).squeeze(0)

    def _vectorised(self, inputs: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """``_one`` for a batch: by vmap, or in a loop if vmap does not support the model (a recurrent layer)."""

        def one_by_one(copies: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
            return torch.stack([self._one(c, x) for c, x in zip(copies, samples, strict=True)])

        together = quiet_vmap(self._one)
        try:
            together(inputs.unsqueeze(1), inputs)
        except (RuntimeError, NotImplementedError, ValueError):
            return one_by_one
        return together


class Memo(Method):
    """All weights, adapted to one sample at a time and then reset; the model stays in eval mode."""

    name = "memo"
    description = "all weights, per sample, by the entropy of the mean prediction over augmentations"
    section = "memo"
    Settings = MemoSettings

    def fit(self, context: Context) -> MemoPredictor:
        class_count(context)
        return MemoPredictor(context, context.settings("memo"))


METHODS = [Memo()]
