"""The CIFAR ResNets of He et al. (2016, section 4.2) with shortcuts of option A, in the layout of the published weights.

6n + 2 layers: a 3 x 3 stem and three stages of n blocks with 16, 32 and 64 channels. Names and shapes are those of the files of
akamaster/pytorch_resnet_cifar10.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import pad, relu

DEPTHS = {"resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56}
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels: the published weights were trained with them, not with CIFAR's own."""


class Block(nn.Module):
    """Two 3 x 3 convolutions beside an identity. Where the shape changes, the identity takes every second pixel and zero
    channels, half of them in front and half behind (option A: no parameters)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.extra = (outputs - inputs) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return relu(y + x)


class CifarResNet(nn.Module):
    """``(N, C, H, W) -> (N, classes)`` logits of pictures in [0, 1]; colour is standardised inside by :data:`MEAN` and
    :data:`SD`.

    Args:
        depth: 6n + 2.
    """

    adapted_layer = "linear"
    mean: torch.Tensor
    sd: torch.Tensor

    def __init__(self, depth: int, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        count = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16) for _ in range(count)))
        self.layer2 = nn.Sequential(Block(16, 32), *(Block(32, 32) for _ in range(count - 1)))
        self.layer3 = nn.Sequential(Block(32, 64), *(Block(64, 64) for _ in range(count - 1)))
        self.linear = nn.Linear(64, classes)
        colour = channels == len(MEAN)
        self.register_buffer("mean", torch.tensor(MEAN if colour else (0.0,)).view(-1, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(SD if colour else (1.0,)).view(-1, 1, 1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = relu(self.bn1(self.conv1((x - self.mean) / self.sd)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))
