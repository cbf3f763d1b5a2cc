"""``sar``: sharpness-aware and reliable entropy minimisation (Niu et al., ICLR 2023, arXiv 2302.12400)."""

from __future__ import annotations

import math

import torch
from torch import nn

from ocd_bench.method import Context, Method
from ocd_bench.methods.settings import SarSettings
from ocd_bench.online import Online, Optimizer, class_count, find_layers, scale_and_shift, set_tent_mode

MOMENTUM = 0.9
"""Momentum of the moving average of the loss that triggers the recovery."""


class SarPredictor(Online):
    """For each batch, one sharpness-aware step on the entropy of reliable samples. The output is that of the forward pass
    before the step.

    The gradient is taken at the worst point within a distance of ``rho``, to first order.
    """

    def __init__(
        self, context: Context, model: nn.Module, weights: list[nn.Parameter], optimizer: Optimizer, settings: SarSettings
    ) -> None:
        self.settings = settings
        self._e0 = settings.margin * math.log(class_count(context))
        super().__init__(context, "sar", model, weights, optimizer)
        self.detail |= {"lr": settings.lr, "recover": settings.recover}

    def reset(self) -> None:
        super().reset()
        self._average: float | None = None
        self.detail["recoveries"] = 0

    def adapt(self, inputs: torch.Tensor) -> torch.Tensor:
        output = self.model(inputs)
        entropies = self.entropy(output)
        reliable = entropies.detach() < self._e0
        if reliable.any():
            slopes = self.slopes(entropies[reliable].mean())
            self._sharpness_aware(inputs, reliable, slopes)
        return output

    def _sharpness_aware(self, inputs: torch.Tensor, reliable: torch.Tensor, slopes: tuple[torch.Tensor, ...]) -> None:
        norm = torch.stack([slope.norm() for slope in slopes]).norm()
        before = [weight.detach().clone() for weight in self.weights]
        with torch.no_grad():
            for weight, slope in zip(self.weights, slopes, strict=True):
                weight.add_(slope / (norm + 1e-12), alpha=self.settings.rho)
        entropies = self.entropy(self.model(inputs))[reliable]
        kept = entropies[entropies.detach() < self._e0]
        slopes = self.slopes(kept.mean()) if len(kept) else ()
        with torch.no_grad():
            for weight, value in zip(self.weights, before, strict=True):
                weight.copy_(value)
        if not slopes:
            return
        for weight, slope in zip(self.weights, slopes, strict=True):
            weight.grad = slope
        self.optimizer.step()
        self._recover(float(kept.detach().mean()))

    def _recover(self, loss: float) -> None:
        """Restore the base if the moving average of the entropy has collapsed; the average then starts again."""
        self._average = loss if self._average is None else MOMENTUM * self._average + (1 - MOMENTUM) * loss
        if self._average < self.settings.recover:
            self.restore()
            self._average = None
            self.detail["recoveries"] += 1


class Sar(Method):
    """SGD on scale and shift of BatchNorm2d, layer and group norm without the top ones, online. Modes are those of ``tent``."""

    name = "sar"
    description = "sharpness-aware entropy minimisation on reliable samples, online"
    section = "sar"
    Settings = SarSettings
    leads = True

    def fit(self, context: Context) -> SarPredictor:
        model = context.fresh_base()
        classes = class_count(context)
        layers = find_layers(model, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm))
        layer_norm_only = all(isinstance(layer, nn.LayerNorm) for layer in layers)
        settings: SarSettings = context.settings("sar").resolved(classes, layer_norm_only)
        weights = scale_and_shift(layers[: math.ceil(settings.share * len(layers))])
        set_tent_mode(model, settings.dropout)

        def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters, settings.lr, settings.momentum)

        return SarPredictor(context, model, weights, sgd, settings)


METHODS = [Sar()]
