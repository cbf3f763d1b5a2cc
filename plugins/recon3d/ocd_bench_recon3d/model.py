"""TinyNeRF: a radiance field of three linear layers, rendered by quadrature (Mildenhall et al. 2020, eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RGB, POINT, OPACITY, ENTROPY = slice(0, 3), slice(3, 6), 6, 7
"""Channels of an output ``(N, H, W, 8)``: colour, expected surface point, opacity, entropy of the ray's weights in nats."""


class TinyNeRF(nn.Module):
    """Maps rays ``(N, H, W, 6)`` (origin, direction) to outputs ``(N, H, W, 8)``; see :data:`RGB` for the channels.

    Layers and encoding are those of the reference checkpoint. The encoding is x, then sin and cos of 2^k x for k = 0 ...
    ``frequencies`` - 1. The layers are 63 -> 128 -> 128 -> 4 with ReLU between. The sigmoid of three channels is the colour,
    the ReLU of the fourth is the density.

    Args:
        near, far: depths of the first and last of ``samples`` equally spaced points of a ray.
    """

    depths: Tensor
    scales: Tensor

    def __init__(self, near: float, far: float, samples: int = 32, width: int = 128, frequencies: int = 10) -> None:
        super().__init__()
        self.layer1 = nn.Linear(3 + 6 * frequencies, width)
        self.layer2 = nn.Linear(width, width)
        self.layer3 = nn.Linear(width, 4)
        self.register_buffer("depths", torch.linspace(near, far, samples), persistent=False)
        self.register_buffer("scales", 2.0 ** torch.arange(frequencies), persistent=False)

    def encode(self, points: Tensor) -> Tensor:
        """Positional encoding, ``(..., 3) -> (..., 3 + 6 L)``: sin of all coordinates, then cos, for each frequency in turn."""
        scaled = points.unsqueeze(-2) * self.scales.unsqueeze(-1)  # (..., L, 3)
        waves = torch.stack([scaled.sin(), scaled.cos()], -2)  # (..., L, 2, 3)
        return torch.cat([points, waves.flatten(-3)], -1)

    def forward(self, rays: Tensor) -> Tensor:
        origins, directions = rays[..., None, :3], rays[..., None, 3:]  # (N, H, W, 1, 3) each
        points = origins + directions * self.depths.unsqueeze(-1)  # (N, H, W, S, 3)
        hidden = self.layer1(self.encode(points)).relu()
        field = self.layer3(self.layer2(hidden).relu())  # (N, H, W, S, 4)
        return composite(field, points, self.depths)


def composite(field: Tensor, points: Tensor, depths: Tensor) -> Tensor:
    """Render raw colours and densities ``(..., S, 4)`` at ``points`` ``(..., S, 3)`` to one output per ray ``(..., 8)``."""
    colour, density = field[..., :3].sigmoid(), field[..., 3].relu()
    # The last of the S intervals is infinite: it absorbs the remaining light.
    steps = torch.cat([depths[1:] - depths[:-1], depths.new_tensor([1e10])])
    alpha = 1 - torch.exp(-density * steps)  # (..., S)
    through = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha[..., :-1] + 1e-10], -1), -1)
    weights = alpha * through  # (..., S)
    opacity = weights.sum(-1, keepdim=True)  # (..., 1)
    share = weights / (opacity + 1e-8)
    entropy = -(share * (share + 1e-10).log()).sum(-1, keepdim=True) * opacity
    rgb = (weights.unsqueeze(-1) * colour).sum(-2)
    point = (share.unsqueeze(-1) * points).sum(-2)
    return torch.cat([rgb, point, opacity, entropy], -1)


class PoseEncoder(nn.Module):
    """Encodes the camera's position and direction: a view's rays ``(N, H, W, 6)`` to ``(N, width)``. This is the most useful
    condition for this task.

    Eight sines per number give a smooth nonlinear function of the pose.
    """

    scales: Tensor

    def __init__(self, width: int = 128, frequencies: int = 4) -> None:
        super().__init__()
        self.register_buffer("scales", 2.0 ** torch.arange(frequencies) * 0.5, persistent=False)
        self.net = nn.Sequential(nn.Linear(15 * (1 + 2 * frequencies), width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, rays: Tensor) -> Tensor:
        middle = rays[:, rays.shape[1] // 2, rays.shape[2] // 2]  # (N, 6)
        directions = torch.nn.functional.normalize(rays[..., 3:], dim=-1)  # (N, H, W, 3)
        axis = directions.mean((1, 2))  # (N, 3), as are down and right
        down = torch.nn.functional.normalize(directions[:, -1].mean(1) - directions[:, 0].mean(1), dim=-1)
        right = torch.nn.functional.normalize(directions[:, :, -1].mean(1) - directions[:, :, 0].mean(1), dim=-1)
        place = torch.nn.functional.normalize(middle[:, :3], dim=-1)
        pose = torch.cat([middle[:, :3] / 4, place, axis, down, right], -1)
        waves = pose.unsqueeze(-1) * self.scales
        return self.net(torch.cat([pose, waves.sin().flatten(1), waves.cos().flatten(1)], -1))
