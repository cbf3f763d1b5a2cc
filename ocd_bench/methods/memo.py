"""``memo``: marginal entropy minimisation with one test point (Zhang, Levine, Finn, NeurIPS 2022, arXiv 2110.09506)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.func import functional_call, grad, vmap

from ocd_bench.errors import NotApplicable
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.settings import MemoSettings
from ocd_bench.online import class_count, keep_group_norms_contiguous, probe
from ocd_bench.task import Task

Weights = dict[str, torch.Tensor]

PROBED = 64
"""Number of copies for the test whether ``Task.augment`` changes a single sample. Many are needed, because an augmentation such
as mirroring often changes nothing."""


class MemoPredictor(Predictor):
    """For each sample, from the base's weights: SGD on the entropy of the mean prediction over its copies, then predict."""

    def __init__(self, context: Context, settings: MemoSettings) -> None:
        self.task, self.settings, self.context = context.task, settings, context
        self._model = context.fresh_base()
        keep_group_norms_contiguous(self._model)
        self._weights: Weights = {name: p.detach() for name, p in self._model.named_parameters()}
        self._target = torch.zeros_like(context.train.targets[:1])  # (1, ...): augment is given zeros as labels
        self._run = self._vectorised(probe(context, 2))
        self.reset()

    def reset(self) -> None:
        self._generator = self.context.generator("memo", "augment")

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([self._run(self._copies(part), part) for part in inputs.split(self.settings.chunk)])

    def _copies(self, inputs: torch.Tensor) -> torch.Tensor:
        """Augmented copies ``(N, copies, ...)``, drawn on the CPU, so that they are the same for every device."""
        n, copies = len(inputs), self.settings.copies
        repeated = inputs.cpu().repeat_interleave(copies, 0)
        targets = self._target.repeat(n * copies, *[1] * (self._target.ndim - 1))
        augmented = self.task.views(repeated, self._generator)
        if augmented is None:
            augmented, _ = self.task.augment(repeated, targets, self._generator)
        return augmented.to(inputs.device).unflatten(0, (n, copies))

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

        together = vmap(self._one)
        try:
            together(inputs.unsqueeze(1), inputs)
        except (RuntimeError, NotImplementedError, ValueError):
            return one_by_one
        return together


def _changes_a_sample_alone(context: Context) -> bool:
    """Whether ``Task.augment`` changes a sample without other samples in its batch."""
    copies = probe(context, 1).cpu().repeat_interleave(PROBED, 0)
    targets = torch.zeros_like(context.train.targets[:1]).repeat(PROBED, *[1] * (context.train.targets.ndim - 1))
    generator = context.generator("memo", "probe")
    changed = context.task.views(copies, generator)
    if changed is None:
        changed, _ = context.task.augment(copies, targets, generator)
    return not torch.equal(changed, copies)


class Memo(Method):
    """All weights, adapted to one sample at a time and then reset; the model stays in eval mode."""

    name = "memo"
    description = "all weights, per sample, by the entropy of the mean prediction over augmentations"
    section = "memo"
    Settings = MemoSettings

    def fit(self, context: Context) -> MemoPredictor:
        class_count(context)
        if type(context.task).augment is Task.augment and type(context.task).views is Task.views:
            raise NotApplicable(f"no augmentation: task {context.task.name!r} does not define augment or views")
        if not _changes_a_sample_alone(context):
            raise NotApplicable(
                f"task {context.task.name!r} augments a sample only with other samples of its batch; "
                "MEMO needs per-sample augmentation"
            )
        return MemoPredictor(context, context.settings("memo"))


METHODS = [Memo()]
