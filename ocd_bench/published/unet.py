"""The paper's denoiser: the U-Net of Ho et al. (2020), applied to the weight matrix as a picture of one channel.

It has residual blocks of two convolutions with group norm and SiLU, and self-attention at chosen levels and twice in the
bottleneck. Both sides are halved from level to level, and doubled on the way back. Time and condition enter every residual
block as one vector, e = PE(t) + E_i + E_a + E_o (paper section 3.1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocd_bench.engine.hypernetwork import time_embedding
from ocd_bench.precision import autocast

PIECE = {False: 2**20, True: 2**27}
"""Numbers that the finest level may hold without gradients, on a CPU (False) and on a GPU (True). A test batch of 200 matrices
of LeNet5's fc1 would take 1.3 GB per layer. On a CPU, small chunks take half the time, since their memory is reused."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm of at most 32 groups, with four channels or more in each.

    A group of one channel would remove the condition, which enters as one number per channel.
    """
    return nn.GroupNorm(math.gcd(32, max(1, channels // 4)), channels, eps=1e-6)


def _last(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with zero weights, so that its block starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    """``(N, inputs, H, W) -> (N, outputs, H, W)``, conditioned on a vector ``(N, width)``."""

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(group_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.steer = nn.Sequential(nn.SiLU(), nn.Linear(width, outputs))
        self.second = nn.Sequential(
            group_norm(outputs), nn.SiLU(), nn.Dropout(dropout), _last(nn.Conv2d(outputs, outputs, 3, padding=1))
        )
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        return self.skip(x) + self.second(self.first(x) + self.steer(vector)[:, :, None, None])


class Attention(nn.Module):
    """Self-attention with one head among the positions of a picture, ``(N, C, H, W)`` to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.inward = nn.Conv2d(channels, 3 * channels, 1)
        self.outward = _last(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.inward(self.norm(x)).flatten(2).mT.chunk(3, 2)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.outward(mixed.mT.reshape(x.shape))


class Level(nn.Module):
    """A residual block, with or without attention after it."""

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.residual = Residual(inputs, outputs, width, dropout)
        self.attention = Attention(outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        return self.attention(self.residual(x, vector))


class UNet(nn.Module):
    """Denoiser of codes ``(N, O * I)`` at times ``(N,)`` in [0, 1000), given condition vectors ``(N, 4 * channels)``.

    Args:
        shape: (O, I). The picture is padded with zeros to multiples of ``2 ** (levels - 1)``; the padding is cut off again.
        channels: of the first level; 128 in the paper.
        multipliers: channels of each level as multiples of these; their number is the number of levels, five in the paper.
        blocks: residual blocks per level and direction (one more on the way up).
        attention: levels (from 0, the finest) with attention; both blocks of the bottleneck always have it.
        dropout: in the residual blocks, in [0, 1).
        precision: of a prediction without gradients on a GPU; the training has its own.
        compiled: whether training steps run through ``torch.compile`` on a GPU, with channels last, which the compiler chooses.
            Predictions do not: they come in many sizes, and each would be compiled anew.

    Raises:
        ValueError: if there is no level, or ``attention`` names a level that does not exist.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 4, 4),
        blocks: int = 2,
        attention: Sequence[int] = (3,),
        dropout: float = 0.0,
        precision: str = "float32",
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.precision, self.compiled = precision, compiled
        levels = len(multipliers)
        if levels == 0 or any(not 0 <= level < levels for level in attention):
            raise ValueError(f"attention at levels {tuple(attention)} of a U-Net of {levels} levels")
        self.shape, self.channels, self.width = shape, channels, 4 * channels
        self.multiple = 2 ** (levels - 1)
        width = self.width
        self.time = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        current, skips = channels, [channels]
        for level, factor in enumerate(multipliers):
            row = nn.ModuleList()
            for _ in range(blocks):
                row.append(Level(current, factor * channels, width, dropout, level in attention))
                current = factor * channels
                skips.append(current)
            self.down.append(row)
            if level < levels - 1:
                self.shrink.append(nn.Conv2d(current, current, 3, stride=2, padding=1))
                skips.append(current)
        self.middle = nn.ModuleList([Level(current, current, width, dropout, attention=True) for _ in range(2)])
        for level, factor in reversed(list(enumerate(multipliers))):
            row = nn.ModuleList()
            for _ in range(blocks + 1):
                row.append(Level(current + skips.pop(), factor * channels, width, dropout, level in attention))
                current = factor * channels
            self.up.append(row)
            if level > 0:
                self.grow.append(nn.Conv2d(current, current, 3, padding=1))
        self.last = nn.Sequential(group_norm(current), nn.SiLU(), _last(nn.Conv2d(current, 1, 3, padding=1)))

    def forward(self, code: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        cuda = code.device.type == "cuda"
        if torch.is_grad_enabled():
            denoise = compiled_denoise() if self.compiled and cuda else UNet.denoise
            return denoise(self, code, t, condition).to(code.dtype)
        rows, columns = (-(-side // self.multiple) * self.multiple for side in self.shape)
        count = max(1, PIECE[cuda] // (self.channels * rows * columns))
        pieces = zip(code.split(count), t.split(count), condition.split(count), strict=True)
        with autocast(self.precision if cuda else "float32", code.device):
            return torch.cat([self.denoise(*piece) for piece in pieces]).to(code.dtype)

    def denoise(self, code: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """All of it at once, whatever memory it takes."""
        vector = condition + self.time(time_embedding(t, self.channels).to(code.dtype))
        rows, columns = self.shape
        x = code.reshape(len(code), 1, rows, columns)
        x = self.first(F.pad(x, (0, -columns % self.multiple, 0, -rows % self.multiple)))
        kept = [x]
        for level, row in enumerate(self.down):
            for block in row:  # type: ignore[attr-defined]
                x = block(x, vector)
                kept.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x)
                kept.append(x)
        for block in self.middle:
            x = block(x, vector)
        for level, row in enumerate(self.up):
            for block in row:  # type: ignore[attr-defined]
                x = block(torch.cat([x, kept.pop()], 1), vector)
            if level < len(self.grow):
                x = self.grow[level](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.last(x)[:, 0, :rows, :columns].flatten(1)


@functools.cache
def compiled_denoise() -> Callable[..., Tensor]:
    """:meth:`UNet.denoise` through ``torch.compile``. Each new number of samples takes a minute or two."""
    return torch.compile(UNet.denoise, dynamic=False)
