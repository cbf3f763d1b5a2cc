"""Out-of-distribution gate: beyond the validation quantile of the Mahalanobis distance, keep the base's weights.

A hypernetwork is as confident on out-of-distribution samples as on others. What was trained cannot tell them apart, since its
features need not react to what never varied in training. So the task gives plain features of the input itself
(``Task.signature``), and their Mahalanobis distance from the training samples decides. The gate needs no label, no other test
sample and no corruption.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ocd_bench.engine.capture import Trace
from ocd_bench.engine.controls.capacity import FittedPlain
from ocd_bench.engine.ocd import FittedOCD
from ocd_bench.engine.problem import Problem
from ocd_bench.seeds import seeded

SAMPLES = 10_000
"""Training samples that a gate looks at, at most."""


class Gate:
    """1 for samples whose signature is as near to the training samples' as ``share`` of the validation samples', else 0.

    Args:
        train: signatures of training samples ``(M, D)``, for the mean and the covariance.
        val: signatures of validation samples ``(V, D)``.
        share: fraction of the validation samples that pass, in (0, 1].
    """

    def __init__(self, train: Tensor, val: Tensor, share: float) -> None:
        train = train.double()
        self.mean = train.mean(0)
        centred = train - self.mean
        # The inverse root of the covariance. Directions of almost no variance get a floor, as numbers may be tied.
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(train) - 1))
        floor = 1e-6 * float(values.clamp(min=0).max()) + torch.finfo(torch.double).tiny
        self.whiten = vectors / values.clamp(min=floor).sqrt()
        self.threshold = float(self.distance(val).quantile(share))

    def distance(self, signature: Tensor) -> Tensor:
        """Mahalanobis distances ``(N,)`` of signatures ``(N, D)``."""
        return ((signature.cpu().double() - self.mean) @ self.whiten).norm(dim=1)

    def __call__(self, signature: Tensor) -> Tensor:
        """Factors ``(N,)``, on the signature's device. A signature that is not finite counts as out of distribution."""
        return (self.distance(signature) <= self.threshold).to(signature)


def gate_of(problem: Problem, share: float) -> Gate | None:
    """The gate of a problem from its training and validation samples as they are; None without signatures, or with share 0."""
    if problem.signature is None or not share:
        return None
    inputs = problem.train[0]
    chosen = torch.randperm(len(inputs), generator=seeded(problem.seed, "gate"))[:SAMPLES]
    train = problem.signature(inputs[chosen])
    return Gate(train, problem.signature(problem.val[0]), share)


@dataclass
class GatedOCD(FittedOCD):
    """OCD that keeps the base's weights where the gate is closed."""

    gate: Gate | None = None

    def factor(self, trace: Trace, gain: float) -> float | Tensor:
        assert self.gate is not None
        assert self.problem.signature is not None
        return gain * self.gate(self.problem.signature(trace.inputs)).to(trace.output.device)


class GatedPlain(FittedPlain):
    """A plain network that adds nothing where the gate is closed, as the hypernetwork's control."""

    def __init__(self, fitted: FittedPlain, gate: Gate) -> None:
        super().__init__(fitted.problem, fitted.describe, fitted.network, fitted.history)
        self.fitted, self.gate = fitted, gate

    def correction(self, trace: Trace) -> Tensor:
        assert self.problem.signature is not None
        correction = self.fitted.correction(trace)  # (N, ...)
        factor = self.gate(self.problem.signature(trace.inputs)).to(trace.output.device)  # (N,)
        return correction * factor.reshape(-1, *[1] * (correction.ndim - 1))


def gated(fitted: FittedOCD, gate: Gate) -> GatedOCD:
    """The same fit behind a gate."""
    return GatedOCD(**{field.name: getattr(fitted, field.name) for field in fields(FittedOCD)}, gate=gate)
