"""From the frames of a transforms file to views: finds each frame's picture, scales it to one size, sets it on black."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from ocd_bench.errors import UsageError
from ocd_bench.reading import read_bytes
from ocd_bench.reading.pictures import ORIENTATION, SUFFIXES, Picture, decode_picture
from ocd_bench_recon3d.cameras import Camera
from ocd_bench_recon3d.rays import Views
from ocd_bench_recon3d.transforms import Frame, Scene

PIXEL_LIMIT = 2**25
"""Maximum number of pixels of a picture before it is scaled: photographs of 33 megapixels."""
FILE_LIMIT = 256 * 2**20
"""Maximum bytes of a picture file."""
MEMORY_LIMIT = 16 * 2**30
"""Maximum bytes of the rays and pictures of a scene."""
ENDINGS = (".png", ".jpg", ".jpeg", *sorted(SUFFIXES - {".png", ".jpg", ".jpeg"}))
"""Tried in this order where a path has none, as in NeRF-synthetic."""


def read_posed(scene: Scene, size: int) -> tuple[Views, dict[str, np.ndarray], str]:
    """All views of a scene, their pictures ``size`` pixels wide and set on black, the numbers of those in each part, and what a
    reader of the table should know.

    Raises:
        UsageError: naming the frame whose picture is missing or damaged, of another shape than the first, or whose camera is
            not supported.
    """
    images: list[np.ndarray] = []
    poses: list[np.ndarray] = []
    cameras: list[Camera] = []
    checked: set[Camera] = set()
    parts = {}
    remarks = list(scene.remarks)
    for part, frames in scene.parts.items():
        places = Places(scene.folder, frames)
        remarks += [remark for remark in places.remarks if remark not in remarks]
        first = len(images)
        for frame in frames:
            picture, camera = _view(frame, places.find(frame), size)
            if images and picture.shape != images[0].shape:
                raise UsageError(
                    f"{frame.where}: {frame.path}: of another shape than the first picture ({_shape(picture)} and "
                    f"{_shape(images[0])} at a width of {size}); all views must have the same"
                )
            if not images:
                _check_memory(sum(map(len, scene.parts.values())), camera, str(scene.folder))
            if camera not in checked:
                camera.directions(frame.where)  # refuses here what rays would trip over later
                checked.add(camera)
            images.append(picture)
            poses.append(frame.pose)
            cameras.append(camera)
        parts[part] = np.arange(first, len(images))
    views = Views(np.stack(poses), cameras if len(set(cameras)) > 1 else cameras[:1], np.stack(images))
    return views, parts, "; ".join([f"pictures scaled to a width of {size}", *_words(views), *remarks])


def _words(views: Views) -> list[str]:
    """A description of the cameras, for the note."""
    lengths = sorted({round(camera.fx, 1) for camera in views.cameras})
    said = f"focal length {lengths[0]:g}" + (f" to {lengths[-1]:g}" if len(lengths) > 1 else "") + " pixels"
    lenses = {("fisheye" if camera.fisheye else "distorted") for camera in views.cameras if camera.fisheye or camera.distorted}
    away = np.linalg.norm(views.poses[:, :3, 3], axis=1)
    distances = " to ".join(dict.fromkeys(f"{value:.3g}" for value in (away.min(), away.max())))
    return [said, *(f"{lens} lens" for lens in sorted(lenses)), f"cameras {distances} from the origin"]


def _view(frame: Frame, path: Path, size: int) -> tuple[np.ndarray, Camera]:
    picture = _as_its_camera_sees_it(frame, path)
    camera = frame.camera(picture.width, picture.height)
    height = max(1, round(size * picture.height / picture.width))
    pixels = picture.resized(size, height, "BOX").pixels
    values = pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels
    if values.shape[2] == 4:
        values = values[..., :3] * values[..., 3:]
    return values, camera.scaled(size, height)


def _as_its_camera_sees_it(frame: Frame, path: Path) -> Picture:
    """The picture of a frame. The intrinsics of one with an EXIF orientation may refer to the pixels as stored (COLMAP,
    nerfstudio) or as shown; ``w`` and ``h`` tell, where they differ.

    Raises:
        UsageError: if it cannot be read, or they do not tell.
    """
    try:
        data = read_bytes(path, FILE_LIMIT)
    except UsageError as error:
        raise UsageError(f"{error} (named by {frame.where})") from error
    named = f"{path}: named by {frame.where}"
    shown = decode_picture(data, named, pixel_limit=PIXEL_LIMIT)
    if shown.turned == 1:
        return shown
    stored = decode_picture(data, named, pixel_limit=PIXEL_LIMIT, upright=False)
    sizes = {(picture.width, picture.height): picture for picture in (stored, shown)}
    stated = frame.stated.get("w"), frame.stated.get("h")
    if len(sizes) == 2 and stated in sizes:
        return sizes[stated]
    raise UsageError(
        f"{named}: its EXIF orientation ({ORIENTATION:#06x}: {shown.turned}) turns the picture, and it is not clear whether "
        "the camera means it turned; turn the pixels and remove the tag"
    )


class Places:
    """The paths of the pictures of a file's frames.

    Paths may be relative to the folder, absolute, or relative to another folder (that in which a script was run, or another
    machine's): as many leading folders are then left off as make the first frame's picture found, for all frames alike.
    """

    def __init__(self, folder: Path, frames: Sequence[Frame]) -> None:
        self.folder, self.left_off, self.remarks = folder, 0, []
        parts = self._parts(frames[0])
        if self._look(frames[0].path) is None:
            for count in range(1, len(parts)):
                if self._look("/".join(parts[count:])):
                    self.left_off = count
                    self.remarks = [f"paths of the pictures taken without {'/'.join(parts[:count])}"]
                    break

    def find(self, frame: Frame) -> Path:
        """The picture's path.

        Raises:
            UsageError: if it is not found.
        """
        path = "/".join(self._parts(frame)[self.left_off :]) if self.left_off else frame.path
        found = self._look(path)
        if found is None:
            ending = (
                "" if PurePosixPath(path).suffix.lower() in SUFFIXES else f" (with {', '.join(ENDINGS[:3])} or another ending)"
            )
            raise UsageError(f"{self.folder / path}{ending}: named by {frame.where}, but missing or unreadable (no such file)")
        return found

    @staticmethod
    def _parts(frame: Frame) -> tuple[str, ...]:
        return PureWindowsPath(frame.path).parts

    def _look(self, path: str) -> Path | None:
        exact = self.folder / path
        try:
            if _is_there(exact):
                return exact
            for candidate in (Path(f"{exact}{ending}") for ending in ENDINGS):
                if _is_there(candidate):
                    return candidate
            return self._whatever_case(path)
        except (OSError, ValueError):  # a NUL, or a name longer than the system knows
            return None

    def _whatever_case(self, path: str) -> Path | None:
        """The same, for files that were renamed on a system where letter case does not count."""
        place = self.folder
        pieces = PurePosixPath(path).parts
        for piece in pieces[:-1]:
            if piece == ".." or not (place / piece).is_dir():
                matches = (
                    [c for c in place.iterdir() if c.is_dir() and c.name.lower() == piece.lower()] if place.is_dir() else []
                )
                if len(matches) != 1:
                    return None
                place = matches[0]
            else:
                place = place / piece
        wanted = [f"{pieces[-1]}{ending}".lower() for ending in ("", *ENDINGS)] if pieces else []
        names = {c.name.lower(): c for c in place.iterdir() if c.is_file()} if place.is_dir() else {}
        return next((names[name] for name in wanted if name in names), None)


def _is_there(path: Path) -> bool:
    """Whether something other than a folder is there; what it is, the one who opens it says."""
    return path.exists() and not path.is_dir()


def _check_memory(count: int, camera: Camera, where: str) -> None:
    needed = count * camera.width * camera.height * 9 * 4
    if needed > MEMORY_LIMIT:
        raise UsageError(
            f"{where}: {count:,} views of {camera.width} x {camera.height} pixels take {needed / 2**30:.0f} GiB; lower "
            "recon3d.size"
        )


def _shape(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
