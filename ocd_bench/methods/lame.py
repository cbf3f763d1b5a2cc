"""``lame``: Laplacian adjusted maximum-likelihood estimation, written from the paper (Boudiaf et al., CVPR 2022,
arXiv 2201.05718). It changes the batch's predictions, not the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import normalize

from ocd_bench.method import Context, Method
from ocd_bench.methods.common import Classifier
from ocd_bench.methods.settings import LameSettings

TOLERANCE = 1e-6
"""Largest change of any probability at which the iteration has converged."""


def affinity(features: torch.Tensor, neighbours: int) -> torch.Tensor:
    """Symmetric k-nearest-neighbour affinity ``(N, N)`` of features ``(N, D)`` by cosine, without self-loops.

    1 where two samples are among each other's neighbours, 1/2 where only one is: the objective sees a matrix only through its
    symmetric part. A batch of one sample has no neighbour and an affinity of zero.
    """
    n = len(features)
    near = normalize(features, dim=1)
    near = near @ near.T
    near.fill_diagonal_(-torch.inf)
    chosen = near.topk(min(neighbours, n - 1), dim=1).indices
    graph = torch.zeros_like(near).scatter_(1, chosen, 1.0)
    return (graph + graph.T) / 2


def laplacian_adjusted(logits: torch.Tensor, weights: torch.Tensor, iterations: int) -> torch.Tensor:
    """Log-probabilities ``(N, K)`` of the fixed point of z_i ∝ q_i exp(Σ_j w_ij z_j), started at q = softmax(logits).

    This is the paper's concave-convex procedure (section 4) on Σ_i KL(z_i ‖ q_i) − ½ Σ_ij w_ij z_i·z_j.
    """
    log_q = log_z = logits.log_softmax(-1)
    for _ in range(iterations):
        before = log_z.exp()
        log_z = (log_q + weights @ before).log_softmax(-1)
        if (log_z.exp() - before).abs().max() <= TOLERANCE:
            break
    return log_z


class Lame(Method):
    """Neighbours in feature space, within a test batch, pull each other's class probabilities together."""

    name = "lame"
    description = "class probabilities smoothed over nearest neighbours within the test batch"
    section = "lame"
    Settings = LameSettings
    default = False

    def fit(self, context: Context) -> Callable[[torch.Tensor], torch.Tensor]:
        settings: LameSettings = context.settings("lame")
        classifier = Classifier(context)

        def predict(inputs: torch.Tensor) -> torch.Tensor:
            features, logits = classifier(inputs)
            return laplacian_adjusted(logits, affinity(features, settings.neighbours), settings.iterations)

        return predict


METHODS = [Lame()]
