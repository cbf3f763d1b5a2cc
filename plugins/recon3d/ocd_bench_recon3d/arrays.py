"""Views kept as arrays: ``tiny_nerf_data.npz`` and files of the same form under any name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ocd_bench.errors import DataMissing, UsageError
from ocd_bench.reading import listed, read_npz
from ocd_bench_recon3d.cameras import Camera
from ocd_bench_recon3d.rays import Views
from ocd_bench_recon3d.transforms import checked_pose

NAMES = ("images", "poses", "focal")


def read_tiny_nerf(path: Path, ignore: Iterable[str] = ()) -> Views:
    """Views of an ``.npz`` file: ``images`` ``(V, H, W, 3)`` or, with straight alpha, ``(V, H, W, 4)``, as floats in [0, 1] or
    as integers of 8 or 16 bits; ``poses``, camera-to-world, ``(V, 4, 4)`` or ``(V, 3, 4)``; ``focal`` in pixels, one number or
    ``(V,)``.

    Args:
        ignore: further arrays that may be in the file and are not looked at.

    Raises:
        DataMissing: if the file is not there.
        UsageError: if it is damaged, or holds something else.
    """
    if not path.exists():
        raise DataMissing(f"{path} not found; see 'ocd-bench data list'")
    arrays = read_npz(path)
    missing = [name for name in NAMES if name not in arrays]
    others = sorted(set(arrays) - set(NAMES) - set(ignore))
    if missing:
        raise UsageError(
            f"{path}: not a readable tiny_nerf file: no array {listed(missing)}; it has {listed(sorted(arrays)) or 'none'}"
        )
    if others:
        raise UsageError(
            f"{path}: unknown array {others[0]!r}, which may change what the cameras see; remove it, or state that it does not "
            f"with --set recon3d.ignore_keys={others[0]}"
        )
    images, poses, focal = (arrays[name] for name in NAMES)
    if images.ndim != 4 or images.shape[-1] not in (3, 4) or poses.shape not in ((len(images), 4, 4), (len(images), 3, 4)):
        raise UsageError(f"{path}: expected images (V, H, W, 3) and poses (V, 4, 4), found {images.shape} and {poses.shape}")
    if not len(images) or 0 in images.shape:
        raise UsageError(f"{path}: images {images.shape}: no views in it")
    if focal.shape not in ((), (1,), (len(images),)) or focal.dtype.kind not in "iuf":
        raise UsageError(f"{path}: focal {focal.shape} of {focal.dtype}: expected one number of pixels, or one for each view")
    lengths = focal.astype(float).reshape(-1)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise UsageError(f"{path}: focal: expected finite numbers above 0")
    height, width = images.shape[1:3]
    cameras = [Camera(width, height, float(length), float(length)) for length in lengths]
    stacked = np.stack([checked_pose(f"{path}, pose {number}", pose) for number, pose in enumerate(poses)])
    return Views(stacked, cameras if len(set(cameras)) > 1 else cameras[:1], _colours(images, path))


def _colours(images: np.ndarray, path: Path) -> np.ndarray:
    """``(V, H, W, 3)`` in [0, 1], on black where there is alpha."""
    if images.dtype in (np.uint8, np.uint16):
        images = images.astype(np.float32) / np.iinfo(images.dtype).max
    elif images.dtype.kind != "f":
        raise UsageError(f"{path}: images of {images.dtype}: expected floats in [0, 1], uint8 or uint16")
    low, high = float(images.min()), float(images.max())  # NaN where there is one
    if not (low >= 0 and high <= 1):
        raise UsageError(
            f"{path}: images from {low:g} to {high:g}: expected values in [0, 1]; divide them by their largest value"
        )
    return images[..., :3] * images[..., 3:] if images.shape[-1] == 4 else images


def scaled_down(views: Views, width: int) -> Views:
    """Views averaged down to ``width`` pixels across, with their own aspect; as they are if they are no wider."""
    import torch

    height, across = views.images.shape[1:3]
    if across <= width:
        return views
    size = (max(1, round(height * width / across)), width)
    pixels = torch.nn.functional.interpolate(torch.from_numpy(views.images).movedim(-1, 1), size, mode="area")
    cameras = [camera.scaled(width, size[0]) for camera in views.cameras]
    return Views(views.poses, cameras, pixels.movedim(1, -1).numpy())
