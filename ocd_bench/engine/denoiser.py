"""The fast hypernetwork: a residual multilayer perceptron over codes, steered by the condition at every block.

Its blocks are adaLN-Zero blocks (Peebles and Xie 2023): normalise, scale and shift as the condition says, two linear layers,
and a gate that begins at zero.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ocd_bench.engine.condition import time_embedding


class Block(nn.Module):
    """``h + gate * MLP(shift + (1 + scale) * LayerNorm(h))`` with shift, scale and gate from the condition ``(N, width)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.steer = nn.Linear(width, 3 * width)
        self.net = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.steer(condition).chunk(3, 1)
        return h + gate * self.net(shift + (1 + scale) * self.norm(h))


class Trunk(nn.Module):
    """``depth`` blocks from a condition ``(N, width)``, and optionally a start ``(N, width)``, to ``(N, size)``.

    Without a start it is the regressor of `ocd-regress` and of the `capacity` control: the same network, no diffusion.
    """

    def __init__(self, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.begin = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, condition: Tensor, start: Tensor | None = None) -> Tensor:
        condition = F.silu(condition)
        h = self.begin(condition) if start is None else self.begin(condition) + start
        for block in self.blocks:
            h = block(h, condition)
        return self.last(F.silu(self.norm(h)))


class FastDenoiser(nn.Module):
    """Denoiser of codes ``(N, size)`` at times ``(N,)`` in [0, 1000), given condition vectors ``(N, width)``."""

    def __init__(self, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.width = width + width % 2
        self.code = nn.Linear(size, width)
        self.time = nn.Sequential(nn.Linear(self.width, width), nn.SiLU(), nn.Linear(width, width))
        self.trunk = Trunk(size, width, depth)

    def forward(self, code: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        time = self.time(time_embedding(t, self.width).to(code.dtype))
        return self.trunk(condition + time, self.code(code))


def parameter_count(module: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in module.parameters())
