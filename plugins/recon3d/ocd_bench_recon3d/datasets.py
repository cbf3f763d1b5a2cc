"""Reading views: the tiny_nerf file, NeRF-synthetic folders, mesh files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ocd_bench.errors import DataMissing, UsageError
from ocd_bench.task import Request
from ocd_bench_recon3d import meshes
from ocd_bench_recon3d.rays import Views

MESH_ENDINGS = (".obj", ".ply", ".stl", ".glb", ".gltf", ".off")
Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def read_tiny_nerf(path: Path) -> Views:
    """``tiny_nerf_data.npz``: images ``(V, H, W, 3)`` in [0, 1], camera-to-world poses ``(V, 4, 4)``, focal in pixels.

    Raises:
        UsageError: if the file is damaged or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            images, poses, focal = file["images"], file["poses"], float(file["focal"])
    except FileNotFoundError as error:
        raise DataMissing(f"{path} not found; see 'ocd-bench data list'") from error
    except Exception as error:  # a damaged archive raises zipfile, zlib, pickle or key errors
        raise UsageError(f"{path}: not a readable tiny_nerf file ({error}); fetch it again") from error
    if images.ndim != 4 or images.shape[-1] != 3 or poses.shape != (len(images), 4, 4):
        raise UsageError(f"{path}: expected images (V, H, W, 3) and poses (V, 4, 4), found {images.shape} and {poses.shape}")
    return Views(poses.astype(float), focal, images)


def scaled_down(views: Views, width: int) -> Views:
    """Views averaged down to ``width`` pixels across, with their own aspect; as they are if they are no wider."""
    import torch

    height, across = views.images.shape[1:3]
    if across <= width:
        return views
    size = (max(1, round(height * width / across)), width)
    pixels = torch.nn.functional.interpolate(torch.from_numpy(views.images).movedim(-1, 1), size, mode="area")
    return Views(views.poses, views.focal * width / across, pixels.movedim(1, -1).numpy())


def read_transforms(folder: Path, size: int) -> tuple[Views, Parts]:
    """A NeRF-synthetic folder: ``transforms_{train,val,test}.json`` and the pictures they name, on black, ``size`` pixels wide.

    Returns:
        All views, and the numbers of those in each official part.

    Raises:
        UsageError: naming the file that is missing or damaged, or a picture of another shape than the first.
    """
    images: list[np.ndarray] = []
    poses: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    focal = 0.0
    for part in ("train", "val", "test"):
        path = folder / f"transforms_{part}.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            angle = float(record["camera_angle_x"])
            frames = [(str(frame["file_path"]), np.array(frame["transform_matrix"], float)) for frame in record["frames"]]
            if not 0 < angle < np.pi or any(pose.shape != (4, 4) or not np.isfinite(pose).all() for _, pose in frames):
                raise ValueError("an angle outside 0 to pi, or a transform_matrix that is not 4 x 4")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: missing or not a NeRF-synthetic transforms file ({error})") from error
        focal = 0.5 * size / np.tan(0.5 * angle)
        first = len(images)
        for name, pose in frames:
            picture = folder / name
            picture = picture if picture.suffix else picture.with_suffix(".png")
            images.append(_read_picture(picture, size, path.name))
            poses.append(pose)
            if images[-1].shape != images[0].shape:
                raise UsageError(f"{picture}: of another shape than the first picture; all views must have the same")
        parts.append(np.arange(first, len(images)))
        if len(parts[-1]) == 0:
            raise UsageError(f"{path}: names no frames")
    return Views(np.stack(poses), focal, np.stack(images)), (parts[0], parts[1], parts[2])


def _read_picture(picture: Path, width: int, named_by: str) -> np.ndarray:
    """``(H, W, 3)`` in [0, 1] on black, scaled to ``width`` with its own aspect."""
    from PIL import Image

    try:
        with Image.open(picture) as opened:
            height = max(1, round(width * opened.height / opened.width))
            rgba = opened.convert("RGBA").resize((width, height), Image.Resampling.BOX)
    except (OSError, Image.DecompressionBombError) as error:
        raise UsageError(f"{picture}: named by {named_by}, but missing or unreadable ({error})") from error
    pixels = np.asarray(rgba, np.float32) / 255
    return pixels[..., :3] * pixels[..., 3:]


def find_mesh(request: Request) -> Path:
    """The mesh file ``NAME.obj`` (or another ending) in ``meshes/``, or the single one in a folder ``NAME``.

    Raises:
        DataMissing: if there is none; the message says where it was looked for.
    """
    for directory in request.data_dirs:
        for folder in (directory / "meshes", directory / request.dataset):
            for path in sorted(folder.glob("*")) if folder.is_dir() else ():
                named = path.stem in (request.dataset, request.dataset.replace("_", "-"))
                if path.suffix.lower() in MESH_ENDINGS and (named or folder.name == request.dataset):
                    return path
    looked = ", ".join(str(directory) for directory in request.data_dirs)
    raise DataMissing(
        f"dataset {request.dataset!r} not found: no folder of that name with transforms_train.json, and no mesh "
        f"{request.dataset}.obj in meshes/, under {looked}; give --data-dir, or --set recon3d.mesh=FILE"
    )


def read_views(request: Request) -> tuple[Views, Parts | None, str]:
    """Views of the requested dataset, the official parts where it has them, and a note."""
    settings = request.settings
    random = np.random.default_rng(20221000)  # the cameras are part of the data: the same for every seed
    count = settings.train_views + settings.val_views + settings.test_views
    if settings.mesh:
        return meshes.render(meshes.read_mesh(Path(settings.mesh)), count, settings.size, random), None, ""
    if request.dataset == "primitives":
        return meshes.render(meshes.primitives(), count, settings.size, random), None, "rendered from trimesh primitives"
    if request.dataset in ("lego", "tiny_nerf"):
        views = read_tiny_nerf(request.folder("tiny_nerf") / "tiny_nerf_data.npz")
        views = scaled_down(views, settings.size)
        # 0-99 are the scene's training views, 100-105 validation and test views: all six are held out here.
        numbers = np.arange(len(views.images))
        return views, (numbers[:100], numbers[:0], numbers[100:]), ""
    for directory in request.data_dirs:
        folder = directory / request.dataset
        if (folder / "transforms_train.json").exists():
            views, parts = read_transforms(folder, settings.size)
            return views, parts, f"pictures scaled to a width of {settings.size}"
    return meshes.render(meshes.read_mesh(find_mesh(request)), count, settings.size, random), None, "rendered from a mesh"
