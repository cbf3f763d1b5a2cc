"""A small convolutional encoder of the picture: a condition of the hypernetwork beside I(x) of the base model."""

from __future__ import annotations

import torch
from torch import nn


class Encoder(nn.Module):
    """``(N, C, H, W) -> (N, features)`` for any picture size; 0.7 M parameters at width 32.

    It uses GroupNorm, not BatchNorm, because a sample's condition must not depend on its batch. The last feature map is pooled
    to 4 x 4 positions, not to one, because the position of a stroke matters. The first convolution halves the picture, because
    most of the cost is at full size.
    """

    def __init__(self, channels: int, width: int = 32, features: int = 256) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            *_unit(channels, width, 5, 2),
            *_unit(width, 2 * width, 3, 1),
            *_unit(2 * width, 2 * width, 3, 2),
            *_unit(2 * width, 4 * width, 3, 1),
        )
        self.pool = nn.AdaptiveMaxPool2d(4)
        self.head = nn.Linear(4 * width * 16, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.maps(x)).flatten(1))  # (N, 4 * width, 4, 4) -> (N, features)


def _unit(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.GroupNorm(8, outputs), nn.GELU()]
