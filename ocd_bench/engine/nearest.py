"""No learning at all: the weight change of the training sample that looks most alike to the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ocd_bench.engine.condition import Condition
from ocd_bench.engine.deltas import concatenate
from ocd_bench.engine.denoiser import parameter_count
from ocd_bench.engine.ocd import make_overfitter
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.settings import CONDITIONS, OCDSettings


class Nearest:
    """Neighbours in the space of I(x), each feature in training units and divided by the square root of its length.

    A neighbour's weight change is overfitted when it is needed, on the whole of the training sample: exact in every form, and
    nothing but features is kept. Features of x itself count where they need no training (``problem.encoder`` gives a module
    without parameters).

    Attributes:
        table: vectors ``(M, D)`` of the training samples; at most :attr:`LIMIT` numbers, of a random part of them if need be.
    """

    LIMIT = 2**27

    def __init__(self, problem: Problem, settings: OCDSettings) -> None:
        encoder = problem.encoder() if settings.input_encoder else None
        if encoder is not None and parameter_count(encoder) > 0:
            encoder = None
        settings = replace(settings, conditions=CONDITIONS)  # whatever the hypernetwork is told, neighbours are near in I(x)
        self.problem = problem
        self.overfitter = make_overfitter(problem, settings, None if encoder is None else encoder.to(problem.device).eval())
        self.inputs, self.targets = problem.train
        sizes = {name: value.shape[1] for name, value in self._features(self.inputs[:1]).items()}
        most = max(1, self.LIMIT // sum(sizes.values()))
        if len(self.inputs) > most:
            chosen = torch.randperm(len(self.inputs), generator=problem.generator("neighbours"))[:most]
            self.inputs, self.targets = self.inputs[chosen], self.targets[chosen]
        pieces = [self._features(piece) for piece in self.inputs.split(self.overfitter.rows(self.inputs))]
        known = {name: torch.cat([piece[name] for piece in pieces]) for name in sizes}
        self.condition = Condition(sizes, 1).to(problem.device)
        self.condition.calibrate(known)
        self.table = self._vectors(known)

    def _features(self, inputs: Tensor) -> dict[str, Tensor]:
        return self.overfitter.describe(self.problem.layer.trace(inputs.to(self.problem.device)))

    @torch.no_grad()
    def _vectors(self, features: Mapping[str, Tensor]) -> Tensor:
        standard = self.condition.standardised(features)
        return torch.cat([value / value.shape[1] ** 0.5 for value in standard.values()], 1)

    @torch.no_grad()
    def outputs(self, inputs: Tensor, gains: Sequence[float]) -> list[Tensor]:
        """Outputs ``(N, ...)`` with the neighbours' weight changes, for each of ``gains``."""
        layer, found = self.problem.layer, [[] for _ in gains]  # type: ignore[var-annotated]
        for piece in inputs.split(self.overfitter.rows(inputs)):
            trace = layer.trace(piece.to(self.problem.device))
            index = torch.cdist(self._vectors(self.overfitter.describe(trace)), self.table).argmin(1).cpu()
            neighbours = self.overfitter.deltas(self.inputs[index], self.targets[index])
            delta = concatenate([delta for _, _, delta in neighbours])
            for gain, parts in zip(gains, found, strict=True):
                factor = torch.full((len(piece),), gain, device=trace.output.device)
                parts.append(layer.forward(trace, delta.scaled(factor)))
        return [torch.cat(parts) for parts in found]
