"""Scores of rendered views: MSE, PSNR, SSIM (Wang et al. 2004) and the Chamfer distance of the visible surface."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1], ``(N,) -> (N,)``."""
    return -10 * torch.log10(mse.clamp_min(1e-10))


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of pictures ``(N, H, W, 3)`` in [0, 1], ``(N,)``: Gaussian window of 11 pixels, sigma 1.5."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(first.movedim(-1, 1), second.movedim(-1, 1), data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.reshape(len(first))


def chamfer(points: Tensor, opacity: Tensor, surface: Tensor, mask: Tensor, nothing: float) -> Tensor:
    """Symmetric Chamfer distance in scene units between the rendered surface of a view and the true one, ``(N,)``.

    Args:
        points: expected surface point of each ray, ``(N, R, 3)``; used where ``opacity`` ``(N, R)`` exceeds 0.5.
        surface: true surface point of each ray, ``(N, R, 3)``; used where ``mask`` ``(N, R)`` is set.
        nothing: the distance for a view with a rendered surface but no true one, or the reverse.
    """
    from scipy.spatial import cKDTree

    distances = []
    for rendered, solid, true, inside in zip(
        *(t.cpu().numpy() for t in (points, opacity > 0.5, surface, mask > 0.5)), strict=True
    ):
        a, b = rendered[solid], true[inside]
        if len(a) == 0 or len(b) == 0:
            distances.append(0.0 if len(a) == len(b) else nothing)
            continue
        there, back = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
        distances.append(float(np.mean(there) + np.mean(back)) / 2)
    return torch.tensor(distances, device=points.device)
