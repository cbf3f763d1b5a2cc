"""DDIM sampling (Song, Meng and Ermon 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ocd_bench.engine.schedule import NoiseSchedule


@torch.no_grad()
def ddim(
    denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    schedule: NoiseSchedule,
    noise: torch.Tensor,
    steps: int,
    *,
    prediction: str = "v",
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Samples ``(N, ...)`` grown from ``noise`` of that shape.

    Args:
        denoise: ``(x_t (N, ...), t (N,)) -> prediction (N, ...)``.
        steps: denoiser calls, at ``schedule.times(steps)``.
        prediction: what ``denoise`` predicts, one of :data:`ocd_bench.engine.schedule.PREDICTIONS`.
        eta: 0 is deterministic DDIM, 1 has the variance of DDPM (equation 16 of the paper).
        generator: CPU generator of the noise that ``eta > 0`` adds.
    """
    x = noise
    times = schedule.times(steps)
    for now, after in zip(times, [*times[1:], -1], strict=True):
        t = torch.full((len(x),), now, dtype=torch.long, device=x.device)
        x0, epsilon = schedule.split(denoise(x, t), x, t, prediction)
        if after < 0:  # beyond the first level there is no noise left
            return x0
        level, next_level = schedule.alphas_bar[now].to(x.dtype), schedule.alphas_bar[after].to(x.dtype)
        deviation = eta * ((1 - next_level) / (1 - level) * (1 - level / next_level)).sqrt()
        x = next_level.sqrt() * x0 + (1 - next_level - deviation**2).clamp(min=0).sqrt() * epsilon
        if eta > 0:
            x = x + deviation * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return x
