"""``eata``: efficient anti-forgetting test-time adaptation (Niu et al., ICML 2022, arXiv 2204.02610)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from ocd_bench.method import Context, Method
from ocd_bench.methods.settings import EataSettings
from ocd_bench.online import Online, Optimizer, class_count, find_layers, scale_and_shift, set_tent_mode

MOMENTUM = 0.9
"""Momentum of the running mean of class probabilities (paper, equation 4)."""


class EataPredictor(Online):
    """Tent on reliable and non-redundant samples, weighted by confidence, with a Fisher penalty."""

    def __init__(
        self, context: Context, model: nn.Module, weights: list[nn.Parameter], optimizer: Optimizer, settings: EataSettings
    ) -> None:
        self.settings = settings
        self._e0 = settings.margin * math.log(class_count(context))
        super().__init__(context, "eata", model, weights, optimizer)
        self._source = [weight.detach().clone() for weight in weights]
        self._fisher = self._importance(context) if settings.alpha else None
        self.detail |= {"lr": settings.lr, "distance": settings.distance, "alpha": settings.alpha}
        self.reset()

    def reset(self) -> None:
        super().reset()
        self._mean: torch.Tensor | None = None
        self.detail["learnt_from"] = 0

    def adapt(self, inputs: torch.Tensor) -> torch.Tensor:
        output = self.model(inputs)
        entropies = self.entropy(output)
        chosen = self._choose(self.logits(output).detach().softmax(-1), entropies.detach())  # type: ignore[union-attr]
        count = int(chosen.sum())
        if count:
            kept = entropies[chosen]
            loss = ((self._e0 - kept.detach()).exp() * kept).mean()
            self.update(loss + self._penalty())
            self.detail["learnt_from"] += count
        return output

    def _choose(self, p: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
        """Mask ``(N,)`` of the samples to learn from (equations 3 to 6), and the update of the running mean by them.

        A sample is reliable if its entropy is below E0, and non-redundant if its class probabilities differ from the running
        mean of the samples used before.

        Args:
            p: class probabilities ``(N, K)``.
            entropies: ``(N,)``, in nats.
        """
        chosen = entropies < self._e0
        if self._mean is not None:
            chosen = chosen & (cosine_similarity(self._mean.unsqueeze(0), p, dim=1).abs() < self.settings.distance)
        if chosen.any():
            new = p[chosen].mean(0)
            self._mean = new if self._mean is None else MOMENTUM * self._mean + (1 - MOMENTUM) * new
        return chosen

    def _penalty(self) -> torch.Tensor | float:
        """The penalty α Σ F (θ − θ_base)² (equation 8), a scalar."""
        if self._fisher is None:
            return 0.0
        terms = zip(self._fisher, self.weights, self._source, strict=True)
        return self.settings.alpha * torch.stack([(f * (w - s).square()).sum() for f, w, s in terms]).sum()

    def _importance(self, context: Context) -> list[torch.Tensor]:
        """The diagonal of the Fisher information, in the shapes of the weights (equation 9).

        It is the mean over batches of the squared gradient of the cross entropy to the labels that the model predicts. A
        gradient is that of a whole batch, as in the authors' code, on which the scale of the published α depends.
        """
        inputs = context.val.inputs[: self.settings.fisher_samples]
        batches = [part for part in inputs.split(self.settings.fisher_batch) if len(part) > 1] or [inputs]
        total = [torch.zeros_like(weight) for weight in self.weights]
        with torch.enable_grad(), self.seeded("fisher"):
            for batch in batches:
                logits = self.logits(self.model(batch.to(context.device)))
                loss = cross_entropy(logits, logits.detach().argmax(-1))  # type: ignore[union-attr, arg-type]
                for sums, slope in zip(total, self.slopes(loss), strict=True):
                    sums += slope.square()
        return [sums / len(batches) for sums in total]


class Eata(Method):
    """SGD on scale and shift of BatchNorm2d layers, from selected samples only, online. Modes are those of ``tent``."""

    name = "eata"
    description = "tent on reliable and non-redundant samples, with a Fisher penalty, online"
    section = "eata"
    Settings = EataSettings
    leads = True

    def fit(self, context: Context) -> EataPredictor:
        settings: EataSettings = context.settings("eata").resolved(class_count(context))
        model = context.fresh_base()
        weights = scale_and_shift(find_layers(model, (nn.BatchNorm2d,)))
        set_tent_mode(model, settings.dropout)

        def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters, settings.lr, settings.momentum)

        return EataPredictor(context, model, weights, sgd, settings)


METHODS = [Eata()]
