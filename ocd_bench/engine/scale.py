"""The scale network rho(I(x)): how long the change of a sample's weights is (paper section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import nn

DECIBEL = 10 / math.log(10)


class ScaleNetwork(nn.Module):
    """Positive lengths ``(N,)`` from condition vectors ``(N, D)``.

    It predicts log rho in units of the training lengths' own spread, which :meth:`calibrate` stores: lengths range over orders
    of magnitude, and the network begins at their geometric mean. It never leaves it by more than four standard deviations, so
    that a sample unlike any in training does not blow up.
    """

    LIMIT = 4.0

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, condition: int, width: int = 128) -> None:
        super().__init__()
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    @torch.no_grad()
    def calibrate(self, lengths: torch.Tensor) -> None:
        """Take mean and standard deviation of the logarithm of training ``lengths`` ``(N,)``, all positive."""
        log = lengths.log()
        self.mean.copy_(log.mean())
        self.std.copy_(log.std(correction=0).clamp(min=0.1))

    def log(self, condition: torch.Tensor) -> torch.Tensor:
        """log rho ``(N,)``."""
        return self.mean + self.std * self.LIMIT * torch.tanh(self.net(condition).squeeze(-1) / self.LIMIT)

    def forward(self, condition: torch.Tensor) -> torch.Tensor:
        return self.log(condition).exp()


def scale_loss_db(rho: torch.Tensor, rho_s: torch.Tensor) -> torch.Tensor:
    """The published loss, in decibels, per sample: ``10 log10(|rho - rho_s|**2 / rho_s)``.

    It falls without bound as rho nears rho_s; the difference is kept above 1e-4 rho_s, which bounds the gradient and changes
    no value further off than that.
    """
    difference = (rho - rho_s).abs().maximum(1e-4 * rho_s)
    return DECIBEL * (2 * difference.log() - rho_s.log())


def scale_loss_log(rho: torch.Tensor, rho_s: torch.Tensor) -> torch.Tensor:
    """Squared error of the logarithm, per sample: relative errors count the same at every length."""
    return (rho.log() - rho_s.log()) ** 2
