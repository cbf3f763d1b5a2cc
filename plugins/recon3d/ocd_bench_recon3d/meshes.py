"""Views of meshes by ray casting: a file trimesh can read, or the embedded scene of coloured primitives."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ocd_bench.errors import UsageError
from ocd_bench.reading import counted, listed, open_unpacked, read_bounded, read_bytes, reading, split_name
from ocd_bench_recon3d.cameras import Camera
from ocd_bench_recon3d.rays import Views, dome, rays_of

RADIUS = 4.0
"""Distance of the cameras, as in NeRF-synthetic: with the scene inside the unit ball, near 2 and far 6 enclose it."""

FILE_LIMIT = 256 * 2**20
"""Maximum bytes of a mesh file, and of each file that it names."""
FACE_LIMIT = 5_000_000
EMPTY = 1e-3
"""Minimum share of the pixels that a surface must cover. Empty views would be reconstructed perfectly by an empty field."""


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


def read_mesh(path: Path) -> tuple[Any, str]:
    """A mesh or scene file, plain or compressed, as one mesh, its surface centred and scaled into the unit ball, and a note.
    Vertices that are of no face, or only of faces without area, do not count: no ray meets them.

    Raises:
        UsageError: if trimesh cannot read it, it is too large, or there is no surface in it.
    """
    import trimesh

    where = f"mesh {path}"
    beside: Any = Beside(path.parent)
    with open_unpacked(path) as file:
        data = read_bounded(file, where, FILE_LIMIT)
    with reading(where, "give an OBJ, PLY, STL, OFF or GLB file"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        loaded: Any = trimesh.load(
            io.BytesIO(data), file_type=split_name(path.name).ending[1:], force="mesh", process=False, resolver=beside
        )
        if beside.refused:  # trimesh goes on without
            raise beside.refused[0]
        if not isinstance(loaded, trimesh.Trimesh) or not len(loaded.faces):
            raise UsageError(f"{where}: holds no faces; give a surface mesh")
        mesh: Any = loaded
        faces = np.asarray(mesh.faces)
        if faces.min() < 0 or faces.max() >= len(mesh.vertices):
            raise UsageError(f"{where}: a face names vertex {faces.max()}, but there are {len(mesh.vertices)}; export it again")
        if len(faces) > FACE_LIMIT:
            raise UsageError(f"{where}: {len(faces):,} faces, at most {FACE_LIMIT:,} are rendered; simplify it")
        if not np.isfinite(mesh.vertices[np.unique(faces)]).all():
            raise UsageError(f"{where}: a face has a vertex that is NaN or infinite; repair it")
        if mesh.visual.kind == "texture":
            mesh.visual = mesh.visual.to_color()
        _into_unit_ball(mesh, where)
    missing = f", without {listed(beside.missing)}, which it names and which is not there" if beside.missing else ""
    return mesh, f"rendered from {path.name}, {counted(len(faces), 'face')}{missing}"


def _into_unit_ball(mesh: Any, where: str) -> None:
    with np.errstate(all="ignore"):
        solid = mesh.area_faces > 0  # false for NaN, from coordinates beyond 1e154
    if not solid.any():
        raise UsageError(f"{where}: holds no face with an area; give a surface mesh")
    used = np.unique(mesh.faces[solid])
    corners = mesh.vertices[used]
    low, high = corners.min(0), corners.max(0)
    mesh.apply_translation(-(low + high) / 2)
    mesh.apply_scale(1.0 / max(np.linalg.norm(mesh.vertices[used], axis=1).max(), 1e-12))


class Beside:
    """Files that a mesh names (materials, textures, buffers): those below its folder, regular ones of bounded size.

    trimesh requests them by :meth:`get`, and continues without a file that is not available.

    Attributes:
        missing: names of files that do not exist.
        refused: reasons why other files were not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: list[str] = []
        self.refused: list[UsageError] = []

    def get(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            UsageError: if it is too large, no regular file, or outside the folder.
            FileNotFoundError: if it is not there.
        """
        path = self.folder / name.strip().replace("\\", "/")
        try:
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise UsageError(f"{path}: named by a mesh, but outside its folder; put it beside the mesh")
            if path.exists():
                return read_bytes(path, FILE_LIMIT)
        except UsageError as error:
            self.refused.append(error)
            raise
        if name not in self.missing:
            self.missing.append(name)
        raise FileNotFoundError(name)

    def namespaced(self, namespace: str) -> Beside:
        """trimesh's word for a sub-folder; names are always relative to the mesh here."""
        return self

    def keys(self) -> list[str]:
        """Names of the existing files."""
        return [path.name for path in self.folder.iterdir() if path.is_file()]

    def __getitem__(self, name: str) -> bytes:
        return self.get(name)

    def __contains__(self, name: str) -> bool:
        return (self.folder / name).is_file()


def render(mesh: Any, count: int, size: int, random: np.random.Generator) -> Views:
    """``count`` views of ``size`` x ``size`` pixels on a black ground, with the surface points the rays hit.

    Lambert's cosine law with a lamp above, and a highlight that moves with the camera (Phong): views of one point differ.
    """
    poses = dome(count, RADIUS, random)
    focal = 1.39 * size  # the field of view of NeRF-synthetic
    camera = Camera(size, size, focal, focal)
    rays = rays_of(poses, camera).reshape(-1, 6).astype(float)
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
    if len(hit) < EMPTY * len(rays):
        raise UsageError(
            f"the surface covers {len(hit):,} of {len(rays):,} pixels of the views: something small and far away makes the "
            "rest of it tiny, or it is thinner than a pixel; repair the mesh, or raise recon3d.size"
        )
    images[hit], surface[hit], mask[hit] = colours.clip(0, 1), points, True
    shape = (count, size, size)
    return Views(poses, [camera], images.reshape(*shape, 3), surface.reshape(*shape, 3), mask.reshape(shape))


def _colours(mesh: Any, points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The colours of the faces if the mesh has several, else smooth stripes by coordinates, because a surface of one colour has
    no texture to reconstruct."""
    if mesh.visual.defined and mesh.visual.kind in ("face", "vertex"):
        colours = mesh.visual.face_colors[:, :3]
        if (colours != colours[0]).any():
            return colours[faces] / 255.0
    return 0.55 + 0.35 * np.sin(4.0 * points + np.array([0.0, 2.0, 4.0]))
