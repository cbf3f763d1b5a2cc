"""``lame``: Laplacian adjusted maximum-likelihood estimation, written from the paper (Boudiaf et al., CVPR 2022,
arXiv 2201.05718). It changes the predictions for a batch, not the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import normalize

from ocd_bench.method import Context, Method
from ocd_bench.methods.settings import LameSettings
from ocd_bench.online import Classifier

TOLERANCE = 1e-6
"""The iteration has converged when no probability changes by more than this."""


def affinity(features: torch.Tensor, neighbours: int) -> torch.Tensor:
    """Symmetric k-nearest-neighbour affinity ``(N, N)`` of features ``(N, D)`` by cosine, without self-loops.

    An entry is 1 where two samples are neighbours of each other, and 1/2 where only one is a neighbour of the other: the
    objective depends on the symmetric part of the matrix only. A batch of one sample has the affinity zero.
    """
    n = len(features)
    near = normalize(features, dim=1)
    near = near @ near.T
    near.fill_diagonal_(-torch.inf)
    chosen = near.topk(min(neighbours, n - 1), dim=1).indices
    graph = torch.zeros_like(near).scatter_(1, chosen, 1.0)
    return (graph + graph.T) / 2


def laplacian_adjusted(logits: torch.Tensor, weights: torch.Tensor, iterations: int) -> torch.Tensor:
    """Class log-probabilities ``(N, K)`` that minimise Σ_i KL(z_i ‖ q_i) − ½ Σ_ij w_ij z_i·z_j, with q = softmax(logits).

    The paper's concave-convex procedure (section 4): z_i ∝ q_i exp(Σ_j w_ij z_j) is repeated, beginning with z = q.

    Args:
        logits: ``(N, K)``.
        weights: the affinity ``(N, N)``.
        iterations: maximum number of iterations.
    """
    log_q = log_z = logits.log_softmax(-1)
    for _ in range(iterations):
        before = log_z.exp()
        log_z = (log_q + weights @ before).log_softmax(-1)
        if (log_z.exp() - before).abs().max() <= TOLERANCE:
            break
    return log_z


class Lame(Method):
    """Moves the class probabilities of neighbours in feature space towards each other, within a test batch."""

    name = "lame"
    description = "class probabilities smoothed over nearest neighbours within the test batch"
    section = "lame"
    Settings = LameSettings

    def fit(self, context: Context) -> Callable[[torch.Tensor], torch.Tensor]:
        settings: LameSettings = context.settings("lame")
        classifier = Classifier(context)

        def predict(inputs: torch.Tensor) -> torch.Tensor:
            features, logits = classifier(inputs)
            return laplacian_adjusted(logits, affinity(features, settings.neighbours), settings.iterations)

        return predict


METHODS = [Lame()]
