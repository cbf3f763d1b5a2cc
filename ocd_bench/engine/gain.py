"""The gain: one factor of all weight changes, chosen on validation samples, 0 among its candidates.

It is what keeps a hypernetwork from costing a base it cannot help: one that has learned nothing is switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_bench.engine.problem import Problem, Quality
from ocd_bench.engine.settings import OCDSettings

RESAMPLES = 400
"""Bootstrap draws behind the standard error of a quality."""


@dataclass(frozen=True)
class Gain:
    """The factor taken, and the mean validation loss under each candidate."""

    value: float
    candidates: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()


def choose_gain(
    candidates: Sequence[float],
    losses: Tensor,
    quality: Tensor | None = None,
    share: float = 1.0,
    margins: Tensor | None = None,
) -> Gain:
    """The candidate of least mean loss, if it beats gain 0 by more than the standard error of their paired difference.

    In its stead the least one that keeps ``share`` of what it gains: the loss is flat about its minimum for samples like these,
    and a smaller change does less harm to others.

    Args:
        candidates: G factors; without a 0 among them the least mean loss decides alone.
        losses: per-sample validation losses ``(G, M)``; a candidate with a loss that is not finite is out.
        quality: ``(G,)``, higher is better; a candidate of lower quality than gain 0 is out: a better loss must not be paid
            for with worse answers.
        margins: ``(G,)``, by how much a candidate's quality must be higher than gain 0's; None: by nothing.
    """
    losses = losses.double().cpu()
    means = torch.where(losses.isfinite().all(1), losses.mean(1), torch.inf)
    allowed = means
    if quality is not None and 0.0 in candidates:
        least = quality[list(candidates).index(0.0)] + (0.0 if margins is None else margins)
        allowed = torch.where(quality >= least, means, torch.inf)
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
    problem: Problem, settings: OCDSettings, outputs: Callable[[Tensor, Sequence[float], int], Sequence[Tensor]]
) -> Gain:
    """:func:`choose_gain` among ``settings.gains`` by the losses of validation samples; a single one is taken unseen.

    Args:
        settings: see there for ``gains``, ``gain_share``, ``gain_margin``, ``val_samples``; in batches of ``batch_size``.
        outputs: of inputs ``(N, ...)``, the candidates and the index of the first sample; one ``(N, ...)`` per candidate.
    """
    candidates, batch_size, share = settings.gains, settings.batch_size, settings.gain_share
    if len(candidates) == 1:
        return Gain(float(candidates[0]))
    inputs, targets = problem.validation(settings.val_samples)
    losses, scores = [], []
    for start in range(0, len(inputs), batch_size):
        piece = slice(start, start + batch_size)
        y = targets[piece].to(problem.device)
        found = outputs(inputs[piece], candidates, start)
        losses.append(torch.stack([problem.loss(output, y).detach().cpu() for output in found]))
        if problem.quality:
            scores.append(torch.stack([problem.quality.scores(output, y).detach().double().cpu() for output in found]))
        problem.progress("gain", min(len(inputs), start + batch_size), len(inputs))
    if not problem.quality:
        return choose_gain(candidates, torch.cat(losses, 1), share=share)
    values = torch.cat(scores, 1)
    margins = None
    if settings.gain_margin and 0.0 in candidates:
        base = candidates.index(0.0)
        margins = settings.gain_margin * standard_errors(problem.quality, values, base, problem.generator("gain margin"))
    return choose_gain(candidates, torch.cat(losses, 1), problem.quality.reduce(values), share, margins)


def standard_errors(quality: Quality, values: Tensor, base: int, generator: torch.Generator) -> Tensor:
    """Bootstrap standard errors ``(G,)`` of what each row of the scores ``(G, M)`` is ahead of row ``base``, samples paired."""
    draws = torch.randint(values.shape[1], (RESAMPLES, values.shape[1]), generator=generator)
    qualities = torch.stack([quality.reduce(values[:, chosen]) for chosen in draws])
    return (qualities - qualities[:, base : base + 1]).std(0)
