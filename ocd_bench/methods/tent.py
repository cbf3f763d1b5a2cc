"""Tent (Wang et al., ICLR 2021, arXiv 2006.10726), exactly as in the authors' code, and three variants under other names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ocd_bench.engine.capture import TargetLayer
from ocd_bench.errors import NotApplicable
from ocd_bench.method import Context, Method
from ocd_bench.methods.settings import TentSettings
from ocd_bench.online import (
    NORMS,
    Online,
    Optimizer,
    class_count,
    entropy,
    find_layers,
    probe,
    scale_and_shift,
    set_tent_mode,
    use_batch_statistics,
)

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A scalar loss of outputs and inputs."""


class TentPredictor(Online):
    """For each batch, ``steps`` times: a forward pass, then one update. The output is that of the last forward pass, before the
    last update.

    Args:
        objective: the loss that an update minimises.
        steps: forward passes per batch.
        episodic: restore model and optimizer before each batch. The update after the last forward pass would have no effect
            and is omitted.
    """

    def __init__(
        self, context: Context, name: str, model: nn.Module, weights: list[nn.Parameter], optimizer: Optimizer,
        objective: Objective, steps: int, episodic: bool,
    ) -> None:  # fmt: skip
        self.objective, self.steps, self.episodic = objective, steps, episodic
        super().__init__(context, name, model, weights, optimizer)

    def adapt(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.episodic:
            self.restore()
        for _ in range(self.steps - 1):
            self.update(self.objective(self.model(inputs), inputs))
        output = self.model(inputs)
        if not self.episodic:
            self.update(self.objective(output, inputs))
        return output


class Tent(Method):
    """Adam on scale and shift of BatchNorm2d layers, for the mean entropy of each test batch, online.

    The whole model is in train mode (dropout is active; ``tent.dropout=false``: eval mode) and BatchNorm2d uses the batch's
    statistics.
    """

    name = "tent"
    description = "BatchNorm2d scale and shift by entropy minimisation, online"
    section = "tent"
    Settings = TentSettings
    leads = True
    episodic = False

    def fit(self, context: Context) -> TentPredictor:
        settings: TentSettings = context.settings("tent")
        objective = self._objective(context)
        model = context.fresh_base()
        weights = self._configure(model, context)
        lr, (beta1, beta2) = self._lr(settings), settings.betas

        def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.Adam(parameters, lr, (beta1, beta2), weight_decay=settings.weight_decay)

        steps = settings.episodic_steps if self.episodic else settings.steps
        return TentPredictor(context, self.name, model, weights, adam, objective, steps, self.episodic)

    def _objective(self, context: Context) -> Objective:
        class_count(context)
        task = context.task
        return lambda output, inputs: entropy(task.logits(output)).mean()  # type: ignore[arg-type]

    def _configure(self, model: nn.Module, context: Context) -> list[nn.Parameter]:
        """Set the model's mode and return the parameters to adapt."""
        layers = find_layers(model, (nn.BatchNorm2d,))
        settings: TentSettings = context.settings("tent")
        set_tent_mode(model, settings.dropout)
        return scale_and_shift(layers)

    def _lr(self, settings: TentSettings) -> float:
        return settings.lr


class TentEpisodic(Tent):
    """Tent with model and optimizer restored before each test batch.

    It makes at least two forward passes, so that the output follows an update. With one it would equal ``bn-adapt``.
    """

    name = "tent-episodic"
    description = "tent restored before each test batch, output after at least one update"
    episodic = True


class TentNorm(Tent):
    """Tent on scale and shift of every norm layer (batch, layer, group), without dropout."""

    name = "tent-norm"
    description = "tent on batch, layer and group norm, dropout off"

    def _configure(self, model: nn.Module, context: Context) -> list[nn.Parameter]:
        layers = find_layers(model, NORMS)
        use_batch_statistics(model)
        return scale_and_shift(layers)


class TentLayer(Tent):
    """Tent on the weight of the layer that OCD adapts. Otherwise the model is as in ``base``: eval mode, running statistics.

    Where the task has no class logits, the loss is its ``test_time_loss``.
    """

    name = "tent-layer"
    description = "the layer OCD edits, by entropy or the task's test-time loss, online"

    def _objective(self, context: Context) -> Objective:
        try:
            return super()._objective(context)
        except NotApplicable as reason:
            task, inputs = context.task, probe(context)
            with torch.no_grad():
                loss = task.test_time_loss(context.base(inputs), inputs)
            if loss is None:
                raise NotApplicable(f"{reason}, and no test_time_loss") from None
            return lambda output, inputs: task.test_time_loss(output, inputs).mean()  # type: ignore[union-attr]

    def _configure(self, model: nn.Module, context: Context) -> list[nn.Parameter]:
        return [TargetLayer(model, context.layer).layer.weight]  # type: ignore[list-item]

    def _lr(self, settings: TentSettings) -> float:
        return settings.layer_lr


METHODS = [Tent(), TentEpisodic(), TentNorm(), TentLayer()]
