"""``memo``: marginal entropy minimisation with one test point (Zhang, Levine, Finn, NeurIPS 2022, arXiv 2110.09506)."""

from __future__ import annotations

import math

import torch
from torch.func import functional_call

from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.settings import MemoSettings
from ocd_bench.methods.views import Views
from ocd_bench.online import class_count, keep_group_norms_contiguous

Weights = dict[str, torch.Tensor]


class MemoPredictor(Predictor):
    """For each sample, from the base's weights: SGD on the entropy of the mean prediction over its copies, then predict."""

    def __init__(self, context: Context, settings: MemoSettings) -> None:
        self.task, self.settings = context.task, settings
        self._views = Views(context, "memo")
        self._model = context.fresh_base()
        keep_group_norms_contiguous(self._model)
        self._weights: Weights = {name: p.detach() for name, p in self._model.named_parameters()}

    def reset(self) -> None:
        self._views.reset()

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._adapted(part) for part in inputs.split(self.settings.chunk)])

    def _adapted(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs ``(N, ...)``, one sample at a time: its copies are a batch already, and convolutions whose weights differ
        from sample to sample are slower."""
        return torch.stack([self._one(copies, x) for copies, x in zip(self._copies(inputs), inputs, strict=True)])

    def _copies(self, inputs: torch.Tensor) -> torch.Tensor:
        """Augmented copies ``(N, copies, ...)``."""
        return self._views(inputs, self.settings.copies)

    def _loss(self, weights: Weights, copies: torch.Tensor) -> torch.Tensor:
        """Entropy of the mean class probabilities over ``copies`` ``(copies, ...)``, a scalar in nats (paper, equation 2)."""
        logits = self.task.logits(functional_call(self._model, weights, (copies,)))
        log_mean = logits.log_softmax(-1).logsumexp(0) - math.log(len(copies))  # type: ignore[union-attr]
        return -(log_mean.exp() * log_mean).sum()

    @torch.no_grad()
    def _one(self, copies: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """The output for one sample ``(...)``, from its copies ``(copies, ...)``."""
        weights = self._weights
        for _ in range(self.settings.steps):
            leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
            with torch.enable_grad():
                loss = self._loss(leaves, copies)
            slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
            weights = {name: weights[name] - self.settings.lr * slope for name, slope in zip(leaves, slopes, strict=True)}
        return functional_call(self._model, weights, (sample.unsqueeze(0),)).squeeze(0)


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
