"""`capacity` for large outputs (views, waveforms): a plain network that corrects the base's output position by position.

It has the condition, encoder and trunk of the hypernetwork, on the same inputs. What the trunk starts from is not a noisy code
but what the task knows at a position (``Task.positions``): a ray and its colour, a frame of the mixture and of the estimates. A
training step sees the samples that the hypernetwork's training runs through the base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ocd_bench.engine.capture import Describe, Trace
from ocd_bench.engine.condition import Condition, Features, Standardise
from ocd_bench.engine.controls.capacity import FittedPlain
from ocd_bench.engine.hypernetwork import Trunk
from ocd_bench.engine.learn import Trainee, Training, learn
from ocd_bench.engine.ocd import condition_inputs, initial_weights
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.shuffled import Shuffled
from ocd_bench.engine.stream import TargetStream
from ocd_bench.engine.targets import TargetSettings, validation_samples
from ocd_bench.seeds import seeded


class PositionNetwork(nn.Module):
    """What is added to the base's output at each of P positions, ``(N, P, C)``.

    Args:
        known: D, the length of what is known at a position.
        channels: C.
    """

    def __init__(self, condition: Condition, known: int, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.condition, self.trunk = condition, Trunk(channels, width, depth)
        self.standard, self.place = Standardise(known), nn.Linear(known, width)

    def forward(self, features: Features, inputs: Tensor | None, known: Tensor) -> Tensor:
        e = self.condition(features, inputs)  # (N, width)
        return self.trunk(e[:, None], self.place(self.standard(known)))


class FittedByPosition(FittedPlain):
    """A trained network for positions."""

    def correction(self, trace: Trace) -> Tensor:
        return corrected(self.problem, self.network, self.describe(trace), trace.inputs, trace)


def corrected(problem: Problem, network: nn.Module, features: Features, inputs: Tensor | None, trace: Trace) -> Tensor:
    """What the network adds to the output of a trace, ``(N, ...)``.

    Args:
        inputs: what the encoder sees: the whole samples, where the trace is of a part of them.
    """
    assert problem.positions is not None
    known, _, assemble = problem.positions(trace.inputs, trace.output)
    return assemble(network(features, inputs, known))


def fit_by_position(problem: Problem, settings: OCDSettings) -> FittedByPosition:
    """Train the network for the steps of the hypernetwork. It starts at the base's own output."""
    with initial_weights(problem):
        encoder, describe = condition_inputs(problem, settings)
        stream = TargetStream(problem, replace(TargetSettings.of(settings), folds=0), describe, encoder is not None)
        rows = min(settings.task_batch or settings.batch_size, len(problem.train[0]))
        pilot = torch.randperm(len(problem.train[0]), generator=seeded(problem.seed, "pilot"))[:rows]
        network = _calibrated(problem, settings, encoder, list(_traces(stream, pilot, seeded(problem.seed, "pilot"))), describe)
        return _train(problem, settings, stream, Trainee(network, None).to(problem.device), rows)


Piece = tuple[Trace, Tensor, Tensor]
"""A trace of parts of samples, the whole samples, and the task's targets of the parts."""


def _traces(stream: TargetStream, indices: Tensor, generator: torch.Generator) -> Iterator[Piece]:
    """Copies of training samples through the base, as the hypernetwork's training runs them."""
    problem, start = stream.problem, 0
    x, y = stream.copy(problem.train[0][indices], problem.train[1][indices], generator)
    for trace, answers in problem.layer.pairs(*(problem.excerpt or stream.part)(x, y, generator)):
        yield trace, x[start : start + len(answers)].to(problem.device), answers
        start += len(answers)


def _calibrated(
    problem: Problem, settings: OCDSettings, encoder: nn.Module | None, pieces: Sequence[Piece], describe: Describe
) -> PositionNetwork:
    """The untrained network, with the statistics of some samples."""
    assert problem.positions is not None
    found = [describe(trace) for trace, _, _ in pieces]
    features = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    inputs = torch.cat([whole for _, whole, _ in pieces]) if encoder is not None else None
    places = [problem.positions(trace.inputs, trace.output) for trace, _, _ in pieces]
    few = None if inputs is None else inputs[:2]
    condition = Condition.like(
        {name: value[:2] for name, value in features.items()}, few, settings.width, encoder, settings.dropout
    )
    known = torch.cat([place[0].flatten(0, 1) for place in places])
    network = PositionNetwork(condition, known.shape[1], places[0][1], settings.width, settings.depth).to(problem.device)
    network.standard.calibrate(known)
    condition.calibrate(features, inputs)
    return network


def _train(
    problem: Problem, settings: OCDSettings, stream: TargetStream, trainee: Trainee[PositionNetwork], rows: int
) -> FittedByPosition:
    indices, changes = (
        Shuffled(len(problem.train[0]), rows, seeded(problem.seed, "order")),
        seeded(problem.seed, "augment"),
    )
    held, answers = validation_samples(problem, settings.val_samples)

    def loss(module: Trainee[PositionNetwork]) -> dict[str, Tensor]:
        chosen = next(indices)
        parts = []
        for trace, whole, y in _traces(stream, chosen, changes):
            inputs = whole if stream.keep_inputs else None
            change = corrected(problem, module.network, stream.describe(trace), inputs, trace)
            parts.append(problem.loss(trace.output + change, y).sum())
        return {"task": torch.stack(parts).sum() / len(chosen)}

    def validate(module: Trainee[PositionNetwork]) -> float:
        (output,) = FittedByPosition(problem, stream.describe, module.network, []).outputs(held, (1.0,))
        return float(problem.loss(output, answers.to(problem.device)).mean())

    loop = problem.stage("capacity", settings)
    network, history = learn(trainee, loss, validate, Training.of(settings), loop, (indices, changes))
    return FittedByPosition(problem, stream.describe, network, history)
