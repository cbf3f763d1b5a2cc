"""The `capacity` control: a plain network of the hypernetwork's size, on the same inputs, that corrects the base's output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ocd_bench.engine.capture import Describe, Trace
from ocd_bench.engine.condition import AuxiliaryHead, Condition, Features
from ocd_bench.engine.hypernetwork import Trunk
from ocd_bench.engine.learn import Record, Trainee, Training, learn, parameter_count
from ocd_bench.engine.ocd import LARGEST_OUTPUT, condition_inputs, initial_weights, small_output
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.shuffled import Shuffled
from ocd_bench.engine.stream import TargetStream
from ocd_bench.engine.targets import Targets, TargetSettings, join, validation_samples
from ocd_bench.errors import NotApplicable
from ocd_bench.seeds import seeded


class PlainNetwork(nn.Module):
    """What is added to the base's output, ``(N, D)``: the hypernetwork's condition and trunk."""

    def __init__(self, condition: Condition, trunk: Trunk) -> None:
        super().__init__()
        self.condition, self.trunk = condition, trunk

    def forward(self, features: Features, inputs: Tensor | None) -> Tensor:
        return self.trunk(self.condition(features, inputs))


class FittedPlain:
    """A trained plain network; see :func:`fit_plain`."""

    def __init__(self, problem: Problem, describe: Describe, network: nn.Module, history: list[Record]) -> None:
        self.problem, self.describe, self.network, self.history = problem, describe, network, history
        self.parameters = parameter_count(network)

    def correction(self, trace: Trace) -> Tensor:
        """What the network adds to the base's output, ``(N, D)``."""
        return self.network(self.describe(trace), trace.inputs)

    @torch.no_grad()
    def outputs(self, inputs: Tensor, gains: Sequence[float]) -> list[Tensor]:
        """The base's output plus each gain times the network's, ``(N, ...)``."""
        found: list[list[Tensor]] = [[] for _ in gains]
        for trace in self.problem.layer.traces(inputs):
            correction = self.correction(trace).reshape(trace.output.shape)
            for gain, parts in zip(gains, found, strict=True):
                parts.append(trace.output + gain * correction)
        return [torch.cat(parts) for parts in found]


def fit_plain(problem: Problem, settings: OCDSettings) -> FittedPlain:
    """Train a plain network on the training samples, with the hypernetwork's budget, augmentation, encoder and trunk.

    It starts at the base's own output, so that it is not a weaker control than necessary. For an output that is not a small
    vector see :mod:`.capacity_positions`.

    Raises:
        NotApplicable: if the output is not a small vector.
    """
    with initial_weights(problem):
        size = small_output(problem)
        if not size:
            raise NotApplicable(
                f"the output of a sample is not a vector of at most {LARGEST_OUTPUT} numbers: no plain network of the "
                "hypernetwork's size gives it, and the task names no positions (Task.positions)"
            )
        encoder, describe = condition_inputs(problem, settings)
        stream = TargetStream(problem, TargetSettings.of(settings), describe, encoder is not None)
        pilot = torch.randperm(len(problem.train[0]), generator=seeded(problem.seed, "pilot"))[:512]
        known, _ = _changed(stream, pilot, seeded(problem.seed, "pilot"))
        condition = Condition.like(*_first(known), settings.width, encoder, settings.dropout)
        head = AuxiliaryHead(settings.width, size) if settings.auxiliary else None
        trainee = Trainee(PlainNetwork(condition, Trunk(size, settings.width, settings.depth)), head).to(problem.device)
        condition.calibrate(known.features, known.inputs)
        return _train(problem, settings, stream, trainee)


def _first(known: Targets) -> tuple[Features, Tensor | None]:
    few = known.take(slice(2))
    return few.features, few.inputs


def _train(problem: Problem, settings: OCDSettings, stream: TargetStream, trainee: Trainee[PlainNetwork]) -> FittedPlain:
    indices = Shuffled(len(problem.train[0]), settings.batch_size, seeded(problem.seed, "order"))
    changes = seeded(problem.seed, "augment")

    def loss(module: Trainee[PlainNetwork]) -> dict[str, Tensor]:
        known, y = _changed(stream, next(indices), changes)
        output, y = known.code, y.to(problem.device)  # output: (N, ...), the base's
        e = module.network.condition(known.features, known.inputs)  # (N, width)
        found = {"task": problem.loss(output + module.network.trunk(e).reshape(output.shape), y).mean()}
        if module.head is not None:
            found["auxiliary"] = settings.auxiliary * problem.loss(module.head(e).reshape(output.shape), y).mean()
        return found

    held, answers = validation_samples(problem, settings.val_samples)

    def validate(module: Trainee[PlainNetwork]) -> float:
        (output,) = FittedPlain(problem, stream.describe, module.network, []).outputs(held, (1.0,))
        return float(problem.loss(output, answers.to(problem.device)).mean())

    loop = problem.stage("capacity", settings)
    network, history = learn(trainee, loss, validate, Training.of(settings), loop, (indices, changes))
    return FittedPlain(problem, stream.describe, network, history)


def _changed(stream: TargetStream, indices: Tensor, generator: torch.Generator) -> tuple[Targets, Tensor]:
    """Features of changed training samples with the base's output in place of a code, and their targets."""
    parts, answers = [], []
    for layer, x, y in stream.changed(stream.grouped(indices), generator):
        for trace in layer.traces(x):
            inputs = trace.inputs if stream.keep_inputs else None
            parts.append(Targets(stream.describe(trace), trace.output, inputs))
        answers.append(y)
    return join(parts), torch.cat(answers)
