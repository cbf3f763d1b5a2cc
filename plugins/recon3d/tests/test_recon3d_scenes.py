"""Scenes of other programs: every stated parameter of a camera is applied, or refused by name."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ocd_bench import Request, Splits, UsageError
from ocd_bench.config import resolve
from ocd_bench_recon3d.cameras import Camera
from ocd_bench_recon3d.datasets import read_transforms
from ocd_bench_recon3d.rays import dome
from ocd_bench_recon3d.task import Recon3D

POSES = dome(12, 4.0, np.random.default_rng(0)).tolist()
FOCAL = 0.5 * 24 / np.tan(0.5 * 0.6911)


def load(directory: Path, dataset: str = "scene", **settings: object) -> Splits:
    overrides = {f"recon3d.{key}": value for key, value in {"size": 24, **settings}.items()}
    chosen = resolve(Recon3D(), [], "quick", overrides).section("recon3d")
    return Recon3D().load_data(Request("recon3d", dataset, chosen, "quick", data_dirs=(directory,)))


def refusal(directory: Path, dataset: str = "scene", **settings: object) -> str:
    with pytest.raises(UsageError) as caught:
        load(directory, dataset, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def colours(number: int, width: int = 24, height: int = 24) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(
    folder: Path,
    stated: dict[str, Any] | None = None,
    parts: dict[str, int] | None = None,
    paths: str = "{part}/r_{number}",
    frame: Callable[[int], dict[str, Any]] = lambda number: {},
) -> Path:
    """A scene of random pictures ``PART/r_NUMBER.png`` and one transforms file for each part (``""``: a single one)."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for part, count in (parts or {"train": 6, "val": 2, "test": 4}).items():
        frames = []
        for _ in range(count):
            (folder / (part or "images")).mkdir(exist_ok=True)
            picture = folder / (part or "images") / f"r_{number}.png"
            if not picture.exists():
                Image.fromarray(colours(number)).save(picture)
            path = paths.format(part=part or "images", number=number)
            frames.append({"file_path": path, "transform_matrix": POSES[number % 12], **frame(number)})
            number += 1
        record = {**({"camera_angle_x": 0.6911} if stated is None else stated), "frames": frames}
        (folder / f"transforms{'_' * bool(part)}{part}.json").write_text(json.dumps(record))
    return folder


def same(first: Splits, second: Splits) -> bool:
    return all(
        torch.allclose(getattr(first, part).inputs, getattr(second, part).inputs, atol=1e-5)
        and torch.equal(getattr(first, part).targets, getattr(second, part).targets)
        for part in ("train", "val", "test")
    )


@pytest.fixture
def plain(tmp_path: Path) -> Splits:
    write(tmp_path / "plain" / "scene")
    return load(tmp_path / "plain")


# -- focal lengths ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "stated",
    [
        {"fl_x": FOCAL, "fl_y": FOCAL, "cx": 12.0, "cy": 12.0, "w": 24, "h": 24},
        {"fl_x": FOCAL},
        {"fl_y": FOCAL},
        {"fl_x": 50 * FOCAL, "fl_y": 50 * FOCAL, "cx": 600, "cy": 600, "w": 1200, "h": 1200},
        {"x_fov": np.rad2deg(0.6911)},
        {"camera_angle_x": 0.6911, "camera_angle_y": 0.6911, "fl_x": FOCAL, "k1": 0, "p1": 0.0, "aabb_scale": 16, "scale": 0.3},
        {"camera_angle_x": 0.6911, "camera_model": "OPENCV", "applied_transform": [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]},
    ],
)
def test_one_camera_stated_in_several_ways_gives_the_same_rays(tmp_path: Path, plain: Splits, stated: dict[str, Any]) -> None:
    write(tmp_path / "scene", stated)
    assert same(load(tmp_path), plain)


def test_every_part_has_the_focal_length_it_states(tmp_path: Path, plain: Splits) -> None:
    write(tmp_path / "scene")
    path = tmp_path / "scene" / "transforms_test.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "camera_angle_x": 0.4838}))
    splits = load(tmp_path)
    assert torch.equal(splits.train.inputs, plain.train.inputs)
    widths = [across(split) for split in (splits.train, splits.test)]
    assert widths == pytest.approx([2 * np.tan(0.6911 / 2) * 23 / 24, 2 * np.tan(0.4838 / 2) * 23 / 24], rel=1e-5)
    assert "focal length 33.3 to 48.6 pixels" in splits.note
    views, parts = read_transforms(tmp_path / "scene", 24)
    assert np.allclose(np.asarray(views.focal)[parts[2]], 48.636, atol=1e-2)


def across(split: Any) -> float:
    """Width of the image plane at depth 1, from the first pixel's corner to the last one's."""
    row = split.inputs[0, 0, :, 3:].double()
    return float((row[-1] - row[0]).norm())


def test_every_frame_has_the_camera_it_states(tmp_path: Path) -> None:
    write(tmp_path / "scene", frame=lambda number: {"fl_x": 20.0 + number, "cx": 10.0 + number, "w": 24, "h": 24})
    views, _ = read_transforms(tmp_path / "scene", 24)
    assert np.allclose(views.focal, 20 + np.arange(12))
    rays = views.rays()
    for number in range(12):
        forward = -views.poses[number, :3, 2]
        right = views.poses[number, :3, 0]
        expected = forward + (0 - (10 + number)) / (20 + number) * right
        seen = rays[number, 12, 0, 3:]  # the row through the middle
        assert np.allclose(seen, expected, atol=1e-5)


def test_pixels_that_are_not_square_keep_both_focal_lengths(tmp_path: Path) -> None:
    write(tmp_path / "scene", {"fl_x": 30.0, "fl_y": 60.0})
    directions = load(tmp_path).train.inputs[0, ..., 3:].double()
    assert float((directions[0, 1] - directions[0, 0]).norm()) == pytest.approx(1 / 30, rel=1e-4)
    assert float((directions[1, 0] - directions[0, 0]).norm()) == pytest.approx(1 / 60, rel=1e-4)


# -- lenses -----------------------------------------------------------------------------------------------------------------
def test_a_distorted_lens_sees_each_ray_where_opencvs_formula_says() -> None:
    k1, k2, k3, p1, p2 = -0.2, 0.06, -0.01, 0.003, -0.002
    camera = Camera(40, 30, 35.0, 33.0, 21.0, 14.0, (k1, k2, k3), (p1, p2))
    rays = camera.directions()
    assert np.allclose(rays[..., 2], -1)
    x, y = rays[..., 0], -rays[..., 1]
    r2 = x**2 + y**2
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    seen_x = 35 * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2)) + 21
    seen_y = 33 * (y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y) + 14
    columns, rows = np.meshgrid(np.arange(40), np.arange(30))
    assert np.allclose(seen_x, columns, atol=1e-4)
    assert np.allclose(seen_y, rows, atol=1e-4)


def test_a_fisheye_lens_sees_each_ray_where_opencvs_formula_says() -> None:
    k = (0.02, -0.01, 0.003, -0.001)
    camera = Camera(40, 40, 24.0, 24.0, radial=k, fisheye=True)
    rays = camera.directions()
    angle = np.arctan(np.hypot(rays[..., 0], rays[..., 1]))
    radius = angle * (1 + sum(value * angle ** (2 * order) for order, value in enumerate(k, start=1)))
    columns, rows = np.meshgrid(np.arange(40) - 20, np.arange(40) - 20)
    assert np.allclose(24 * radius, np.hypot(columns, rows), atol=1e-4)
    assert np.allclose(np.arctan2(-rays[..., 1], rays[..., 0]), np.arctan2(rows, columns), atol=1e-6)


def test_a_stated_distortion_reaches_the_rays(tmp_path: Path, plain: Splits) -> None:
    write(tmp_path / "scene", {"camera_angle_x": 0.6911, "k1": -0.1, "p2": 0.01})
    splits = load(tmp_path)
    moved = (splits.train.inputs - plain.train.inputs).abs()
    assert moved[..., :3].max() == 0
    assert moved[..., 3:].max() > 1e-3
    assert "distorted lens" in splits.note


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"camera_angle_x": 0.69, "fl_x": 48.6}, "fl_x and camera_angle_x contradict each other"),
        ({"w": 24, "h": 24}, "states no focal length"),
        ({"fl_x": -3}, "fl_x=-3: a focal length must be above 0"),
        ({"fl_x": "33"}, "fl_x='33': expected a finite number"),
        ({"fl_x": float("nan")}, "fl_x=nan: expected a finite number"),
        ({"fl_x": True}, "fl_x=True: expected a finite number"),
        ({"camera_angle_x": 0.69, "camera_model": "EQUIRECTANGULAR"}, "camera_model 'EQUIRECTANGULAR' is not supported"),
        ({"fl_x": 33, "camera_model": "OPENCV", "is_fisheye": True}, "camera_model 'OPENCV' and is_fisheye contradict"),
        ({"fl_x": 33, "k4": 0.1}, "k4=0.1: programs differ"),
        ({"fl_x": 33, "k1": -5.0}, "the lens distortion k1=-5 cannot be inverted at pixel"),
        ({"fl_x": 5, "is_fisheye": True}, "looks further than 85 degrees"),
        ({"fl_x": 33, "is_fisheye": True, "p1": 0.1}, "p1, p2 of a fisheye lens"),
        ({"fl_x": 33, "w": 48, "h": 24}, "states pictures of 48 x 24, but train/r_0 has 24 x 24"),
        ({"fl_x": 33, "rolling_shutter": [0, 0, 0.1, 0]}, "rolling_shutter is not supported"),
        ({"fl_x": 33, "from_na": True}, "from_na is not supported"),
        ({"fl_x": 33, "shift_x": 0.1}, "unknown key 'shift_x' (0.1), which may change what the cameras see"),
        ({"fl_x": 33, "k5": 0.1}, "recon3d.ignore_keys=k5"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, stated: dict[str, Any], said: str) -> None:
    write(tmp_path / "scene", stated)
    message = refusal(tmp_path)
    assert said in message
    assert "transforms_train.json" in message


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ({"mask_path": "masks/0.png"}, "mask_path is not supported"),
        ({"transform_matrix": (2 * np.eye(4)).tolist()}, "no rotation and translation"),
        ({"transform_matrix": np.diag([1, 1, -1, 1]).tolist()}, "no rotation and translation"),
        ({"transform_matrix": [["a"] * 4] * 4}, "not 4 x 4 finite numbers"),
        ({"transform_matrix": [[float("nan")] * 4] * 4}, "not 4 x 4 finite numbers"),
        ({"file_path": ""}, "expected file_path"),
        ({"file_path": "r\0_0"}, "missing or unreadable"),
        ({"file_path": "train/r_99"}, "missing or unreadable"),
    ],
)
def test_a_frame_that_cannot_be_used_is_named(tmp_path: Path, frame: dict[str, Any], said: str) -> None:
    write(tmp_path / "scene", frame=lambda number: frame if number == 3 else {})
    message = refusal(tmp_path)
    assert said in message
    assert "transforms_train.json, frame 3" in message


def test_a_key_may_be_ignored_by_a_setting(tmp_path: Path, plain: Splits) -> None:
    write(tmp_path / "scene", {"camera_angle_x": 0.6911, "shift_x": 0.1}, frame=lambda number: {"mask_path": "none.png"})
    assert same(load(tmp_path, ignore_keys="shift_x,mask_path"), plain)


def test_a_scene_that_moves_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "scene", frame=lambda number: {"time": number / 12})
    assert "a scene that moves is not modelled" in refusal(tmp_path)


def test_parts_in_different_coordinates_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "scene")
    path = tmp_path / "scene" / "transforms_test.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "applied_scale": 0.5}))
    assert "applied_scale differs between" in refusal(tmp_path)


# -- pictures ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "paths",
    [
        "./{part}/r_{number}",
        "{part}/r_{number}.png",
        ".\\{part}\\r_{number}",
        "{part}\\r_{number}.png",
        "{part}/R_{number}.PNG",
        "{part}//r_{number}",
        "/home/somebody/scene/{part}/r_{number}.png",
        "C:\\Users\\somebody\\scene\\{part}\\r_{number}.png",
        "data/nerf/scene/{part}/r_{number}.png",
        "../scene/{part}/r_{number}.png",
    ],
)
def test_paths_of_other_systems_and_machines_find_the_pictures(tmp_path: Path, plain: Splits, paths: str) -> None:
    write(tmp_path / "scene", paths=paths)
    splits = load(tmp_path)
    assert same(splits, plain)
    assert ("taken without" in splits.note) == ("somebody" in paths or "data/" in paths)


def test_capital_file_names_and_folders_are_found(tmp_path: Path, plain: Splits) -> None:
    folder = write(tmp_path / "scene")
    for part in ("train", "val", "test"):
        (folder / part).rename(folder / part.upper())
        (folder / f"transforms_{part}.json").rename(folder / f"Transforms_{part.title()}.json")
    assert same(load(tmp_path), plain)


def png16(pixels: np.ndarray) -> bytes:
    """A 16-bit PNG, written here: Pillow writes none in colour."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_16_bits_keep_their_depth(tmp_path: Path, channels: int) -> None:
    folder = write(tmp_path / "scene")
    deep = np.random.default_rng(0).integers(0, 65536, (24, 24, channels))
    for path in folder.rglob("*.png"):
        path.write_bytes(png16(deep))
    seen = load(tmp_path).train.targets[0].numpy()
    values = deep / 65535
    colour = values[..., :3] if channels >= 3 else np.repeat(values[..., :1], 3, 2)
    if channels in (2, 4):
        colour = colour * values[..., -1:]
    assert np.allclose(seen, colour, atol=2e-5)


def test_a_turned_picture_is_turned_as_its_stated_size_says(tmp_path: Path) -> None:
    folder = write(tmp_path / "scene", {"fl_x": 30, "w": 16, "h": 24})
    tag = Image.Exif()
    tag[0x0112] = 6
    stored = colours(5, 24, 16)  # 24 across as stored, 16 as shown
    for path in folder.rglob("*.png"):
        Image.fromarray(stored).save(path, exif=tag)
    shown = load(tmp_path, size=16).train.targets[0].numpy()
    assert np.allclose(shown, np.rot90(stored, -1) / 255, atol=1e-6)
    write(folder, {"fl_x": 30, "w": 24, "h": 16})
    assert np.allclose(load(tmp_path).train.targets[0].numpy(), stored / 255, atol=1e-6)
    write(folder, {"fl_x": 30})
    assert "it is not clear whether the camera means it turned" in refusal(tmp_path)


def test_pictures_of_one_shape_and_several_sizes_are_one_scene(tmp_path: Path) -> None:
    folder = write(tmp_path / "scene", frame=lambda number: {"fl_x": 2 * FOCAL, "w": 48, "h": 48} if number == 2 else {})
    large = np.repeat(np.repeat(colours(2), 2, 0), 2, 1)
    Image.fromarray(large).save(folder / "train" / "r_2.png")
    write(tmp_path / "plain" / "scene")
    assert same(load(tmp_path), load(tmp_path / "plain"))


def test_a_huge_picture_is_refused_from_its_header(tmp_path: Path) -> None:
    folder = write(tmp_path / "scene")
    header = io.BytesIO()
    Image.new("1", (13000, 13000)).save(header, "PNG")
    (folder / "train" / "r_1.png").write_bytes(header.getvalue())
    message = refusal(tmp_path)
    assert "r_1.png" in message
    assert "more than 33,554,432 pixels" in message


# -- parts ------------------------------------------------------------------------------------------------------------------
def test_a_scene_without_a_validation_part_says_where_it_comes_from(tmp_path: Path) -> None:
    write(tmp_path / "scene", parts={"train": 8, "test": 4})
    splits = load(tmp_path, val_views=2)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [6, 2, 4]
    assert "no validation part: its views are taken from training" in splits.note
    write(tmp_path / "other" / "scene", parts={"train": 8, "val": 4})
    splits = load(tmp_path / "other", val_views=2)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [6, 2, 4]
    assert "the validation part is the test part" in splits.note


def test_a_single_file_is_split_by_a_fixed_draw_or_as_it_says(tmp_path: Path) -> None:
    folder = write(tmp_path / "scene", parts={"": 12})
    first, second = (load(tmp_path, val_views=2, test_views=3) for _ in range(2))
    assert same(first, second)
    assert [len(split) for split in (first.train, first.val, first.test)] == [7, 2, 3]
    assert "split by a fixed draw" in first.note
    places = {tuple(view.flatten().tolist()) for split in (first.train, first.val, first.test) for view in split.targets}
    assert len(places) == 12
    path = folder / "transforms.json"
    names = [f"images/r_{number}" for number in range(12)]
    record = json.loads(path.read_text())
    listed = {"train_filenames": names[:7], "val_filenames": names[7:9], "test_filenames": names[9:]}
    path.write_text(json.dumps({**record, **listed}))
    splits = load(tmp_path)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [7, 2, 3]
    assert np.allclose(splits.test.targets[0], colours(9) / 255, atol=1e-6)
    path.write_text(json.dumps({**record, **listed, "test_filenames": [*names[9:], names[0]]}))
    assert "a frame is in two of" in refusal(tmp_path)


def test_a_folder_in_the_folder_is_found_and_two_are_refused(tmp_path: Path, plain: Splits) -> None:
    write(tmp_path / "scene" / "mic")
    assert same(load(tmp_path), plain)
    write(tmp_path / "scene" / "drums")
    assert "several scenes (drums, mic)" in refusal(tmp_path)


@pytest.mark.parametrize("place", ["fox.npz", "fox/views.npz", "Fox.npz"])
def test_views_in_an_npz_file_are_found_under_any_name(tmp_path: Path, place: str) -> None:
    images = np.stack([colours(number) for number in range(12)])
    (tmp_path / place).parent.mkdir(exist_ok=True)
    np.savez(tmp_path / place, images=images, poses=np.array(POSES), focal=30.0)
    splits = load(tmp_path, "fox", val_views=2, test_views=3)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [7, 2, 3]
    assert across(splits.train) == pytest.approx(23 / 30, rel=1e-5)
    assert "split by a fixed draw" in splits.note
    assert splits.train.targets.max() <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": np.full((12, 8, 8, 3), 200.0)}, "images from 200 to 200: expected values in [0, 1]"),
        ({"focal": np.array(-1.0)}, "focal: expected finite numbers above 0"),
        ({"poses": np.array(POSES)[:, :2]}, "expected images (V, H, W, 3) and poses (V, 4, 4)"),
        ({"poses": 3 * np.array(POSES)}, "pose 0: a transform_matrix that is no rotation"),
        ({"k1": np.array(0.1)}, "unknown array 'k1'"),
        ({"images": np.full((12, 8, 8, 3), "x")}, "expected floats in [0, 1], uint8 or uint16"),
        ({"focal": None}, "no array focal"),
    ],
)
def test_an_npz_file_of_something_else_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    arrays = {"images": np.zeros((12, 8, 8, 3)), "poses": np.array(POSES), "focal": np.array(9.0), **change}
    np.savez(tmp_path / "fox.npz", **{key: value for key, value in arrays.items() if value is not None})
    assert said in refusal(tmp_path, "fox")


# -- meshes -----------------------------------------------------------------------------------------------------------------
CUBE = """v -1 -1 -1
v 1 -1 -1
v 1 1 -1
v -1 1 -1
v -1 -1 1
v 1 -1 1
v 1 1 1
v -1 1 1
f 1 2 3 4
f 5 6 7 8
f 1 2 6 5
f 2 3 7 6
f 3 4 8 7
f 4 1 5 8
"""


def rendered(tmp_path: Path, text: str, name: str = "cube.obj") -> Splits:
    (tmp_path / name).write_text(text)
    return load(tmp_path, mesh=str(tmp_path / name))


@pytest.mark.parametrize("stray", ["v 0 0 4000\n", "v nan 0 0\n", "v 0 0 4000\nf 9 9 9\n", "v 0 0 4000\nf 9 9 1\n"])
def test_a_vertex_no_ray_can_meet_does_not_move_the_mesh(tmp_path: Path, stray: str) -> None:
    assert same(rendered(tmp_path, CUBE + stray), rendered(tmp_path, CUBE))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_count(tmp_path: Path, scale: float) -> None:
    lines = [
        "v " + " ".join(str(scale * float(value)) for value in line.split()[1:]) if line.startswith("v ") else line
        for line in CUBE.splitlines()
    ]
    pictures = rendered(tmp_path, "\n".join(lines)).test.targets[..., :3]
    assert torch.allclose(pictures, rendered(tmp_path, CUBE).test.targets[..., :3], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no faces"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "holds no faces"),
        ("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "no face with an area"),
        ("v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n", "NaN or infinite"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 33\n", "mesh"),
        (CUBE + "v 0 0 9000\nv 1 0 9000\nv 0 1 9000\nf 9 10 11\n", "something small and far away"),
    ],
)
def test_a_mesh_without_a_surface_to_see_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        rendered(tmp_path, text)


def test_a_packed_mesh_is_read(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "Box.OBJ.gz").write_bytes(gzip.compress(CUBE.encode()))
    assert same(load(tmp_path, "box"), rendered(tmp_path, CUBE))


def test_a_material_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.mtl").write_text("newmtl a\nKd 1 0 0\n")
    with pytest.raises(UsageError, match="outside its folder"):
        rendered(tmp_path / "inner", f"mtllib ../secret.mtl\n{CUBE}")
