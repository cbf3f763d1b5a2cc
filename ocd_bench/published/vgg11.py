"""E_o for outputs that are pictures or spectrograms: a frozen VGG11 (Simonyan and Zisserman 2015) before the linear layer.

The layout is torchvision's, so that the common weights can be loaded by name. torchvision is not needed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocd_bench.checkpoint import load_checkpoint

WIDTHS = (64, None, 128, None, 256, 256, None, 512, 512, None, 512, 512, None)
"""Channels of the convolutions; None halves both sides."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the colours in the training of the published weights."""

SMALLEST = 32
"""Minimum side in pixels, because the side is halved five times."""

CHUNK = 32
"""Pictures per chunk: the first convolution makes 64 channels of each."""


class VGG11(nn.Module):
    """Pictures ``(N, 3, H, W)`` to scores ``(N, 1000)``; names in the state dict are those of ``torchvision.models.vgg11``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in WIDTHS:
            if width is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
            nn.Linear(4096, 1000),
        )  # fmt: skip

    def forward(self, pictures: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(pictures)).flatten(1))


class PictureFeatures(nn.Module):
    """VGG11's scores ``(N, 1000)`` of pictures ``(N, C, H, W)`` of any size, C = 1 (grey) or 3, with values in [0, 1].

    Pictures are normalised by :data:`MEAN` and :data:`STD`, as in the training of the weights; the authors' code omits this. A
    picture less than :data:`SMALLEST` pixels high or wide is enlarged.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vgg: VGG11) -> None:
        super().__init__()
        self.vgg = vgg
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).reshape(3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> Tensor:
        """
        Raises:
            ValueError: if C is neither 1 nor 3.
        """
        if pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
            raise ValueError(f"pictures of shape {tuple(pictures.shape)}: expected (N, 1, H, W) or (N, 3, H, W)")
        height, width = pictures.shape[2:]
        if min(height, width) < SMALLEST:
            size = (max(SMALLEST, height), max(SMALLEST, width))
            pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=False)
        normal = (pictures.float().expand(-1, 3, -1, -1) - self.mean) / self.std
        return torch.cat([self.vgg(piece) for piece in normal.split(CHUNK)])


def load_vgg11(path: Path) -> PictureFeatures:
    """VGG11 with the weights of a state dict in torchvision's names.

    Raises:
        UsageError: if the file cannot be read, or a name or shape is not VGG11's.
    """
    with torch.device("meta"):  # 133 million numbers that need not be drawn
        model = VGG11()
    return PictureFeatures(load_checkpoint(model.to_empty(device="cpu"), path, hint="expected torchvision's vgg11"))


def cached_vgg11() -> Path | None:
    """The path of the weights in torchvision's download cache; None if they are not there. Nothing is downloaded here."""
    path = Path(torch.hub.get_dir(), "checkpoints", "vgg11-8a719046.pth")
    return path if path.is_file() else None
