"""The gain: one factor of all weight changes, chosen on validation samples among candidates that include 0.

The gain 0 gives the base itself, so a hypernetwork that does not help is switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ocd_bench.engine.problem import Problem, Quality
from ocd_bench.engine.targets import validation_samples
from ocd_bench.seeds import seeded

if TYPE_CHECKING:
    from ocd_bench.engine.settings import OCDSettings

RESAMPLES = 400
"""Bootstrap draws behind the standard error of a quality."""


@dataclass(frozen=True)
class Gain:
    """The chosen factor, and the mean validation loss under each candidate."""

    value: float
    candidates: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class GainSettings:
    """How the gain is chosen; see :class:`ocd_bench.engine.settings.OCDSettings` for the fields."""

    gains: tuple[float, ...]
    gain_share: float
    gain_margin: float
    val_samples: int
    batch_size: int

    @classmethod
    def of(cls, settings: OCDSettings) -> GainSettings:
        """The part of the settings that the gain depends on."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


def choose_gain(
    candidates: Sequence[float],
    losses: Tensor,
    quality: Tensor | None = None,
    share: float = 1.0,
    margins: Tensor | None = None,
) -> Gain:
    """The candidate of least mean loss, if it beats gain 0 by more than the standard error of their paired difference.

    Of the candidates that keep at least ``share`` of its improvement the smallest is taken. The loss is flat near its minimum
    for in-distribution samples, and a smaller change harms others less.

    Args:
        candidates: G factors. Without a 0 among them, the least mean loss alone decides.
        losses: per-sample validation losses ``(G, M)``. A candidate with a loss that is not finite is out.
        quality: ``(G,)``, higher is better. A candidate of lower quality than gain 0 is out: a better loss must not cost worse
            answers.
        margins: ``(G,)``, by how much a candidate's quality must exceed that of gain 0; None: by nothing.
    """
    losses = losses.double().cpu()
    means = torch.where(losses.isfinite().all(1), losses.mean(1), torch.inf)  # (G,)
    allowed = means
    if quality is not None and 0.0 in candidates:
        least = quality[list(candidates).index(0.0)] + (0.0 if margins is None else margins)
        allowed = torch.where(quality >= least, means, torch.inf)
    best = int(allowed.argmin())
    if 0.0 in candidates:
        base = list(candidates).index(0.0)
        difference = losses[base] - losses[best]  # (M,)
        error = difference.std() / len(difference) ** 0.5 if len(difference) > 1 else torch.tensor(torch.inf)
        if not difference.mean() > error:
            best = base
        enough = means[base] - share * (means[base] - means[best])
        best = min((k for k in range(len(means)) if allowed[k] <= enough), key=lambda k: candidates[k], default=best)
    return Gain(float(candidates[best]), tuple(map(float, candidates)), tuple(means.tolist()))


def gain_on_validation(
    problem: Problem,
    how: GainSettings,
    outputs: Callable[[Tensor, Sequence[float], int], Sequence[Tensor]],
    key: Hashable,
) -> Gain:
    """:func:`choose_gain` among ``how.gains`` by the losses of validation samples. A single candidate is taken as it is.

    Args:
        outputs: of inputs ``(N, ...)``, the candidates and the index of the first sample: one ``(N, ...)`` per candidate.
        key: what the outputs depend on beside the problem.
    """
    candidates = how.gains
    if len(candidates) == 1:
        return Gain(float(candidates[0]))
    inputs, targets = validation_samples(problem, how.val_samples)
    losses, scores, done = list[Tensor](), list[Tensor](), 0
    loop = problem.stage("gain", (how, key))
    if state := loop.resume():
        losses, scores, done = state["losses"], state["scores"], state["done"]
    for start in range(done, len(inputs), how.batch_size):
        piece = slice(start, start + how.batch_size)
        y = targets[piece].to(problem.device)
        found = outputs(inputs[piece], candidates, start)
        losses.append(torch.stack([problem.loss(output, y).detach().cpu() for output in found]))
        if problem.quality:
            scores.append(torch.stack([problem.quality.scores(output, y).detach().double().cpu() for output in found]))
        done = min(len(inputs), start + how.batch_size)
        loop(done, len(inputs))
        loop.save(lambda: {"losses": losses, "scores": scores, "done": done}, finished=done == len(inputs))  # noqa: B023
    if not problem.quality:
        return choose_gain(candidates, torch.cat(losses, 1), share=how.gain_share)
    values = torch.cat(scores, 1)  # (G, M)
    margins = None
    if how.gain_margin and 0.0 in candidates:
        base = candidates.index(0.0)
        margins = how.gain_margin * standard_errors(problem.quality, values, base, seeded(problem.seed, "gain margin"))
    return choose_gain(candidates, torch.cat(losses, 1), problem.quality.reduce(values), how.gain_share, margins)


def standard_errors(quality: Quality, values: Tensor, base: int, generator: torch.Generator) -> Tensor:
    """Bootstrap standard errors ``(G,)`` of each row's lead over row ``base``, from scores ``(G, M)``; samples are paired."""
    draws = torch.randint(values.shape[1], (RESAMPLES, values.shape[1]), generator=generator)
    qualities = torch.stack([quality.reduce(values[:, chosen]) for chosen in draws])  # (RESAMPLES, G)
    return (qualities - qualities[:, base : base + 1]).std(0)
