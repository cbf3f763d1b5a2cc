"""Training of the separator: new mixtures at each step, permutation-invariant SI-SDR at each scale, best validation weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ocd_bench_speech.mixing import Pool, normalised
from ocd_bench_speech.mulcat import GatedLSTM
from ocd_bench_speech.separation import pit_si_sdr

if TYPE_CHECKING:
    from ocd_bench import Progress, Samples
    from ocd_bench_speech.settings import SpeechSettings


def train(
    model: nn.Module,
    mixer: Callable[[int], Tensor],
    generator: torch.Generator,
    val: Samples,
    settings: SpeechSettings,
    progress: Progress,
) -> nn.Module:
    """Minimise the mean of -SI-SDR over all scales: Adam, warm-up, cosine schedule to zero, ``base_steps`` steps.

    The validation loss is computed ``base_checks`` times at equal distances. The weights with the best mean validation loss are
    kept. A step whose gradient is not finite is skipped.

    Args:
        mixer: function from a count to the sources ``(count, C, T)`` of new mixtures.
        generator: its random numbers.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.base_lr)
    total = settings.base_steps
    warm = max(1, min(500, total // 20))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - warm))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer, [torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, warm), cosine], [warm]
    )
    every = max(1, total // max(1, settings.base_checks))
    best, kept = float("inf"), None
    first = 0
    if state := progress.resume():
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        generator.set_state(state["mixer"])
        first, best, kept = state["step"], state["best"], state["kept"]
    for step in range(first + 1, total + 1):
        sources = mixer(settings.base_batch).to(device)
        model.train()
        estimates = model.all_scales(sources.sum(1)) if isinstance(model, GatedLSTM) else [model(sources.sum(1))]
        loss = -torch.stack([pit_si_sdr(estimate, sources).mean() for estimate in estimates]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), settings.base_clip)):
            optimizer.step()
        schedule.step()
        if step % every == 0 or step == total:
            current = validation_loss(model, val, settings.base_batch)
            if current < best:
                best, kept = current, copy.deepcopy(model.state_dict())
        progress(step, total)
        progress.save(
            lambda: {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "mixer": generator.get_state(),
                "step": step,  # noqa: B023
                "best": best,  # noqa: B023
                "kept": kept,  # noqa: B023
            }
        )
    if kept is not None:
        model.load_state_dict(kept)
    return model


@torch.no_grad()
def validation_loss(model: nn.Module, samples: Samples, batch_size: int) -> float:
    """Mean -SI-SDR in dB of the model, in eval mode."""
    device = next(model.parameters()).device
    model.eval()
    losses = [
        -pit_si_sdr(model(inputs.to(device)), targets.to(device))
        for inputs, targets in zip(samples.inputs.split(batch_size), samples.targets.split(batch_size), strict=True)
    ]
    return float(torch.cat(losses).mean())


def make_mixer(extras: Any, train: Samples, settings: SpeechSettings, generator: torch.Generator) -> Callable[[int], Tensor]:
    """New mixtures from the task's pool of speech. Without a pool (data of another plugin), the sources of the training samples
    are mixed with new levels."""
    pool: Pool | None = extras.get("pool")

    def from_pool(count: int) -> Tensor:
        assert pool is not None
        return pool.draw(count, settings.speakers, settings.level_db, generator)

    def from_samples(count: int) -> Tensor:
        indices = torch.randint(len(train), (count,), generator=generator)
        return relevelled(train.targets[indices], settings.level_db, generator)

    return from_samples if pool is None else from_pool


def relevelled(sources: Tensor, level_db: float, generator: torch.Generator) -> Tensor:
    """Sources ``(N, C, T)``, each with a random sign and up to ``level_db`` dB louder or softer, scaled so that their sum has
    root mean square 1."""
    shape = (*sources.shape[:2], 1)
    signs = torch.randint(2, shape, generator=generator) * 2 - 1
    levels = (torch.rand(shape, generator=generator) * 2 - 1) * level_db
    return normalised(sources * (signs * 10 ** (levels / 20)).to(sources))
