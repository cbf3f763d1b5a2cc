"""The gain: one factor of all weight changes, chosen on validation samples, 0 among its candidates.

It is what keeps a hypernetwork from costing a base it cannot help: one that has learned nothing is switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_bench.engine.problem import Problem


@dataclass(frozen=True)
class Gain:
    """The factor taken, and the mean validation loss under each candidate."""

    value: float
    candidates: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()


def choose_gain(candidates: Sequence[float], losses: Tensor, quality: Tensor | None = None, share: float = 1.0) -> Gain:
    """The candidate of least mean loss, if it beats gain 0 by more than the standard error of their paired difference.

    In its stead the least one that keeps ``share`` of what it gains: the loss is flat about its minimum for samples like these,
    and a smaller change does less harm to others.

    Args:
        candidates: G factors; without a 0 among them the least mean loss decides alone.
        losses: per-sample validation losses ``(G, M)``; a candidate with a loss that is not finite is out.
        quality: ``(G,)``, higher is better; a candidate of lower quality than gain 0 is out: a better loss must not be paid
            for with worse answers.
    """
    losses = losses.double().cpu()
    means = torch.where(losses.isfinite().all(1), losses.mean(1), torch.inf)
    allowed = means
    if quality is not None and 0.0 in candidates:
        allowed = torch.where(quality >= quality[list(candidates).index(0.0)], means, torch.inf)
    best = int(allowed.argmin())
    if 0.0 in candidates:
        base = list(candidates).index(0.0)
        difference = losses[base] - losses[best]
        error = difference.std() / len(difference) ** 0.5 if len(difference) > 1 else torch.tensor(torch.inf)
        if not difference.mean() > error:
            best = base
        enough = means[base] - share * (means[base] - means[best])
        best = min((k for k in range(len(means)) if allowed[k] <= enough), key=lambda k: candidates[k], default=best)
    return Gain(float(candidates[best]), tuple(map(float, candidates)), tuple(means.tolist()))


def gain_on_validation(
    problem: Problem,
    candidates: Sequence[float],
    outputs: Callable[[Tensor, Sequence[float], int], Sequence[Tensor]],
    limit: int,
    batch_size: int,
    share: float = 1.0,
) -> Gain:
    """:func:`choose_gain` by the losses of at most ``limit`` validation samples; a single candidate is taken unseen.

    Args:
        outputs: of inputs ``(N, ...)``, the candidates and the index of the first sample; one ``(N, ...)`` per candidate.
    """
    if len(candidates) == 1:
        return Gain(float(candidates[0]))
    inputs, targets = problem.validation(limit)
    losses, scores = [], []
    for start in range(0, len(inputs), batch_size):
        piece = slice(start, start + batch_size)
        y = targets[piece].to(problem.device)
        found = outputs(inputs[piece], candidates, start)
        losses.append(torch.stack([problem.loss(output, y).detach().cpu() for output in found]))
        if problem.quality:
            scores.append(torch.stack([problem.quality.scores(output, y).detach().double().cpu() for output in found]))
        problem.progress("gain", min(len(inputs), start + batch_size), len(inputs))
    quality = problem.quality.reduce(torch.cat(scores, 1)) if problem.quality else None
    return choose_gain(candidates, torch.cat(losses, 1), quality, share)
