"""The `capacity` control: a plain network of the hypernetwork's size, on the same inputs, that corrects the base's output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ocd_bench.engine.condition import AuxiliaryHead, Condition, Features
from ocd_bench.engine.denoiser import Trunk, parameter_count
from ocd_bench.engine.folds import Folds
from ocd_bench.engine.gate import Gate, factors, gate_of
from ocd_bench.engine.ocd import LARGEST_OUTPUT, make_condition, make_overfitter, small_output
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.engine.targets import Overfitter, Targets, join
from ocd_bench.engine.training import Record, Training, shuffled, train
from ocd_bench.errors import NotApplicable
from ocd_bench.seeds import derive


class PlainNetwork(nn.Module):
    """What to add to the base's output ``(N, D)``, from the hypernetwork's condition and through its trunk.

    Its auxiliary head is the hypernetwork's too.
    """

    def __init__(self, condition: Condition, trunk: Trunk, head: AuxiliaryHead | None) -> None:
        super().__init__()
        self.condition, self.trunk, self.head = condition, trunk, head

    def forward(self, features: Features, inputs: Tensor | None) -> Tensor:
        return self.trunk(self.condition(features, inputs))


class FittedPlain:
    """A trained plain network; see :func:`fit_plain`."""

    def __init__(self, problem: Problem, overfitter: Overfitter, network: PlainNetwork, history: list[Record]) -> None:
        self.problem, self.overfitter, self.network, self.history = problem, overfitter, network, history
        self.gate: Gate | None = None
        self.parameters = parameter_count(network)

    @torch.no_grad()
    def outputs(self, inputs: Tensor, gains: Sequence[float]) -> list[Tensor]:
        """Base output plus each gain times the network's, ``(N, ...)``; strangers get the base's, as from the hypernetwork."""
        found: list[list[Tensor]] = [[] for _ in gains]
        for piece in inputs.split(self.overfitter.rows(inputs)):
            trace = self.problem.layer.trace(piece.to(self.problem.device))
            more = self.network(self.overfitter.describe(trace), trace.inputs)
            more = more * factors(self.gate, self.problem, trace.inputs, trace.output.device)[:, None]
            more = more.reshape(trace.output.shape)
            for gain, parts in zip(gains, found, strict=True):
                parts.append(trace.output + gain * more)
        return [torch.cat(parts) for parts in found]


def fit_plain(problem: Problem, settings: OCDSettings) -> FittedPlain:
    """Train a plain network on the training samples, with the hypernetwork's budget, augmentation, encoder and trunk.

    It begins at the base's own output, so that it is no weaker a control than need be.

    Raises:
        NotApplicable: if the output is not a small vector.
    """
    inputs, _ = problem.train
    cuda = [problem.device] if problem.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(derive(problem.seed, "weights"))
        size = small_output(problem)
        if not size:
            raise NotApplicable(
                f"the output of a sample is not a vector of at most {LARGEST_OUTPUT} numbers: no plain network of the "
                "hypernetwork's size gives it"
            )
        encoder = problem.encoder() if settings.input_encoder else None
        encoder = None if encoder is None else encoder.to(problem.device)
        overfitter = make_overfitter(problem, settings, encoder)
        pilot = torch.randperm(len(inputs), generator=problem.generator("pilot"))[:512]
        folds = Folds.of(problem.train, overfitter, settings.folds, problem.folds)
        known, _ = _changed(folds, pilot, problem.generator("pilot"))
        condition = make_condition(overfitter, encoder, settings.width, known, settings.dropout)
        head = AuxiliaryHead(settings.width, size) if settings.auxiliary else None
        network = PlainNetwork(condition, Trunk(size, settings.width, settings.depth), head).to(problem.device)
        condition.calibrate(known.features, known.inputs)
        return _train(problem, settings, overfitter, folds, network)


def _train(problem: Problem, settings: OCDSettings, overfitter: Overfitter, folds: Folds, network: PlainNetwork) -> FittedPlain:
    inputs, _ = problem.train
    indices = shuffled(len(inputs), settings.batch_size, problem.generator("order"))
    changes = problem.generator("augment")

    def loss(module: PlainNetwork) -> dict[str, Tensor]:
        known, y = _changed(folds, next(indices), changes)
        e, y = module.condition(known.features, known.inputs), y.to(problem.device)
        found = {"task": problem.loss(known.code + module.trunk(e).reshape(known.code.shape), y).mean()}
        if module.head is not None:
            found["auxiliary"] = settings.auxiliary * problem.loss(module.head(e).reshape(known.code.shape), y).mean()
        return found

    held, answers = problem.validation(settings.val_samples)

    def validate(module: PlainNetwork) -> float:
        fitted = FittedPlain(problem, overfitter, module, [])
        (found,) = fitted.outputs(held, (1.0,))
        return float(problem.loss(found, answers.to(problem.device)).mean())

    how = Training.of(settings)
    best, history = train(network, loss, validate, how, lambda done, total: problem.progress("capacity", done, total))
    best.head = None  # it has served
    fitted = FittedPlain(problem, overfitter, best, history)
    fitted.gate = gate_of(problem, settings.gate)
    return fitted


def _changed(folds: Folds, indices: Tensor, generator: torch.Generator) -> tuple[Targets, Tensor]:
    """Features and base outputs of changed training samples, and their targets."""
    parts, answers = [], []
    for overfitter, x, y in folds.parts(folds.grouped(indices)):
        x, y = overfitter.change(x, y, generator)
        parts.append(_describe(overfitter, x, y))
        answers.append(y)
    return join(parts), torch.cat(answers)


def _describe(overfitter: Overfitter, inputs: Tensor, targets: Tensor) -> Targets:
    """Features of changed samples; in place of a code, the base's output."""
    parts = []
    for piece in inputs.split(overfitter.rows(inputs)):
        trace = overfitter.layer.trace(piece.to(overfitter.device))
        parts.append(Targets(overfitter.describe(trace), trace.output, trace.inputs if overfitter.keep_inputs else None))
    return join(parts)
