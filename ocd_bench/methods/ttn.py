"""``ttn``: test-time normalisation (Lim, Kim, Choo and Choi, ICLR 2023, arXiv 2302.05155).

A batch norm layer's statistics are a mixture, channel by channel: those of the test batch (weight α) and of the training set.
α is trained once, after the base, on training samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ocd_bench.engine.norms import BatchNorm, NormLayers, Statistics, normalised, running
from ocd_bench.method import Context, Method, Predictor
from ocd_bench.methods.settings import TtnSettings
from ocd_bench.methods.views import Views
from ocd_bench.online import keep_group_norms_contiguous, probe


def of_batch(x: Tensor) -> Statistics:
    """Statistics ``(C,)`` of a batch ``(N, C, ...)``."""
    variance, mean = torch.var_mean(x.transpose(0, 1).flatten(1), 1, correction=0)
    return Statistics(mean, variance)


def interpolated(source: Statistics, batch: Statistics, alpha: Tensor) -> Statistics:
    """The paper's equation 4, all ``(C,)``: mean and variance of a mixture of two distributions with weights α and 1 - α."""
    mixed = source.moved(batch, alpha)
    return Statistics(mixed.mean, mixed.variance + alpha * (1 - alpha) * (batch.mean - source.mean).square())


def prior(similarities: Tensor) -> Tensor:
    """α before training, ``(L,)`` of all channels of all layers, from gradient similarities of scale and shift, ``(2, L)``.

    Similarities are stretched to [0, 1] over all channels; α is the squared mean distance (the paper's equations 6 and 7).
    """
    low, high = similarities.amin(1, keepdim=True), similarities.amax(1, keepdim=True)
    stretched = (similarities - low) / (high - low).clamp_min(1e-12)
    return (1 - stretched.mean(0)).square()


class TtnLayers:
    """The batch norm layers of a copy of the base, with one weight α for each channel.

    Attributes:
        alpha: ``(L,)`` over the channels of all layers in turn.
    """

    def __init__(self, context: Context) -> None:
        model = context.fresh_base()
        keep_group_norms_contiguous(model)
        self.layers = NormLayers(model, probe(context), single=False)
        self.sizes = [layer.num_features for layer in self.layers.layers]
        self.alpha = torch.zeros(sum(self.sizes), device=context.device)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs for a batch ``(N, ...)``, each layer with its mixture of statistics."""
        parts = self.alpha.split(self.sizes)

        def forward(number: int, layer: BatchNorm, x: Tensor) -> Tensor:
            return normalised(layer, x, interpolated(running(layer), of_batch(x), parts[number]))

        return self.layers.run(inputs, forward)

    def slopes(self, inputs: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Gradients of each sample's own loss by scale and shift under running statistics, ``(2, N, L)``.

        Args:
            loss: per-sample losses ``(N,)`` of the outputs.
        """
        leaves: list[Tensor] = []

        def forward(number: int, layer: BatchNorm, x: Tensor) -> Tensor:
            plain = [1] * (x.ndim - 2)
            scale = x.new_ones(len(x), x.shape[1], *plain).requires_grad_()
            shift = x.new_zeros(len(x), x.shape[1], *plain).requires_grad_()
            leaves.extend((scale, shift))
            source = running(layer)
            around = -1, *plain
            standard = (x - source.mean.view(around)) / (source.variance.view(around) + layer.eps).sqrt()
            weight = 1.0 if layer.weight is None else layer.weight.view(around)
            bias = 0.0 if layer.bias is None else layer.bias.view(around)
            return standard * (weight + scale - 1) + (bias + shift)

        with torch.enable_grad():
            found = torch.autograd.grad(loss(self.layers.run(inputs, forward)).sum(), leaves)
        return torch.stack([torch.cat([slope.flatten(1) for slope in found[part::2]], 1) for part in (0, 1)])


class TtnPredictor(Predictor):
    """The model with the trained α. Statistics are those of each test batch; a batch may be a single sample."""

    def __init__(self, layers: TtnLayers) -> None:
        self._layers = layers
        self.parameters = layers.alpha.numel()
        means = [float(part.mean()) for part in layers.alpha.split(layers.sizes)]
        self.detail = {"alpha": [round(mean, 4) for mean in means]}

    def __call__(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return self._layers(inputs)


class Ttn(Method):
    """α starts at how much the gradients of scale and shift change under augmentation, and is then trained by the loss."""

    name = "ttn"
    description = "batch statistics mixed with the training set's, by one trained weight per channel"
    section = "ttn"
    Settings = TtnSettings
    default = False

    def fit(self, context: Context) -> TtnPredictor:
        settings: TtnSettings = context.settings("ttn")
        layers, views = TtnLayers(context), Views(context, self.name)
        layers.alpha = start = prior(self._similarities(context, settings, layers, views))
        train_alpha(layers, start, self._batches(context, settings, views), context.task.loss, settings)
        return TtnPredictor(layers)

    def _similarities(self, context: Context, settings: TtnSettings, layers: TtnLayers, views: Views) -> Tensor:
        """Mean over samples of the cosine of the gradients of a sample and of its augmented copy, ``(2, L)``.

        For one channel a gradient is one number, so the cosine is the product of two signs.
        """
        generator = context.generator(self.name, "prior")
        chosen = torch.randperm(len(context.train), generator=generator)[: settings.prior_samples]
        total, count = torch.zeros(2, sum(layers.sizes), device=context.device), 0
        for rows in chosen.split(settings.batch_size):
            x, y = context.train.inputs[rows].to(context.device), context.train.targets[rows].to(context.device)
            loss = lambda output, y=y: context.task.loss(output, y)  # noqa: E731
            clean, shifted = layers.slopes(x, loss), layers.slopes(views(x, 1)[:, 0], loss)
            total += (clean.sign() * shifted.sign()).sum(1)
            count += len(rows)
            context.progress("prior", count, len(chosen))
        return total / count

    def _batches(self, context: Context, settings: TtnSettings, views: Views) -> Iterator[tuple[Tensor, Tensor]]:
        generator = context.generator(self.name, "batches")
        for step in range(settings.steps):
            rows = torch.randint(len(context.train), (settings.batch_size,), generator=generator)
            x = views(context.train.inputs[rows].to(context.device), 1)[:, 0]
            yield x, context.train.targets[rows].to(context.device)
            context.progress("alpha", step + 1, settings.steps)


def train_alpha(
    layers: TtnLayers,
    start: Tensor,
    batches: Iterator[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    settings: TtnSettings,
) -> None:
    """Adam on α alone: the task's loss, and ``settings.penalty`` times the mean squared distance from the start.

    α stays within [0, 1].
    """
    alpha = nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([alpha], settings.lr)
    layers.alpha = alpha
    for inputs, targets in batches:
        with torch.enable_grad():
            value = loss(layers(inputs), targets).mean() + settings.penalty * (alpha - start).square().mean()
            optimizer.zero_grad()
            value.backward()
        optimizer.step()
        with torch.no_grad():
            alpha.clamp_(0, 1)
    layers.alpha = alpha.detach()


METHODS = [Ttn()]
