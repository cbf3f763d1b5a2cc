"""Scale-invariant SDR, the best assignment of estimates to speakers, and functions of the two.

SI-SDR is that of Le Roux et al. 2019 ("SDR - half-baked or well done?"), computed after the mean of each signal is subtracted.
The assignment uses the Hungarian algorithm on the matrix of scores of all pairs, as Dovrat et al. 2021 propose for many
speakers. It is exact for any number of speakers.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

EPS = 1e-8


def si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """SI-SDR in dB of ``estimate (..., T)`` against ``target (..., T)``, ``(...)``; differentiable."""
    estimate = estimate - estimate.mean(-1, keepdim=True)
    target = target - target.mean(-1, keepdim=True)
    scale = (estimate * target).sum(-1, keepdim=True) / (target.square().sum(-1, keepdim=True) + EPS)
    signal = scale * target
    ratio = (signal.square().sum(-1) + EPS) / ((estimate - signal).square().sum(-1) + EPS)
    return 10 * torch.log10(ratio)


def correlations(a: Tensor, b: Tensor) -> Tensor:
    """Correlation coefficients ``(N, C, D)`` of every pair of ``a (N, C, T)`` and ``b (N, D, T)``; 0 for silence."""
    a = normalize((a - a.mean(-1, keepdim=True)).double(), dim=-1)
    b = normalize((b - b.mean(-1, keepdim=True)).double(), dim=-1)
    return a @ b.mT


def assign(scores: Tensor) -> Tensor:
    """Indices ``(N, C)`` such that row ``indices[n, c]`` of ``scores[n]`` goes to column c and the sum of scores is largest.

    Args:
        scores: ``(N, C, C)``; a value that is not finite counts as the worst.
    """
    # Transposed: entry [n, c, d] is the score of estimate d for speaker c.
    table = torch.nan_to_num(scores.detach().double(), nan=-1e9, posinf=1e9, neginf=-1e9).mT.cpu().numpy()
    rows = np.array([linear_sum_assignment(matrix, maximize=True)[1] for matrix in table], dtype=np.int64)
    return torch.from_numpy(rows.reshape(table.shape[:2])).to(scores.device)


def reorder(estimates: Tensor, indices: Tensor) -> Tensor:
    """``estimates (N, C, T)`` with channel ``indices[n, c]`` in place c."""
    return estimates.gather(1, indices[..., None].expand_as(estimates))


def align(estimates: Tensor, targets: Tensor) -> Tensor:
    """``estimates (N, C, T)`` in the order of speakers that gives the largest mean SI-SDR against ``targets (N, C, T)``.

    SI-SDR is a function of the squared correlation only. So the scores of all pairs come from one matrix product.
    """
    with torch.no_grad():
        explained = correlations(estimates, targets).square()  # (N, C, C)
        pairs = 10 * torch.log10((explained + EPS) / (1 - explained + EPS))
    return reorder(estimates, assign(pairs))


def pit_si_sdr(estimates: Tensor, targets: Tensor) -> Tensor:
    """SI-SDR in dB under the best permutation, mean over speakers, ``(N,)``; differentiable in ``estimates``."""
    return si_sdr(align(estimates, targets), targets).mean(-1)


def si_sdr_of_mixture(targets: Tensor, mixture: Tensor | None = None) -> Tensor:
    """SI-SDR in dB of ``mixture (N, T)`` as estimate of each speaker of ``targets (N, C, T)``; mean, ``(N,)``. None: the
    mixture is the sum of the targets."""
    mixture = targets.sum(1) if mixture is None else mixture
    return si_sdr(mixture[:, None].expand_as(targets), targets).mean(-1)


def average_draws(outputs: Tensor) -> Tensor:
    """Mean waveforms ``(N, C, T)`` of K draws ``(K, N, C, T)``, each draw's speakers put into the order of the first's.

    The order is that of the largest summed correlation, sign included: draws of opposite sign would cancel.
    """
    draws, n = outputs.shape[:2]
    if draws == 1:
        return outputs[0]
    first, others = outputs[0], outputs[1:].flatten(0, 1)  # (N, C, T), ((K - 1) * N, C, T)
    indices = assign(correlations(others, first.repeat(draws - 1, 1, 1)))
    return torch.cat([first[None], reorder(others, indices).unflatten(0, (draws - 1, n))]).mean(0)
