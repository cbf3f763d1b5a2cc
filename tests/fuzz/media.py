"""The readers of pictures, views, meshes, sounds and weights that are fuzzed."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from entries import entry, load, npz, text

RANDOM = np.random.default_rng(0)


def picture(seed: int, kind: str = "PNG", side: int = 6, mode: str = "RGB", **options: Any) -> bytes:
    """A picture of random pixels."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    """A zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def class_folders(ending: str, kind: str, prefix: str = "", **options: Any) -> dict[str, bytes]:
    """Two classes of four training pictures and one test picture."""
    return {
        f"{prefix}{part}/{name}/{number}.{ending}": picture(10 * len(part) + number, kind, **options)
        for part, count in (("train", 4), ("test", 1))
        for name in ("ant", "bee")
        for number in range(count)
    }


# -- pictures -------------------------------------------------------------------------------------------------------------
def decode(folder: Path) -> None:
    """Decode the one picture there is, in every way the tasks do."""
    from ocd_bench.reading import read_bytes
    from ocd_bench.reading.pictures import decode_picture

    data = read_bytes(folder / "x")
    decode_picture(data, str(folder / "x"), upright=False)
    decode_picture(data, str(folder / "x")).resized(3, 3, "BOX").opaque(0.0)


def single(*args: Any, **options: Any) -> dict[str, bytes]:
    """A data directory of one picture."""
    return {"x": picture(1, *args, **options)}


for _kind, _options in (
    ("PNG", {}), ("PNG", {"mode": "P"}), ("PNG", {"mode": "RGBA"}), ("JPEG", {}), ("GIF", {"mode": "P"}), ("BMP", {}),
    ("WEBP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"mode": "CMYK"}), ("PPM", {}),
):  # fmt: skip
    _name = " ".join(["picture", _kind.lower(), *map(str, _options.values())])
    entry(_name, partial(single, _kind, **_options), decode, _name in ("picture png", "picture tiff"))
for _kind in ("PNG", "TIFF", "PPM"):
    entry(f"picture {_kind.lower()} 16 bits", partial(lambda kind: {"x": deep(kind)}, _kind), decode, False)
entry("images class folders", partial(class_folders, "png", "PNG", "d/"), load("images", "d"))


def deep(mode: str) -> bytes:
    """A picture of 16 bits."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 65536, (6, 6), dtype=np.uint16)).save(file, mode)
    return file.getvalue()


def train_part() -> dict[str, bytes]:
    """The class folders of a training part."""
    folders = class_folders("png", "PNG")
    return {name.removeprefix("train/"): data for name, data in folders.items() if name.startswith("train")}


def zips() -> dict[str, bytes]:
    """A zip for each part."""
    return {f"d/{part}.zip": packed(train_part()) for part in ("train", "test")}


def alone() -> dict[str, bytes]:
    """Class folders without parts."""
    return {f"d/{name[:-4]}{mark}.png": data for name, data in train_part().items() for mark in "xy"}


entry("images zip", lambda: {"d.zip": packed(class_folders("png", "PNG"))}, load("images", "d"))
entry("images zips", zips, load("images", "d"), False)
entry("images class folders alone", alone, load("images", "d"), False)
_arrays = {
    "x_train": RANDOM.integers(0, 256, (20, 4, 4), dtype=np.uint8), "y_train": np.arange(20) % 2,
    "x_test": RANDOM.integers(0, 256, (6, 4, 4), dtype=np.uint8), "y_test": np.arange(6) % 2,
}  # fmt: skip
entry("images npz", {"d.npz": npz(**_arrays)}, load("images", "d"), False)
_digits = RANDOM.integers(0, 256, (20, 16, 16), dtype=np.uint8)
_usps = npz(x_train=_digits, y_train=np.arange(20) % 10, x_test=_digits, y_test=np.arange(20) % 10)
entry("images usps", {"usps/usps.npz": _usps}, load("images", "usps"), False)


def idx(values: np.ndarray) -> bytes:
    """An IDX file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


_idx = {
    f"{part}-{what}-idx{array.ndim}-ubyte": idx(array)
    for part, key in (("train", "train"), ("t10k", "test"))
    for what, array in (("images", _arrays[f"x_{key}"]), ("labels", _arrays[f"y_{key}"]))
}
entry("images idx", {f"d/{name}": data for name, data in _idx.items()}, load("images", "d"), False)
entry("images idx.gz", {f"d/{name}.gz": gzip.compress(data) for name, data in _idx.items()}, load("images", "d"))
_records = {
    name: b"".join(bytes([n % 10]) + RANDOM.bytes(3072) for n in range(10))
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")
}
entry("images cifar", {f"d/{name}": data for name, data in _records.items()}, load("images", "d"), False)


def tar_gz(files: dict[str, bytes]) -> bytes:
    """A gzipped tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


entry("images cifar archive", lambda: {"d/cifar-10-binary.tar.gz": tar_gz(_records)}, load("images", "d"), False)

# -- views and meshes -------------------------------------------------------------------------------------------------------
FEW = {"size": 8, "train_views": 2, "val_views": 1, "test_views": 1}
POSE = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 4.0], [0, 0, 0, 1.0]]


def scene(part: str, stated: dict[str, Any], count: int = 2, **frame: Any) -> bytes:
    """A transforms file of ``count`` frames."""
    frames = [{"file_path": f"./{part}/r_{n}", "transform_matrix": POSE, **frame} for n in range(count)]
    return json.dumps({**stated, "frames": frames}).encode()


def blender() -> dict[str, bytes]:
    """A scene as NeRF-synthetic has it."""
    parts = ("train", "val", "test")
    files = {f"d/transforms_{part}.json": scene(part, {"camera_angle_x": 0.7}) for part in parts}
    return files | {f"d/{part}/r_{n}.png": picture(n, side=8) for part in parts for n in range(2)}


entry("recon3d transforms", blender, load("recon3d", "d", **FEW), False)
_lens = {
    "fl_x": 9.0, "fl_y": 9.5, "cx": 4.0, "cy": 4.1, "w": 8, "h": 8, "k1": -0.02, "k2": 0.001, "p1": 0.001, "p2": -0.001,
    "camera_model": "OPENCV", "aabb_scale": 4, "applied_transform": POSE[:3],
}  # fmt: skip
entry(
    "recon3d nerfstudio",
    lambda: {
        "d/transforms.json": scene("train", _lens, 4, k1=0.01),
        **{f"d/train/r_{n}.png": picture(n, side=8) for n in range(4)},
    },
    load("recon3d", "d", **FEW),
)
entry(
    "recon3d npz",
    {"d.npz": npz(images=RANDOM.random((6, 8, 8, 3)), poses=np.array([POSE] * 6), focal=np.array(9.0))},
    load("recon3d", "d", **FEW),
    False,
)


def mesh(ending: str, **options: Any) -> bytes:
    """A coloured box in a format that trimesh writes."""
    import trimesh

    box = trimesh.creation.box((1, 2, 3))
    box.visual.vertex_colors = RANDOM.integers(0, 256, (8, 4), dtype=np.uint8)
    data = box.export(file_type=ending, **options)
    return data.encode() if isinstance(data, str) else data


def mesh_file(ending: str, kind: str, **options: Any) -> dict[str, bytes]:
    """A data directory of one mesh."""
    return {f"d.{ending}": mesh(kind, **options)}


def reads_mesh(ending: str) -> Any:
    """A call that reads the mesh, and renders none of it."""

    def read(folder: Path) -> None:
        from ocd_bench_recon3d.meshes import read_mesh

        read_mesh(folder / f"d.{ending}")

    return read


for _ending in ("obj", "ply", "stl", "off", "glb"):
    entry(f"mesh {_ending}", partial(mesh_file, _ending, _ending), reads_mesh(_ending), _ending in ("ply", "glb"))
entry("mesh ascii ply", partial(mesh_file, "ply", "ply", encoding="ascii"), reads_mesh("ply"), False)
entry("mesh ascii stl", partial(mesh_file, "stl", "stl_ascii"), reads_mesh("stl"), False)
entry("recon3d obj", partial(mesh_file, "obj", "obj"), load("recon3d", "d", **FEW))
_material = b"newmtl m\nKd 0.1 0.5 0.9\nmap_Kd t.png\n"
_textured = b"mtllib d.mtl\nusemtl m\n" + b"".join(b"v %d %d %d\n" % v for v in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)))
_textured += b"vt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\nf 1/1 2/2 4/3\nf 1/1 3/2 4/3\nf 2/1 3/2 4/3\n"
entry(
    "mesh textured obj",
    lambda: {"d.obj": _textured, "d.mtl": _material, "t.png": picture(1)},
    reads_mesh("obj"),
    False,
)

# -- sounds -----------------------------------------------------------------------------------------------------------------
BRIEF = {"seconds": 0.25, "train_mixtures": 2, "val_mixtures": 1, "test_mixtures": 1, "speeds": "1.0"}


def sound(kind: str, seed: int, subtype: str | None = None) -> bytes:
    """Half a second of noise at 8 kHz, in stereo where the seed is odd."""
    import soundfile

    file = io.BytesIO()
    wave = 0.1 * np.random.default_rng(seed).standard_normal((4000, 1 + seed % 2))
    soundfile.write(file, wave, 8000, format=kind, subtype=subtype)
    return file.getvalue()


def voices(ending: str, kind: str, subtype: str | None = None) -> dict[str, bytes]:
    """Six speakers with two utterances each."""
    return {f"d/s{s}/{n}.{ending}": sound(kind, 2 * s + n, subtype) for s in range(6) for n in range(2)}


def hear(folder: Path) -> None:
    """Read the one sound there is."""
    from ocd_bench_speech.audio import Reader

    Reader().read(folder / "x")


for _kind, _subtype in (
    ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("FLAC", None), ("OGG", None), ("MP3", None),
    ("AIFF", None), ("AU", None), ("CAF", None), ("W64", None),
):  # fmt: skip
    _name = " ".join(["sound", _kind.lower(), *([_subtype.lower()] if _subtype else [])])
    entry(_name, partial(lambda kind, subtype: {"x": sound(kind, 1, subtype)}, _kind, _subtype), hear, _kind == "FLAC")
entry("speech folder", lambda: voices("wav", "WAV", "PCM_16"), load("speech", "d", **BRIEF), False)
_listed = [f"s{s}/{n}.wav,{'train' if s < 3 else 'test'},p{s}" for s in range(6) for n in range(2)]
entry(
    "speech manifest",
    lambda: {"d/manifest.csv": text(["file,subset,speaker_id", *_listed]), **voices("wav", "WAV", "PCM_16")},
    load("speech", "d", **BRIEF),
)

# -- weights ----------------------------------------------------------------------------------------------------------------


def checkpoint(kind: str) -> bytes:
    """A checkpoint of :func:`model` as a training script saves it."""
    import torch

    state = model().state_dict()
    if kind == "safetensors":
        from safetensors.torch import save

        return save(state)
    file = io.BytesIO()
    wrapped = {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3, "note": "x"}
    torch.save(wrapped, file, _use_new_zipfile_serialization=kind == "zip")
    return file.getvalue()


def model() -> Any:
    """A small network."""
    import torch

    return torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))


def take(folder: Path) -> None:
    """Load the weights into the model."""
    from ocd_bench.checkpoint import load_checkpoint

    load_checkpoint(model(), folder / "w.pt", "hint", setting="t.key")


for _kind in ("zip", "legacy", "safetensors"):
    entry(f"checkpoint {_kind}", partial(lambda kind: {"w.pt": checkpoint(kind)}, _kind), take, _kind == "zip")
