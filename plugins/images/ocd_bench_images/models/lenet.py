"""LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: names and shapes as in the checkpoint of the paper's authors."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import max_pool2d, relu

from ocd_bench import UsageError


class LeNet5(nn.Module):
    """``(N, C, H, W) -> (N, classes)`` logits; 61,706 parameters at 1 x 28 x 28 and ten classes.

    The kernel of ``conv3`` has the size of its input (5 x 5 at 28 pixels). For pictures below 20 pixels a side, ``conv1`` and
    ``conv2`` are 3 x 3 with padding, and there is no pooling after ``conv2``. So the layers for scikit-learn's 8 x 8 digits
    have the same names and widths, and ``conv3`` is 4 x 4.

    Args:
        norm: whether BatchNorm2d follows ``conv1`` and ``conv2``, for methods that adapt it. It does not follow ``conv3``,
            whose output is 1 x 1: a single sample has no batch statistics there.

    Raises:
        UsageError: for pictures under 4 pixels a side.
    """

    adapted_layer = "fc1"

    def __init__(self, channels: int = 1, height: int = 28, width: int = 28, classes: int = 10, norm: bool = False) -> None:
        super().__init__()
        if min(height, width) < 4:
            raise UsageError(f"model 'lenet5': {height} x {width} pixels are too few; give --set images.image_size=8 or more")
        self.small = min(height, width) < 20
        kernel = 3 if self.small else 5
        left = [side // 2 if self.small else (side // 2 - 4) // 2 for side in (height, width)]
        self.conv1 = nn.Conv2d(channels, 6, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(6, 16, kernel, padding=1 if self.small else 0)
        self.conv3 = nn.Conv2d(16, 120, (left[0], left[1]))
        self.fc1 = nn.Linear(120, 84)
        self.fc2 = nn.Linear(84, classes)
        self.norm1 = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.norm2 = nn.BatchNorm2d(16) if norm else nn.Identity()
        for layer in (self.conv1, self.conv2, self.conv3, self.fc1):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = max_pool2d(relu(self.norm1(self.conv1(x))), 2)  # (N, 6, H/2, W/2)
        x = relu(self.norm2(self.conv2(x)))  # (N, 16, H/2 - 4, W/2 - 4); small pictures: (N, 16, H/2, W/2)
        if not self.small:
            x = max_pool2d(x, 2)
        x = relu(self.conv3(x)).flatten(1)  # (N, 120)
        return self.fc2(relu(self.fc1(x)))
