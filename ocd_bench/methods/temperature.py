"""``temperature``: one factor of the class logits, chosen on validation samples (Guo et al., ICML 2017, arXiv 1706.04599)."""

from __future__ import annotations

import torch

from ocd_bench.errors import NotApplicable
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.online import class_count

LIMIT = 20.0
"""The factor is between 1 / LIMIT and LIMIT."""
HALVINGS = 50


def best_factor(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The factor β in [1 / LIMIT, LIMIT] of least mean cross entropy of ``β logits``.

    Of N samples without an error no factor would be large enough, so the right class counts as (N + 1) / (N + 2) sure and the
    rest is shared out among the others (Platt 1999). The cross entropy is convex in β, and its slope is E_p[z] - E_label[z], so
    bisection of the slope finds the minimum.

    Args:
        logits: ``(N, K)``.
        labels: ``(N,)``, int64.
    """
    logits = logits.double()
    count, classes = logits.shape
    sure = (count + 1) / (count + 2)
    own = logits.gather(1, labels[:, None])[:, 0]
    others = (logits.sum(1) - own) / (classes - 1)
    right = (sure * own + (1 - sure) * others).mean()

    def slope(log_factor: float) -> float:
        mean = ((logits * 2**log_factor).softmax(-1) * logits).sum(-1).mean()
        return float(mean - right)

    high = torch.tensor(LIMIT).log2().item()
    low = -high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if slope(middle) > 0:
            high = middle
        else:
            low = middle
    return float(2 ** ((low + high) / 2))


class TemperaturePredictor(Predictor):
    """The base's logits times a factor."""

    def __init__(self, model: torch.nn.Module, factor: float) -> None:
        self.model, self.factor = model, factor
        self.detail = {"temperature": 1 / factor}

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.model(inputs) * self.factor


class Temperature(Method):
    """Calibrates confidence. No answer changes, so what it gains in cross entropy needs no adaptation of weights."""

    name = "temperature"
    description = "the base's class logits times one factor, chosen on validation samples"
    follows = True
    chosen = "validation"

    def fit(self, context: Context) -> TemperaturePredictor:
        class_count(context)
        labels = context.val.targets
        if labels.ndim != 1 or labels.is_floating_point():
            raise NotApplicable(f"the targets of task {context.task.name!r} are not one class per sample")
        with torch.no_grad():
            parts = [context.base(part.to(context.device)) for part in context.val.inputs.split(context.batch_size)]
            output = torch.cat(parts)
            logits = context.task.logits(output)
        if logits is None or logits.shape != output.shape or not torch.equal(logits, output):
            raise NotApplicable(f"outputs of task {context.task.name!r} are not plain class logits")
        return TemperaturePredictor(context.base, best_factor(logits.cpu(), labels.long()))


METHODS = [Temperature()]
