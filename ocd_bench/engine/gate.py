"""A gate that knows when it does not know: it closes, and leaves the base as it is, for samples unlike those of training.

A hypernetwork answers a stranger with full conviction. Whether a sample is one cannot be asked of what was trained (its
features need not notice what training never varied), so the task names plain numbers of the input itself (``Task.signature``),
and their Mahalanobis distance from the training samples decides. No label, no other test sample and no corruption is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ocd_bench.engine.problem import Problem

SAMPLES = 10_000
"""Training samples that a gate looks at, at most."""


class Gate:
    """1 for samples whose signature lies as near to the training samples' as nearly all validation samples' do, else 0.

    Args:
        train: signatures of training samples ``(M, D)``, for the mean and the covariance.
        val: signatures of validation samples ``(V, D)``.
        share: share of the validation samples that pass, in (0, 1].
    """

    def __init__(self, train: Tensor, val: Tensor, share: float) -> None:
        train = train.double()
        self.mean = train.mean(0)
        centred = train - self.mean
        # The inverse root of the covariance; directions that hardly vary count as varying a little (numbers may be tied).
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(train) - 1))
        floor = 1e-6 * float(values.clamp(min=0).max()) + torch.finfo(torch.double).tiny
        self.whiten = vectors / values.clamp(min=floor).sqrt()
        self.threshold = float(self.distance(val).quantile(share))

    def distance(self, signature: Tensor) -> Tensor:
        """Mahalanobis distances ``(N,)`` of signatures ``(N, D)``."""
        return ((signature.cpu().double() - self.mean) @ self.whiten).norm(dim=1)

    def __call__(self, signature: Tensor) -> Tensor:
        """Factors ``(N,)``, on the signature's device; a signature that is not finite is a stranger's."""
        return (self.distance(signature) <= self.threshold).to(signature)


def gate_of(problem: Problem, share: float) -> Gate | None:
    """The gate of a problem by its training and validation samples as they are; None without signatures, or with share 0."""
    if problem.signature is None or not share:
        return None
    inputs = problem.train[0]
    chosen = torch.randperm(len(inputs), generator=problem.generator("gate"))[:SAMPLES]
    train = problem.signature(inputs[chosen])
    return Gate(train, problem.signature(problem.val[0]), share)


def factors(gate: Gate | None, problem: Problem, inputs: Tensor, device: torch.device) -> Tensor:
    """The gate's factors ``(N,)`` for inputs; ones where there is none."""
    if gate is None or problem.signature is None:
        return torch.ones(len(inputs), device=device)
    return gate(problem.signature(inputs)).to(device)
