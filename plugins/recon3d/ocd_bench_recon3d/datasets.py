"""Finds a scene by name, in any known format, and reads its views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocd_bench.errors import UsageError
from ocd_bench.reading import find_dataset, list_folder, split_name
from ocd_bench.task import Request
from ocd_bench_recon3d import meshes
from ocd_bench_recon3d.arrays import read_tiny_nerf, scaled_down
from ocd_bench_recon3d.datasets_list import DATASETS
from ocd_bench_recon3d.posed import read_posed
from ocd_bench_recon3d.rays import Views
from ocd_bench_recon3d.transforms import find_scene, read_scene

if TYPE_CHECKING:
    from ocd_bench_recon3d.settings import Settings

MESH_ENDINGS = (".obj", ".ply", ".stl", ".glb", ".gltf", ".off")
Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def read_views(request: Request) -> tuple[Views, Parts | None, str]:
    """Views of the requested dataset; the numbers of those in its own training, validation and test part, or None where all are
    to be split; and a note.

    Raises:
        DataMissing: if it is not found.
        UsageError: if it is damaged, of no known form, or states something that is not supported.
    """
    settings: Settings = request.settings
    if settings.mesh:
        mesh, note = meshes.read_mesh(Path(settings.mesh))
        return _render(mesh, settings), None, note
    if request.dataset == "primitives":
        return _render(meshes.primitives(), settings), None, "rendered from trimesh primitives"
    if request.dataset in ("lego", "tiny_nerf"):
        views = scaled_down(read_tiny_nerf(request.folder("tiny_nerf") / "tiny_nerf_data.npz"), settings.size)
        # 0-99 are the scene's training views, 100-105 validation and test views: all six are held out here.
        numbers = np.arange(len(views.images))
        return views, (numbers[:100], numbers[:0], numbers[100:]), ""
    place = find_place(request)
    if place.is_dir():
        return read_transforms_of(place, settings.size, settings.ignore_keys)
    if split_name(place.name).ending == ".npz":
        views = scaled_down(read_tiny_nerf(place, settings.ignore_keys), settings.size)
        return views, None, f"views of {place.name}, which has no parts: split by a fixed draw"
    mesh, note = meshes.read_mesh(place)
    return _render(mesh, settings), None, note


def find_place(request: Request) -> Path:
    """The folder with transforms files, the ``.npz`` file of views or the mesh that ``request.dataset`` names.

    Raises:
        DataMissing: if there is none.
        UsageError: if a folder of that name has none of these, or several.
    """
    dashed = request.dataset.replace("_", "-")
    aliases = [f"meshes/{request.dataset}", *([f"meshes/{dashed}"] if dashed != request.dataset else [])]
    place = find_dataset(request, (".npz", *MESH_ENDINGS), aliases, DATASETS)
    if not place.is_dir():
        return place
    scene = find_scene(place)
    if scene:
        return scene
    found = [place / name for name in list_folder(place, (".npz", *MESH_ENDINGS)).files]
    named = [path for path in found if split_name(path.name).stem in (request.dataset, dashed)] or found
    if len(named) == 1:
        return named[0]
    if named:
        raise UsageError(
            f"{place}: several scenes ({', '.join(path.name for path in named[:8])}); keep one, or name one as NAME/NAME.obj"
        )
    raise UsageError(
        f"{place}: holds no scene: neither transforms_train.json or transforms.json, nor one .npz file of views, nor one mesh "
        f"({', '.join(MESH_ENDINGS)})"
    )


def read_transforms_of(folder: Path, size: int, ignore: Sequence[str] = ()) -> tuple[Views, Parts | None, str]:
    """The posed pictures of a folder; see :mod:`ocd_bench_recon3d.transforms`. A missing part is named in the note."""
    scene = read_scene(folder, ignore)
    views, parts, note = read_posed(scene, size)
    none = np.arange(0)
    if set(parts) & {"val", "test"}:
        if "test" not in parts:
            parts = {"train": parts["train"], "test": parts["val"]}
            note += "; no test part: the validation part is the test part, validation views are taken from training"
        elif "val" not in parts:
            note += "; no validation part: its views are taken from training"
        return views, (parts["train"], parts.get("val", none), parts["test"]), note
    return views, None, f"{note}; no parts for validation and test: all views split by a fixed draw"


def read_transforms(folder: Path, size: int) -> tuple[Views, Parts | None]:
    """As :func:`read_transforms_of`, without the note."""
    return read_transforms_of(folder, size)[:2]


def _render(mesh: Any, settings: Settings) -> Views:
    random = np.random.default_rng(20221000)  # the cameras are part of the data: the same for every seed
    count = settings.train_views + settings.val_views + settings.test_views
    return meshes.render(mesh, count, settings.size, random)
