"""The training loop of every network this package fits: AdamW, clipped gradients, averaged weights, best validation kept."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ocd_bench.engine.ema import EMA
from ocd_bench.engine.settings import OCDSettings

Progress = Callable[[int, int], None]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Training:
    """See :class:`ocd_bench.engine.settings.OCDSettings` for the fields."""

    steps: int
    lr: float
    weight_decay: float = 0.0
    lr_schedule: str = "cosine"
    ema: float = 0.999
    evaluations: int = 10

    @classmethod
    def of(cls, settings: OCDSettings) -> Training:
        """The training part of the settings."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Record:
    """One evaluation: after ``step`` steps, the mean training loss since the last one, and the validation loss.

    ``parts``: the training loss by its terms.
    """

    step: int
    train: float
    val: float
    parts: Mapping[str, float] = field(default_factory=dict)


def details(history: Sequence[Record]) -> dict[str, Any]:
    """The history as plain values, for a cell's ``detail``; its terms apart where there are several."""
    names = history[0].parts if history and len(history[0].parts) > 1 else ()
    return {
        "history": [[record.step, record.train, record.val] for record in history],
        "history_parts": {name: [[record.step, record.parts[name]] for record in history] for name in names},
    }


def rate(step: int, how: Training) -> float:
    """Learning rate factor of a step: a linear warm-up (at most 100 steps or a tenth), then a half cosine or one."""
    warm = max(1, min(100, how.steps // 10))
    if step < warm:
        return (step + 1) / warm
    if how.lr_schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, how.steps - warm)))


def train(
    network: Network,
    loss: Callable[[Network], Mapping[str, Tensor]],
    validate: Callable[[Network], float],
    how: Training,
    progress: Progress = lambda done, total: None,
) -> tuple[Network, list[Record]]:
    """Minimise ``loss``, and return a frozen copy of the network with the averaged weights of least validation loss.

    Args:
        network: trained in place, in train mode.
        loss: the loss of the next batch, as named scalars to be summed.
        validate: validation loss of a network in eval mode; called without gradients.

    With ``how.evaluations == 1`` the last weights are returned whatever their validation loss.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [list(child.parameters()) for child in network.children()]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    optimizer = torch.optim.AdamW(parameters, lr=how.lr, weight_decay=how.weight_decay, fused=fused)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, how))
    average = EMA(network, how.ema)
    evaluate_at = {round(how.steps * (k + 1) / how.evaluations) for k in range(how.evaluations)}
    best: Network | None = None
    best_loss, totals, count = math.inf, Counter[str](), 0
    history: list[Record] = []
    network.train()
    for step in range(1, how.steps + 1):
        optimizer.zero_grad(set_to_none=True)
        parts = loss(network)  # may itself leave gradients behind, see engine/through.py
        torch.stack(list(parts.values())).sum().backward()
        for group in filter(None, groups):  # each on its own: a wild scale loss must not slow the denoiser down
            nn.utils.clip_grad_norm_(group, 1.0)
        optimizer.step()
        schedule.step()
        average.update(network)
        totals.update({name: float(part.detach()) for name, part in parts.items()})
        count += 1
        if step in evaluate_at:
            with torch.no_grad():
                found = validate(average.module)
            means = {name: total / count for name, total in totals.items()}
            history.append(Record(step, sum(means.values()), found, means))
            totals.clear()
            count = 0
            if best is None or found < best_loss:
                best, best_loss = copy.deepcopy(average.module), found
        progress(step, how.steps)
    return best if best is not None else average.module, history


def shuffled(samples: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches without end: permutations, cut into batches of equal size; what is left over waits for the next one."""
    batch_size = min(batch_size, samples)
    while True:
        yield from torch.randperm(samples, generator=generator)[: samples // batch_size * batch_size].split(batch_size)
