"""The noise schedule of a diffusion process, and what its three kinds of prediction mean.

With ``alphas_bar[t]`` = prod over s <= t of (1 - beta_s), a noisy sample is ``x_t = a x_0 + s noise`` where
``a = sqrt(alphas_bar[t])`` and ``s = sqrt(1 - alphas_bar[t])``. A denoiser predicts the noise (``"epsilon"``, Ho et al. 2020),
``v = a noise - s x_0`` (``"v"``, Salimans and Ho 2022), or ``x_0`` itself (``"x0"``).
"""

from __future__ import annotations

import math

import torch
from torch import nn

PREDICTIONS = ("v", "epsilon", "x0")
SCHEDULES = ("cosine", "paper", "code")


class NoiseSchedule(nn.Module):
    """``steps`` noise levels, given by their betas. Holds buffers only, so it moves between devices with its owner.

    Args:
        betas: ``(T,)`` in (0, 1), the variance added at each step.

    Raises:
        ValueError: if there are no betas, or one lies outside (0, 1).
    """

    alphas_bar: torch.Tensor

    def __init__(self, betas: torch.Tensor) -> None:
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
        """Nichol and Dhariwal 2021: alphas_bar falls as a squared cosine, and ends in practically pure noise."""
        level = torch.cos((torch.linspace(0, 1, steps + 1, dtype=torch.float64) + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls((1 - level[1:] / level[:-1]).clamp(max=beta_max))

    @classmethod
    def named(cls, name: str) -> NoiseSchedule:
        """``"paper"``: T = 10, betas 1e-4 to 1e-2, as printed; ``"code"``: T = 1000, 1e-6 to 1e-2, as the authors ran it;
        ``"cosine"``: T = 1000.

        The printed one leaves 95 % of the signal's variance at its last step, while sampling begins with pure noise.

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

    def coefficients(self, t: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Signal and noise factors at the times ``t`` ``(N,)``, shaped to multiply ``like`` ``(N, ...)``."""
        level = self.alphas_bar[t].to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
        return level.sqrt(), (1 - level).sqrt()

    def add_noise(self, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """``x_t`` for samples ``x0`` ``(N, ...)`` at integer times ``t`` ``(N,)`` in [0, T)."""
        signal, spread = self.coefficients(t, x0)
        return signal * x0 + spread * noise

    def target(self, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, prediction: str) -> torch.Tensor:
        """What a denoiser of that kind of ``prediction`` should give for ``add_noise(x0, t, noise)``."""
        if prediction == "epsilon":
            return noise
        if prediction == "x0":
            return x0
        if prediction == "v":
            signal, spread = self.coefficients(t, x0)
            return signal * noise - spread * x0
        raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(PREDICTIONS)}")

    def split(
        self, output: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, prediction: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A denoiser's ``output`` at ``x_t`` as the pair (x_0, noise) it implies."""
        signal, spread = self.coefficients(t, x_t)
        if prediction == "epsilon":
            return (x_t - spread * output) / signal, output
        if prediction == "x0":
            return output, (x_t - signal * output) / spread
        if prediction == "v":
            return signal * x_t - spread * output, spread * x_t + signal * output
        raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(PREDICTIONS)}")

    def times(self, steps: int) -> list[int]:
        """``steps`` times of this schedule, falling, evenly spaced and beginning with the last, T - 1.

        Raises:
            ValueError: unless 1 <= steps <= T.
        """
        total = len(self)
        if not 1 <= steps <= total:
            raise ValueError(f"sampling steps {steps}: expected 1 to {total}, the steps of the noise schedule")
        return [round(total - k * total / steps) - 1 for k in range(steps)]
