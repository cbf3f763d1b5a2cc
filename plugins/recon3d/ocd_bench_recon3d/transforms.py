"""Scenes described by ``transforms*.json``: NeRF-synthetic (Blender), instant-ngp and nerfstudio.

Every key of such a file is one of three: read, known to change nothing here, or refused by name. None is dropped in silence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ocd_bench.errors import UsageError
from ocd_bench.reading import is_stray, read_json
from ocd_bench_recon3d.cameras import Camera

AGREE = 0.01
"""Largest relative difference between two statements of one focal length."""
FAR = 1e6
"""Largest coordinate of a camera: beyond it rays in float32 have no depth."""

READ = frozenset({
    "frames", "file_path", "transform_matrix", "w", "h", "fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4", "p1", "p2",
    "camera_angle_x", "camera_angle_y", "x_fov", "y_fov", "camera_model", "is_fisheye",
    "applied_transform", "applied_scale", "scale", "offset", "train_filenames", "val_filenames", "test_filenames", "time",
})  # fmt: skip
HARMLESS = frozenset({
    # Where instant-ngp and nerfstudio put the scene in a box of their own, and what they draw around it.
    "aabb", "aabb_scale", "render_aabb", "up", "orientation_override", "auto_scale_poses_override", "n_extra_learnable_dims",
    # Depth and normal maps and point clouds: this task trains on colours alone.
    "depth_file_path", "depth_path", "normal_file_path", "enable_depth_loading", "integer_depth_scale",
    "depth_unit_scale_factor", "ply_file_path",
    # Blender's turntable step; sharpness and numbers of pictures.
    "rotation", "sharpness", "colmap_im_id", "colmap_image_id", "image_id", "frame_id", "id", "index", "n_frames", "timestamp",
    "original_fname", "camera_id", "name", "version", "description", "author", "date",
})  # fmt: skip
REFUSED = {
    "mask_path": "masks are not applied; cut the pictures, or set the alpha of what is masked to 0",
    "mask_color": "masks are not applied",
    "from_na": "axes of another convention; convert the poses to OpenGL axes",
    "rolling_shutter": "a camera that moves while a picture is taken is not modelled",
    "white_transparent": "pixels that count as transparent are not found by their colour; use an alpha channel",
    "black_transparent": "pixels that count as transparent are not found by their colour; use an alpha channel",
    "sharpen": "pictures are not sharpened",
    "fisheye_crop_radius": "pictures are not cropped to a circle",
    "distortion_params": "give the coefficients as k1, k2, k3, k4, p1, p2",
}
PERSPECTIVE = frozenset({"PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"})
FISHEYE = frozenset({"OPENCV_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"})
FOCAL = ("fl_x", "fl_y", "x_fov", "y_fov", "camera_angle_x", "camera_angle_y")
WORLD = ("applied_transform", "applied_scale", "scale", "offset")
"""Where a file's coordinates lie in others: they change nothing, but only as long as all parts of a scene agree on them."""


@dataclass(frozen=True)
class Frame:
    """One view as a transforms file states it.

    Args:
        where: file and frame, for messages.
        path: of the picture, as written, with forward slashes.
        pose: camera-to-world, ``(4, 4)``.
        stated: the keys that describe its camera: those of the frame, else those of the file.
    """

    where: str
    path: str
    pose: np.ndarray
    stated: Mapping[str, Any]

    def camera(self, width: int, height: int) -> Camera:
        """The camera of this view, whose picture has ``width`` x ``height`` pixels.

        Raises:
            UsageError: if the keys contradict each other or the picture, or state a lens that is not supported.
        """
        across, down = self._stated_size(width, height)
        fx, fy = self._focal(across, down)
        fisheye = self._fisheye()
        powers = tuple(self._number(f"k{order}") or 0.0 for order in range(1, 5))
        tangential = (self._number("p1") or 0.0, self._number("p2") or 0.0)
        if not fisheye and powers[3]:
            raise UsageError(
                f"{self.where}: k4={powers[3]:g}: programs differ in what a fourth coefficient of a perspective lens means; "
                "undistort the pictures first"
            )
        if fisheye and any(tangential):
            raise UsageError(f"{self.where}: p1, p2 of a fisheye lens are not supported; undistort the pictures first")
        radial = powers if fisheye else powers[:3]
        centre = self._number("cx"), self._number("cy")
        camera = Camera(round(across), round(down), fx, fy, *centre, radial if any(radial) else (), tangential, fisheye)
        return camera.scaled(width, height)

    def _stated_size(self, width: int, height: int) -> tuple[float, float]:
        """``w`` and ``h``, which the intrinsics refer to; the picture's own size where they are not given."""
        across, down = self._number("w"), self._number("h")
        if across is None and down is None:
            return width, height
        across = across or width * down / height  # type: ignore[operator]
        down = down or height * across / width
        if abs(width * down / across - height) > 1 and abs(height * across / down - width) > 1:
            raise UsageError(
                f"{self.where}: states pictures of {across:g} x {down:g}, but {self.path} has {width} x {height} pixels, which "
                "is another shape; correct w and h, or the picture (is it turned?)"
            )
        return across, down

    def _focal(self, width: float, height: float) -> tuple[float, float]:
        lengths = []
        for axis, side in (("x", width), ("y", height)):
            found = {}
            for key, unit in ((f"fl_{axis}", None), (f"{axis}_fov", 180 / math.pi), (f"camera_angle_{axis}", 1.0)):
                value = self._number(key)
                if value is None:
                    continue
                if unit is None:
                    found[key] = value
                elif 0 < value < math.pi * unit:
                    found[key] = 0.5 * side / float(np.tan(0.5 * value / unit))
                else:
                    raise UsageError(f"{self.where}: {key}={value:g}: an angle outside 0 to {'180' if unit > 1 else 'pi'}")
            for key, value in found.items():
                first, length = next(iter(found.items()))
                if not value > 0:
                    raise UsageError(f"{self.where}: {key}={value:g}: a focal length must be above 0")
                if abs(value / length - 1) > AGREE:
                    raise UsageError(
                        f"{self.where}: {first} and {key} contradict each other (focal lengths of {length:.6g} and {value:.6g} "
                        "pixels); remove the wrong one"
                    )
            lengths.append(next(iter(found.values()), None))
        fx, fy = lengths
        if fx is None and fy is None:
            raise UsageError(f"{self.where}: states no focal length: none of {', '.join(FOCAL)}")
        return fx or fy, fy or fx  # type: ignore[return-value]

    def _fisheye(self) -> bool:
        model = self.stated.get("camera_model")
        flag = bool(self.stated.get("is_fisheye"))
        if model is None:
            return flag
        name = str(model).upper()
        if name not in PERSPECTIVE | FISHEYE:
            raise UsageError(
                f"{self.where}: camera_model {model!r} is not supported; undistort the pictures to PINHOLE first "
                f"(supported: {', '.join(sorted(PERSPECTIVE | FISHEYE))})"
            )
        if flag and name in PERSPECTIVE:
            raise UsageError(f"{self.where}: camera_model {model!r} and is_fisheye contradict each other; remove one")
        return name in FISHEYE

    def _number(self, key: str) -> float | None:
        value = self.stated.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{self.where}: {key}={value!r}: expected a finite number")
        if key in ("w", "h") and not 1 <= value <= 10**6:
            raise UsageError(f"{self.where}: {key}={value!r}: expected a number of pixels")
        return float(value)


@dataclass(frozen=True)
class Scene:
    """The frames of a scene by part (``train``, ``val``, ``test``; or ``all`` where it has none), and remarks for the note."""

    folder: Path
    parts: Mapping[str, Sequence[Frame]]
    remarks: Sequence[str] = ()


def find_scene(folder: Path) -> Path | None:
    """``folder``, or the one folder in it, that holds transforms files; None if there is none.

    Raises:
        UsageError: if several folders in it do.
    """
    if not folder.is_dir():
        return None
    if _files(folder):
        return folder
    below = [child for child in sorted(folder.iterdir()) if child.is_dir() and not is_stray(child.name) and _files(child)]
    if len(below) > 1:
        names = ", ".join(child.name for child in below[:8])
        raise UsageError(f"{folder}: several scenes ({names}); give --data-dir {folder} and one of them as --dataset")
    return below[0] if below else None


def read_scene(folder: Path, ignore: Iterable[str] = ()) -> Scene:
    """The scene in ``folder``: ``transforms_train.json`` with its ``_val`` and ``_test``, or a single ``transforms.json``.

    Args:
        ignore: keys that may be in the files and are not looked at.

    Raises:
        UsageError: naming the file and the frame that is damaged, or the key that is not supported.
    """
    files, remarks = _files(folder), []
    skipped = frozenset(ignore)
    if "train" not in files:
        parts = read_file(files["all"], skipped) if "all" in files else {}
        if not parts:
            raise UsageError(f"{folder}: transforms files of {', '.join(files)} only; transforms_train.json is missing")
        return Scene(folder, parts)
    if "all" in files:
        remarks.append(f"{files.pop('all').name} left out beside {files['train'].name}")
    records = {part: _record(path) for part, path in files.items()}
    for key in WORLD:
        values = [record.get(key) for record in records.values()]
        if key not in skipped and any(value != values[0] for value in values):
            names = ", ".join(path.name for path in files.values())
            raise UsageError(f"{folder}: {key} differs between {names}: the poses of the parts lie in different coordinates")
    found = {part: _frames(files[part], record, skipped) for part, record in records.items()}
    _refuse_motion([frame for frames in found.values() for frame in frames], skipped)
    return Scene(folder, found, remarks)


def read_file(path: Path, ignore: frozenset[str] = frozenset()) -> dict[str, list[Frame]]:
    """The frames of a single ``transforms.json``: by part where it lists them (``train_filenames`` of nerfstudio), else all."""
    record = _record(path)
    frames = _frames(path, record, ignore)
    _refuse_motion(frames, ignore)
    lists = {part: record.get(f"{part}_filenames") for part in ("train", "val", "test")}
    if not any(lists.values()):
        return {"all": frames}
    by_path = {frame.path: frame for frame in frames}
    parts: dict[str, list[Frame]] = {}
    for part, names in lists.items():
        if not names:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UsageError(f"{path}: {part}_filenames: expected a list of file paths")
        missing = [name for name in names if _slashes(name) not in by_path]
        if missing:
            raise UsageError(f"{path}: {part}_filenames names {missing[0]!r}, which no frame has")
        parts[part] = [by_path[_slashes(name)] for name in names]
    listed = [frame.path for part in parts.values() for frame in part]
    if len(set(listed)) < len(listed):
        raise UsageError(f"{path}: a frame is in two of train_filenames, val_filenames and test_filenames")
    if "train" not in parts:
        raise UsageError(f"{path}: val_filenames or test_filenames, but no train_filenames")
    return parts


def _files(folder: Path) -> dict[str, Path]:
    """Transforms files of a folder by part; letter case does not count."""
    names = {f"transforms_{part}.json": part for part in ("train", "val", "test")} | {"transforms.json": "all"}
    found = {names[path.name.lower()]: path for path in sorted(folder.iterdir()) if path.name.lower() in names}
    return {part: found[part] for part in ("train", "val", "test", "all") if part in found}


def _record(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("frames"), list):
        raise UsageError(f"{path}: not a transforms file (no list of frames)")
    if not record["frames"]:
        raise UsageError(f"{path}: names no frames")
    return record


def _frames(path: Path, record: Mapping[str, Any], ignore: frozenset[str]) -> list[Frame]:
    _check_keys(f"{path}", {key: value for key, value in record.items() if key != "frames"}, ignore)
    frames = []
    for number, frame in enumerate(record["frames"]):
        where = f"{path}, frame {number}"
        if (
            not isinstance(frame, dict)
            or not isinstance(frame.get("file_path"), str)
            or not frame["file_path"].strip("./\\ \0")
        ):
            raise UsageError(f"{where}: expected file_path and transform_matrix")
        _check_keys(where, frame, ignore)
        # A frame that states a focal length of its own states all of it.
        of_file = {k: v for k, v in record.items() if k not in FOCAL or not any(key in frame for key in FOCAL)}
        stated = {
            k: v for k, v in {**of_file, **frame}.items() if k in READ - ignore and k not in ("frames", "transform_matrix")
        }
        frames.append(Frame(where, _slashes(frame["file_path"]), checked_pose(where, frame.get("transform_matrix")), stated))
    return frames


def _check_keys(where: str, record: Mapping[str, Any], ignore: frozenset[str]) -> None:
    for key, value in record.items():
        if key in READ or key in HARMLESS or key in ignore or not _says_something(value):
            continue
        if key in REFUSED:
            raise UsageError(f"{where}: {key} is not supported: {REFUSED[key]} (or --set recon3d.ignore_keys={key})")
        raise UsageError(
            f"{where}: unknown key {key!r} ({str(value)[:40]}), which may change what the cameras see; remove it, or state "
            f"that it does not with --set recon3d.ignore_keys={key}"
        )


def _says_something(value: Any) -> bool:
    """Whether a value is other than nothing: null, false, 0, empty, or a list of these."""
    return any(map(_says_something, value)) if isinstance(value, list) else bool(value)


def checked_pose(where: str, matrix: Any) -> np.ndarray:
    """``matrix`` as a camera-to-world pose ``(4, 4)``; ``(3, 4)`` will do.

    Raises:
        UsageError: if it is no finite rotation and translation.
    """
    try:
        pose = np.array(matrix, float)
    except (ValueError, TypeError, OverflowError):
        pose = np.empty(0)
    if pose.shape == (3, 4):
        pose = np.concatenate([pose, [[0, 0, 0, 1]]])
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise UsageError(f"{where}: a transform_matrix that is not 4 x 4 finite numbers")
    turn = pose[:3, :3]
    rigid = np.abs(pose).max() < FAR and np.allclose(turn.T @ turn, np.eye(3), atol=AGREE) and np.linalg.det(turn) > 0
    if not rigid or not np.allclose(pose[3], [0, 0, 0, 1]):
        raise UsageError(
            f"{where}: a transform_matrix that is no rotation and translation (it scales, shears or mirrors, or lies too far "
            "away); give camera-to-world poses"
        )
    return pose


def _refuse_motion(frames: Sequence[Frame], ignore: frozenset[str]) -> None:
    times = {str(frame.stated.get("time")) for frame in frames}
    if len(times) > 1 and "time" not in ignore:
        raise UsageError(f"{frames[0].where}: frames of several times: a scene that moves is not modelled")


def _slashes(path: str) -> str:
    """A path with forward slashes and without ``./``, as written on any system."""
    path = path.replace("\\", "/")
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path
