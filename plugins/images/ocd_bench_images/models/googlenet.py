"""GoogLeNet (Szegedy et al. 2015, table 1) in the form for 32 x 32 pictures: Inception with BatchNorm, one 3 x 3 convolution as
the stem, and two 3 x 3 convolutions for each 5 x 5 convolution. 6.2 M parameters."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import max_pool2d

STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""The rows of table 1: channels of the 1x1 branch; of the reduction and the 3x3; of the reduction and the 5x5; of the
projection after pooling. The picture is halved between stages."""


def _unit(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU())


class Inception(nn.Module):
    """Four branches over the same input, concatenated along the channels: ``(N, C, H, W) -> (N, C', H, W)``."""

    def __init__(self, inputs: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int) -> None:
        super().__init__()
        self.branch1 = _unit(inputs, one)
        self.branch3 = nn.Sequential(_unit(inputs, reduce3), _unit(reduce3, three, 3))
        self.branch5 = nn.Sequential(_unit(inputs, reduce5), _unit(reduce5, five, 3), _unit(five, five, 3))
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), _unit(inputs, pool))
        self.outputs = one + three + five + pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)], 1)


class GoogLeNet(nn.Module):
    """``(N, C, H, W) -> (N, classes)`` logits."""

    adapted_layer = "fc"

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.stem = _unit(channels, 192, 3)
        width = 192
        self.stages = nn.ModuleList()
        for rows in STAGES:
            blocks: list[Inception] = []
            for row in rows:
                blocks.append(Inception(width, *row))
                width = blocks[-1].outputs
            self.stages.append(nn.Sequential(*blocks))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for number, stage in enumerate(self.stages):
            if number:
                x = max_pool2d(x, 3, 2, padding=1)
            x = stage(x)
        return self.fc(x.mean((2, 3)))  # (N, 1024, H/4, W/4) -> (N, classes)
