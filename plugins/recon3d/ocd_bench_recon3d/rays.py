"""Posed views and their rays, in picture order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocd_bench_recon3d.cameras import Camera


@dataclass(frozen=True)
class Views:
    """V posed views of one scene, all of ``H`` x ``W`` pixels.

    Args:
        poses: camera-to-world, ``(V, 4, 4)``.
        cameras: one for each view, or a single one for all.
        images: colour in [0, 1], ``(V, H, W, 3)``.
        surface: where a mesh is known, the point each ray hits, ``(V, H, W, 3)``, and
        mask: whether it hits anything, ``(V, H, W)``.
    """

    poses: np.ndarray
    cameras: Sequence[Camera]
    images: np.ndarray
    surface: np.ndarray | None = None
    mask: np.ndarray | None = None

    @property
    def focal(self) -> float | np.ndarray:
        """Horizontal focal length in pixels; ``(V,)`` where the views have cameras of their own."""
        lengths = {camera.fx for camera in self.cameras}
        return lengths.pop() if len(lengths) == 1 else np.array([camera.fx for camera in self.cameras])

    def rays(self) -> np.ndarray:
        """``(V, H, W, 6)`` float32, see :func:`rays_of`."""
        height, width = self.images.shape[1:3]
        if len(self.cameras) == 1:
            return rays_of(self.poses, self.cameras[0])
        result = np.empty((len(self.poses), height, width, 6), np.float32)
        numbers: dict[Camera, list[int]] = {}
        for number, camera in enumerate(self.cameras):
            numbers.setdefault(camera, []).append(number)
        for camera, chosen in numbers.items():
            result[chosen] = rays_of(self.poses[chosen], camera)
        return result


def camera_rays(poses: np.ndarray, height: int, width: int, focal: float) -> np.ndarray:
    """:func:`rays_of` a camera with square pixels whose axis passes through the middle of its picture."""
    return rays_of(poses, Camera(width, height, focal, focal))


def rays_of(poses: np.ndarray, camera: Camera) -> np.ndarray:
    """Origins and directions of one camera at V poses, ``(V, 4, 4) -> (V, H, W, 6)`` float32. Directions have unit depth along
    the camera's axis, not unit length, so that ``near`` and ``far`` are depths (as in NeRF, Mildenhall et al. 2020)."""
    directions = np.einsum("vij,hwj->vhwi", poses[:, :3, :3], camera.directions())
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
