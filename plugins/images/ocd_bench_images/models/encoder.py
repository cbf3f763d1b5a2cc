"""A small convolutional encoder of the picture itself: a condition of the hypernetwork beside the base model's own signals."""

from __future__ import annotations

import torch
from torch import nn


class Encoder(nn.Module):
    """``(N, C, H, W) -> (N, features)`` for any picture size; 0.8 M parameters at width 32.

    GroupNorm, not BatchNorm: a sample's condition must not depend on its batch. The last map is kept as 4 x 4 places, not
    averaged away: where a stroke lies matters.
    """

    def __init__(self, channels: int, width: int = 32, features: int = 256) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        layers: list[nn.Module] = _unit(channels, width, 1)
        for before, after in zip(widths, (*widths[1:], widths[-1]), strict=True):
            layers += _unit(before, after, 2)
            if before != after:
                layers += _unit(after, after, 1)
        self.maps = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(widths[-1] * 16, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.maps(x)).flatten(1))


def _unit(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.GELU()]
