"""The `finetune` control: the base trained further on the hypernetwork's copies, without a second network.

It sees as many samples per step as the hypernetwork's training runs through the base, in the same order, for as many steps, and
its change of the weights gets a gain by the same rule. What it gains is what the copies alone are worth.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ocd_bench.engine.capture import Describe
from ocd_bench.engine.learn import Record, Trainee, Training, learn
from ocd_bench.engine.ocd import initial_weights
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.shuffled import Shuffled
from ocd_bench.engine.stream import TargetStream
from ocd_bench.engine.targets import TargetSettings, validation_samples
from ocd_bench.seeds import seeded


class Whole(Trainee[nn.Module]):
    """A base in training. All of its weights are clipped together."""

    def groups(self) -> list[list[nn.Parameter]]:
        return [list(self.network.parameters())]


class FittedFinetune:
    """A base that was trained further.

    Attributes:
        model: the base with the new weights, in eval mode.
        lr: the learning rate that it was trained with.
        history: of that training.
    """

    def __init__(self, problem: Problem, model: nn.Module, lr: float, history: list[Record]) -> None:
        self.problem, self.model, self.lr, self.history = problem, model.eval().requires_grad_(False), lr, history

    @property
    def loss(self) -> float:
        """The validation loss of the weights that were kept."""
        return min(record.val for record in self.history)

    def mixed(self, gain: float) -> nn.Module:
        """The base with ``gain`` times the change of every weight and running statistic (Wortsman et al. 2022, WiSE-FT)."""
        if gain == 1:
            return self.model
        model = copy.deepcopy(self.problem.layer.model)
        if gain:
            tuned = self.model.state_dict()
            for name, value in model.state_dict().items():
                value.copy_(value.lerp(tuned[name], gain) if value.is_floating_point() else tuned[name])
        return model

    def outputs(self, inputs: Tensor, gains: Sequence[float]) -> list[Tensor]:
        """Outputs ``(N, ...)`` for each of ``gains`` (0: the base)."""
        return [run(self.mixed(gain), self.problem, inputs) for gain in gains]


@torch.no_grad()
def run(model: nn.Module, problem: Problem, inputs: Tensor) -> Tensor:
    """Outputs ``(N, ...)`` of a model of the base's form, in chunks that fit into memory."""
    return torch.cat([model(chunk.to(problem.device)) for chunk in inputs.split(problem.layer.rows(inputs))])


def fit_finetuned(problem: Problem, settings: OCDSettings, rates: Sequence[float]) -> FittedFinetune:
    """Train a copy of the base once for each of ``rates``, and keep the one of the least validation loss."""
    fits = [_fit(problem, settings, lr) for lr in rates]
    return min(fits, key=lambda fitted: fitted.loss)


def _fit(problem: Problem, settings: OCDSettings, lr: float) -> FittedFinetune:
    stream = TargetStream(problem, replace(TargetSettings.of(settings), folds=0), Describe())  # for its copies of samples
    take = problem.excerpt or stream.part
    inputs, targets = problem.train
    indices = Shuffled(len(inputs), settings.task_batch or settings.batch_size, seeded(problem.seed, "order"))
    changes = seeded(problem.seed, "augment")
    held, answers = validation_samples(problem, settings.val_samples)

    def loss(module: Trainee[nn.Module]) -> dict[str, Tensor]:
        chosen = next(indices)
        x, y = take(*stream.copy(inputs[chosen], targets[chosen], changes), changes)
        return {"task": problem.loss(module.network(x.to(problem.device)), y.to(problem.device)).mean()}

    def validate(module: Trainee[nn.Module]) -> float:
        return float(problem.loss(run(module.network, problem, held), answers.to(problem.device)).mean())

    loop = problem.stage("finetune", (settings, lr))
    model = copy.deepcopy(problem.layer.model).requires_grad_(True)
    with initial_weights(problem):  # for the dropout of the base
        how = replace(Training.of(settings), lr=lr)
        network, history = learn(Whole(model, None), loss, validate, how, loop, (indices, changes))
    return FittedFinetune(problem, network, lr, history)
