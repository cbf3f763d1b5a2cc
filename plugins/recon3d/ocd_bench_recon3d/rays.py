"""Cameras and rays: pinhole cameras with OpenGL axes (looking along -z), rays in picture order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Views:
    """V posed views of one scene.

    Args:
        poses: camera-to-world, ``(V, 4, 4)``.
        focal: in pixels.
        images: colour in [0, 1], ``(V, H, W, 3)``.
        surface: where a mesh is known, the point each ray hits, ``(V, H, W, 3)``, and
        mask: whether it hits anything, ``(V, H, W)``.
    """

    poses: np.ndarray
    focal: float
    images: np.ndarray
    surface: np.ndarray | None = None
    mask: np.ndarray | None = None


def camera_rays(poses: np.ndarray, height: int, width: int, focal: float) -> np.ndarray:
    """Origins and directions, ``(V, H, W, 6)`` float32. Directions have unit depth along the camera's axis, not unit
    length, so that ``near`` and ``far`` are depths (as in NeRF, Mildenhall et al. 2020)."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    # Directions in the camera's axes, (H, W, 3): x to the right, y up, z backwards.
    local = np.stack([(columns - width / 2) / focal, -(rows - height / 2) / focal, -np.ones_like(rows, float)], -1)
    directions = np.einsum("vij,hwj->vhwi", poses[:, :3, :3], local)
    origins = np.broadcast_to(poses[:, None, None, :3, 3], directions.shape)
    return np.concatenate([origins, directions], -1).astype(np.float32)


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Camera-to-world pose ``(4, 4)`` of a camera at ``eye`` looking at ``target``, z up."""
    backward = (eye - target) / np.linalg.norm(eye - target)
    up = np.array([0.0, 0.0, 1.0]) if abs(backward[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    right = np.cross(up, backward)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :4] = np.stack([right, np.cross(backward, right), backward, eye], 1)
    return pose


def dome(count: int, radius: float, random: np.random.Generator) -> np.ndarray:
    """Poses ``(count, 4, 4)`` spread over the upper part of a sphere around the origin, in random order."""
    height = 0.05 + 0.85 * (np.arange(count) + random.random(count)) / count
    angle = np.pi * (3 - 5**0.5) * np.arange(count) + 2 * np.pi * random.random()
    flat = np.sqrt(1 - height**2)
    eyes = radius * np.stack([flat * np.cos(angle), flat * np.sin(angle), height], 1)
    return np.stack([look_at(eye, np.zeros(3)) for eye in eyes[random.permutation(count)]])
