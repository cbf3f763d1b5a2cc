"""The `ocd-nn` control: no learning, but the weight change of the training sample with the nearest I(x) (paper's ablation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ocd_bench.engine.apply import combined
from ocd_bench.engine.capture import Describe
from ocd_bench.engine.condition import Condition
from ocd_bench.engine.forms import concatenate
from ocd_bench.engine.ocd import condition_inputs
from ocd_bench.engine.overfit import Overfit, overfitted
from ocd_bench.engine.problem import Problem
from ocd_bench.engine.settings import OCDSettings
from ocd_bench.seeds import seeded


class Nearest:
    """Neighbours in the space of I(x), each feature in training units and divided by the square root of its length.

    A neighbour's weight change is overfitted when it is needed, on the whole of the training sample. So it is exact in every
    form, and only features are kept. All parts of I(x) count, whatever ``ocd.conditions`` names; features of x itself count
    where they need no training (``problem.encoder`` gives a module without parameters).

    Attributes:
        table: vectors ``(M, D)`` of training samples, of random ones where all would be more than :attr:`LIMIT` numbers.
    """

    LIMIT = 2**27

    def __init__(self, problem: Problem, settings: OCDSettings) -> None:
        self.problem, self.how = problem, Overfit.of(settings)
        self.describe = Describe(problem.output_features, condition_inputs(problem, settings)[1].fixed)
        self.inputs, self.targets = problem.train
        sizes = {name: value.shape[1] for name, value in self._features(self.inputs[:1]).items()}
        most = max(1, self.LIMIT // sum(sizes.values()))
        if len(self.inputs) > most:
            chosen = torch.randperm(len(self.inputs), generator=seeded(problem.seed, "neighbours"))[:most]
            self.inputs, self.targets = self.inputs[chosen], self.targets[chosen]
        known = self._features(self.inputs)
        self.condition = Condition(sizes, 1).to(problem.device)
        self.condition.calibrate(known)
        self.table = self._vectors(known)

    def _features(self, inputs: Tensor) -> dict[str, Tensor]:
        pieces = [self.describe(trace) for trace in self.problem.layer.traces(inputs)]
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    @torch.no_grad()
    def _vectors(self, features: Mapping[str, Tensor]) -> Tensor:
        standard = self.condition.standardised(features)
        return torch.cat([value / value.shape[1] ** 0.5 for value in standard.values()], 1)

    @torch.no_grad()
    def outputs(self, inputs: Tensor, gains: Sequence[float]) -> list[Tensor]:
        """Outputs ``(N, ...)`` with the neighbours' weight changes, for each of ``gains``."""
        layer, chunks = self.problem.layer, list[list[Tensor]]()
        for trace in layer.traces(inputs):
            index = torch.cdist(self._vectors(self.describe(trace)), self.table).argmin(1).cpu()  # (N,)
            neighbours = overfitted(layer, self.inputs[index], self.targets[index], self.problem.loss, self.how)
            delta = concatenate([delta for _, _, delta in neighbours])
            factors = [torch.full((len(trace),), gain, device=trace.output.device) for gain in gains]
            chunks.append([combined(trace, [delta], factor, self.problem.combine) for factor in factors])
        return [torch.cat(parts) for parts in zip(*chunks, strict=True)]
