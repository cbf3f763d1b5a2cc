"""Views of meshes by ray casting: a file trimesh can read, or the embedded scene of coloured primitives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ocd_bench.errors import UsageError
from ocd_bench_recon3d.rays import Views, camera_rays, dome

RADIUS = 4.0
"""Distance of the cameras, as in NeRF-synthetic: with the scene inside the unit ball, near 2 and far 6 enclose it."""


def primitives() -> Any:
    """The embedded scene: five coloured solids of trimesh on a plate, as one mesh."""
    import trimesh

    def place(mesh: Any, at: tuple[float, float, float], colour: tuple[int, int, int]) -> Any:
        mesh.apply_translation(at)
        mesh.visual.face_colors = (*colour, 255)
        return mesh

    make = trimesh.creation
    return trimesh.util.concatenate([
        place(make.box((1.9, 1.9, 0.1)), (0, 0, -0.55), (200, 200, 190)),
        place(make.box((0.5, 0.5, 0.5)), (-0.5, -0.45, -0.25), (200, 60, 50)),
        place(make.icosphere(3, 0.33), (0.5, -0.45, -0.17), (60, 90, 200)),
        place(make.cylinder(0.25, 0.8, sections=48), (-0.45, 0.5, -0.1), (240, 190, 60)),
        place(make.cone(0.33, 0.8, sections=48), (0.5, 0.5, -0.5), (60, 160, 90)),
        place(make.torus(0.3, 0.1, major_sections=48, minor_sections=24), (0, 0, 0.25), (170, 80, 180)),
    ])  # fmt: skip


def read_mesh(path: Path) -> Any:
    """A mesh or scene file as one mesh, centred and scaled into the unit ball.

    Raises:
        UsageError: if trimesh cannot read it, or there is no surface in it.
    """
    import trimesh

    try:
        mesh: Any = trimesh.load(path, force="mesh", process=False)
        if mesh.visual.kind == "texture":
            mesh.visual = mesh.visual.to_color()
    except Exception as error:  # trimesh's readers raise whatever the format's parser raises
        raise UsageError(
            f"mesh {path}: cannot be read ({type(error).__name__}: {error}); give an OBJ, PLY, STL or GLB file"
        ) from error
    if len(getattr(mesh, "faces", ())) == 0 or not np.isfinite(mesh.vertices).all():
        raise UsageError(f"mesh {path}: holds no faces with finite vertices; give a surface mesh")
    low, high = mesh.bounds
    mesh.apply_translation(-(low + high) / 2)
    mesh.apply_scale(1.0 / max(np.linalg.norm(mesh.vertices, axis=1).max(), 1e-12))
    return mesh


def render(mesh: Any, count: int, size: int, random: np.random.Generator) -> Views:
    """``count`` views of ``size`` x ``size`` pixels on a black ground, with the surface points the rays hit.

    Lambert's cosine law with a lamp above, and a highlight that moves with the camera (Phong): views of one point differ.
    """
    poses = dome(count, RADIUS, random)
    focal = 1.39 * size  # the field of view of NeRF-synthetic
    rays = camera_rays(poses, size, size, focal).reshape(-1, 6).astype(float)
    directions = rays[:, 3:] / np.linalg.norm(rays[:, 3:], axis=1, keepdims=True)
    points, hit, faces = mesh.ray.intersects_location(rays[:, :3], directions, multiple_hits=False)
    normals = mesh.face_normals[faces]
    view = -directions[hit]
    normals = normals * np.where((normals * view).sum(1, keepdims=True) < 0, -1.0, 1.0)  # both sides of thin sheets
    lamp = np.array([0.4, -0.3, 0.87])
    cosine = (normals @ lamp).clip(0)
    mirrored = 2 * (normals @ lamp)[:, None] * normals - lamp
    highlight = 0.5 * (mirrored * view).sum(1).clip(0) ** 12 * (cosine > 0)
    colours = _colours(mesh, points, faces) * (0.3 + 0.6 * cosine)[:, None] + highlight[:, None]
    images, surface = np.zeros((len(rays), 3)), np.zeros((len(rays), 3))
    mask = np.zeros(len(rays), bool)
    images[hit], surface[hit], mask[hit] = colours.clip(0, 1), points, True
    shape = (count, size, size)
    return Views(poses, focal, images.reshape(*shape, 3), surface.reshape(*shape, 3), mask.reshape(shape))


def _colours(mesh: Any, points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The colours of the faces if the mesh has several, else smooth stripes by coordinates, because a surface of one colour has
    no texture to reconstruct."""
    if mesh.visual.defined and mesh.visual.kind in ("face", "vertex"):
        colours = mesh.visual.face_colors[:, :3]
        if (colours != colours[0]).any():
            return colours[faces] / 255.0
    return 0.55 + 0.35 * np.sin(4.0 * points + np.array([0.0, 2.0, 4.0]))
