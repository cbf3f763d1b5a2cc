"""Stage 5, draw: the noise schedule of the diffusion, its three kinds of prediction, and sampling by DDIM from fixed noise.

With ``alphas_bar[t]`` = prod over s <= t of (1 - beta_s), a noisy sample is ``x_t = a x_0 + s noise`` where
``a = sqrt(alphas_bar[t])`` and ``s = sqrt(1 - alphas_bar[t])``. A denoiser predicts the noise (``"epsilon"``, Ho et al. 2020),
``v = a noise - s x_0`` (``"v"``, Salimans and Ho 2022), or ``x_0`` itself (``"x0"``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocd_bench.seeds import seeded

if TYPE_CHECKING:
    from ocd_bench.engine.settings import OCDSettings

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``(x_t (N, ...), t (N,)) -> prediction (N, ...)``."""

PREDICTIONS = ("v", "epsilon", "x0")
SCHEDULES = ("cosine", "paper", "code")


class NoiseSchedule(nn.Module):
    """T noise levels, given by their betas. It holds buffers only, so it moves between devices with its owner.

    Args:
        betas: ``(T,)`` in (0, 1), the variance added at each step.

    Raises:
        ValueError: if there are no betas, or one lies outside (0, 1).
    """

    alphas_bar: Tensor

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.ndim != 1 or len(betas) == 0 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("betas: expected a vector of at least one number in (0, 1)")
        self.register_buffer("alphas_bar", torch.cumprod(1 - betas, 0).float(), persistent=False)

    @classmethod
    def linear(cls, steps: int, beta_start: float, beta_end: float) -> NoiseSchedule:
        """Betas evenly spaced from ``beta_start`` to ``beta_end``."""
        return cls(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64))

    @classmethod
    def cosine(cls, steps: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> NoiseSchedule:
        """Nichol and Dhariwal 2021: alphas_bar falls as a squared cosine, and ends in nearly pure noise."""
        level = torch.cos((torch.linspace(0, 1, steps + 1, dtype=torch.float64) + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls((1 - level[1:] / level[:-1]).clamp(max=beta_max))

    @classmethod
    def named(cls, name: str) -> NoiseSchedule:
        """``"paper"``: T = 10, betas 1e-4 to 1e-2, as printed; ``"code"``: T = 1000, 1e-6 to 1e-2, as the authors ran it;
        ``"cosine"``: T = 1000.

        The printed one leaves 95 % of the signal's variance at its last step, although sampling starts from pure noise.

        Raises:
            ValueError: for any other name.
        """
        if name == "paper":
            return cls.linear(10, 1e-4, 1e-2)
        if name == "code":
            return cls.linear(1000, 1e-6, 1e-2)
        if name == "cosine":
            return cls.cosine()
        raise ValueError(f"unknown noise schedule {name!r}; known: {', '.join(SCHEDULES)}")

    def __len__(self) -> int:
        return len(self.alphas_bar)

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise factors at the times ``t`` ``(N,)``, shaped to multiply ``like`` ``(N, ...)``."""
        level = self.alphas_bar[t].to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
        return level.sqrt(), (1 - level).sqrt()

    def add_noise(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """``x_t`` for samples ``x0`` ``(N, ...)`` at integer times ``t`` ``(N,)`` in [0, T)."""
        signal, spread = self.coefficients(t, x0)
        return signal * x0 + spread * noise

    def target(self, x0: Tensor, t: Tensor, noise: Tensor, prediction: str) -> Tensor:
        """The right output ``(N, ...)`` of a denoiser of that kind of ``prediction`` for ``add_noise(x0, t, noise)``."""
        if prediction == "epsilon":
            return noise
        if prediction == "x0":
            return x0
        if prediction == "v":
            signal, spread = self.coefficients(t, x0)
            return signal * noise - spread * x0
        raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(PREDICTIONS)}")

    def split(self, output: Tensor, x_t: Tensor, t: Tensor, prediction: str) -> tuple[Tensor, Tensor]:
        """The pair (x_0, noise), each ``(N, ...)``, that a denoiser's ``output`` at ``x_t`` implies."""
        signal, spread = self.coefficients(t, x_t)
        if prediction == "epsilon":
            return (x_t - spread * output) / signal, output
        if prediction == "x0":
            return output, (x_t - signal * output) / spread
        if prediction == "v":
            return signal * x_t - spread * output, spread * x_t + signal * output
        raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(PREDICTIONS)}")

    def times(self, steps: int, to_zero: bool = False) -> list[int]:
        """``steps`` times of this schedule, falling and evenly spaced, from T - 1 on; or ``to_zero``, the last of which is 0.

        Raises:
            ValueError: unless 1 <= steps <= T.
        """
        total = len(self)
        if not 1 <= steps <= total:
            raise ValueError(f"sampling steps {steps}: expected 1 to {total}, the steps of the noise schedule")
        if to_zero:
            return [k * (total // steps) for k in reversed(range(steps))]
        return [round(total - k * total / steps) - 1 for k in range(steps)]


class Diffusion(nn.Module):
    """A noise schedule with the kind of prediction and the number of sampling steps.

    Args:
        steps: denoiser calls per sample, at most T.
        to_zero: whether their times end at 0, see :meth:`NoiseSchedule.times`.
    """

    def __init__(self, schedule: NoiseSchedule, prediction: str = "v", steps: int = 10, to_zero: bool = False) -> None:
        super().__init__()
        self.schedule, self.prediction, self.steps = schedule, prediction, min(steps, len(schedule))
        self.to_zero = to_zero

    @classmethod
    def of(cls, settings: OCDSettings, to_zero: bool = False) -> Diffusion:
        """The diffusion part of the settings."""
        return cls(NoiseSchedule.named(settings.schedule), settings.prediction, settings.sampling_steps, to_zero)

    def noise(self, x0: Tensor, last: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Standard normal noise ``(N, ...)`` and random times ``(N,)`` for ``x0``; the time of the first ``last`` is T - 1."""
        # The copies need not be waited for.
        noise = torch.randn(x0.shape, generator=generator).to(x0, non_blocking=x0.is_cuda)
        t = torch.randint(len(self.schedule), (len(x0),), generator=generator).to(x0.device, non_blocking=x0.is_cuda)
        t[:last] = len(self.schedule) - 1
        return noise, t

    def loss(self, denoise: Denoise, x0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error of the denoiser on ``x0`` ``(N, K)`` with noise, and the ``x0`` that its output implies."""
        x_t = self.schedule.add_noise(x0, t, noise)
        output = denoise(x_t, self.scaled(t))
        error = F.mse_loss(output, self.schedule.target(x0, t, noise, self.prediction))
        return error, self.schedule.split(output, x_t, t, self.prediction)[0]

    def sample(self, denoise: Denoise, noise: Tensor) -> Tensor:
        """Samples ``(N, ...)`` from noise of that shape."""
        return ddim(
            lambda x, t: denoise(x, self.scaled(t)),
            self.schedule,
            noise,
            self.steps,
            prediction=self.prediction,
            to_zero=self.to_zero,
        )

    def scaled(self, t: Tensor) -> Tensor:
        """Times in [0, T) as times in [0, 1000), whatever T is: what denoisers expect."""
        return t * (1000 / len(self.schedule))


@torch.no_grad()
def ddim(
    denoise: Callable[[Tensor, Tensor], Tensor],
    schedule: NoiseSchedule,
    noise: Tensor,
    steps: int,
    *,
    prediction: str = "v",
    to_zero: bool = False,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples ``(N, ...)`` from ``noise`` of that shape, by DDIM (Song, Meng and Ermon 2021).

    Args:
        denoise: ``(x_t (N, ...), t (N,)) -> prediction (N, ...)``.
        steps, to_zero: denoiser calls, at ``schedule.times(steps, to_zero)``.
        prediction: the kind of output of ``denoise``, one of :data:`PREDICTIONS`.
        eta: 0 is deterministic DDIM, 1 has the variance of DDPM (equation 16 of the paper).
        generator: CPU generator of the noise that ``eta > 0`` adds.
    """
    x = noise
    times = schedule.times(steps, to_zero)
    for now, after in zip(times, [*times[1:], -1], strict=True):
        t = torch.full((len(x),), now, dtype=torch.long, device=x.device)
        x0, epsilon = schedule.split(denoise(x, t), x, t, prediction)
        if after < 0:  # no noise is left below the first level
            return x0
        level, next_level = schedule.alphas_bar[now].to(x.dtype), schedule.alphas_bar[after].to(x.dtype)
        deviation = eta * ((1 - next_level) / (1 - level) * (1 - level / next_level)).sqrt()
        x = next_level.sqrt() * x0 + (1 - next_level - deviation**2).clamp(min=0).sqrt() * epsilon
        if eta > 0:
            x = x + deviation * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return x


class NoiseStream:
    """Standard normal numbers for draw d of sample i. They do not depend on the batches or on what ran before."""

    BLOCK = 64

    def __init__(self, seed: int, size: int) -> None:
        self.seed, self.size = seed, size

    def __call__(self, start: int, count: int, draw: int) -> Tensor:
        """``(count, size)`` for the samples from ``start`` on."""
        blocks = range(start // self.BLOCK, -(-(start + count) // self.BLOCK))
        rows = torch.cat([self._block(block, draw) for block in blocks])
        offset = start - blocks[0] * self.BLOCK
        return rows[offset : offset + count]

    def _block(self, block: int, draw: int) -> Tensor:
        return torch.randn(self.BLOCK, self.size, generator=seeded(self.seed, block, draw))
