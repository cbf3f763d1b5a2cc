"""Datasets as people have them: any name, letter case, ending and form gives the right pictures, or says why not."""

import bz2
import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ocd_bench import Request, Splits, UsageError
from ocd_bench_images.sources.layout import part_of
from ocd_bench_images.task import Images, ImagesSettings

CLASSES = ("ant", "bee")


def request(folder: Path, dataset: str = "insects", **settings: object) -> Request:
    return Request("images", dataset, ImagesSettings(**settings), data_dirs=(folder,))


def load(folder: Path, dataset: str = "insects", **settings: object) -> Splits:
    return Images().load_data(request(folder, dataset, **settings))


def refusal(folder: Path, dataset: str = "insects", **settings: object) -> str:
    with pytest.raises(UsageError) as caught:
        load(folder, dataset, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(
    folder: Path, parts: dict[str, int], classes: tuple[str, ...] = CLASSES, ending: str = "png", **options: object
) -> None:
    for part, count in parts.items():
        for label, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (6, 6), (50 * label + number, 255 - number, 7))
                kind = {"jfif": "JPEG", "jpe": "JPEG"}.get(ending.lower())
                picture.save(folder / part / name / f"{number:03d}.{ending}", kind, **options)


def pack(folder: Path, archive: Path, separator: str = "/", prefix: str = "") -> None:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            info = zipfile.ZipInfo("x")
            info.filename = prefix + path.relative_to(folder).as_posix().replace("/", separator)
            file.writestr(info, path.read_bytes())


def same(first: Splits, second: Splits) -> bool:
    return all(
        torch.equal(getattr(getattr(first, part), kind), getattr(getattr(second, part), kind))
        for part in ("train", "val", "test")
        for kind in ("inputs", "targets")
    )


@pytest.fixture
def expected(tmp_path: Path) -> Splits:
    write(tmp_path / "plain" / "insects", {"train": 10, "test": 4})
    return load(tmp_path / "plain")


# -- names ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Training", "train"), ("TEST", "test"), ("train-0", "train"), ("training_set", "train"), ("Test_Images", "test"),
        ("Valid", "val"), ("dev", "val"), ("evaluation", "test"), ("trainers", ""), ("devices", ""), ("latest", ""),
    ],
)  # fmt: skip
def test_parts_are_known_by_name_in_any_case(name: str, part: str) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize(("train", "test"), [("Training", "Testing"), ("TRAIN", "TEST"), ("Train_Set", "Evaluation")])
@pytest.mark.parametrize("form", ["folder", "zip", "zip from Windows", "zip with dots", "zip in a folder", "nested"])
def test_capital_folders_are_read_in_every_form(tmp_path: Path, expected: Splits, train: str, test: str, form: str) -> None:
    source = tmp_path / "other"
    write(source / ("insects" if form == "folder" else "x"), {train: 10, test: 4})
    if form != "folder":
        (tmp_path / "packed" / "insects").mkdir(parents=True)
    if form == "zip":
        pack(source / "x", tmp_path / "packed" / "Insects.ZIP")
        (tmp_path / "packed" / "insects").rmdir()
    elif form == "zip from Windows":
        pack(source / "x", tmp_path / "packed" / "insects" / "all.zip", "\\")
    elif form == "zip with dots":
        pack(source / "x", tmp_path / "packed" / "insects" / "all.zip", prefix="./")
    elif form == "zip in a folder":
        pack(source / "x", tmp_path / "packed" / "insects" / "all.zip", prefix="some/folders/")
    elif form == "nested":
        (source / "x").rename(tmp_path / "packed" / "insects" / "Insects")
    assert same(load(source if form == "folder" else tmp_path / "packed"), expected)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write(tmp_path / "insects", {"": 10}, classes=("bus", "car", "train"))
    splits = load(tmp_path)
    assert splits.extras["classes"] == ("bus", "car", "train")
    for part in ("train", "test"):
        write(tmp_path / part, {"": 5}, classes=("bus", "train"))
    (tmp_path / "zips" / "insects").mkdir(parents=True)
    for part in ("train", "test"):
        pack(tmp_path / part, tmp_path / "zips" / "insects" / f"{part}.zip")
    assert load(tmp_path / "zips").extras["classes"] == ("bus", "train")


def test_two_folders_of_one_part_are_refused_and_a_zip_beside_a_folder_is_left_out(tmp_path: Path, expected: Splits) -> None:
    write(tmp_path / "insects", {"train": 10, "test": 4})
    pack(tmp_path / "insects" / "train", tmp_path / "insects" / "train.zip")
    splits = load(tmp_path)
    assert same(splits, expected)
    assert "train.zip left out beside train/" in splits.note
    (tmp_path / "zips" / "insects").mkdir(parents=True)
    for name in ("train", "Training"):
        pack(tmp_path / "insects" / "train", tmp_path / "zips" / "insects" / f"{name}.zip")
    assert "could both be the train part; number them, or keep one" in refusal(tmp_path / "zips")
    write(tmp_path / "insects", {"Training": 10})
    assert "Training and train could both be the train part" in refusal(tmp_path)


# -- endings ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["PNG", "webp", "bmp", "dib", "gif", "tif", "TIFF", "ppm", "png.gz"])
def test_every_ending_of_a_lossless_format_gives_the_same_pictures(tmp_path: Path, expected: Splits, ending: str) -> None:
    if ending == "png.gz":
        write(tmp_path / "insects", {"train": 10, "test": 4})
        for path in (tmp_path / "insects").rglob("*.png"):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    else:
        write(tmp_path / "insects", {"train": 10, "test": 4}, ending=ending, lossless=True)
    assert same(load(tmp_path), expected)


@pytest.mark.parametrize("ending", ["jfif", "JFIF", "jpe", "jpg", "jpeg"])
def test_every_ending_of_jpeg_is_read(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "insects", {"train": 10, "test": 4})
    for path in sorted((tmp_path / "insects").rglob("*.png"))[::2]:
        Image.open(path).save(path.with_suffix(f".{ending}"), "JPEG")
        path.unlink()
    splits = load(tmp_path)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [18, 2, 8]
    assert "left out" not in splits.note


def test_other_files_are_counted_and_named_and_stray_ones_are_not(tmp_path: Path, expected: Splits) -> None:
    write(tmp_path / "insects", {"train": 10, "test": 4})
    for name in ("._000.png", ".DS_Store", "Thumbs.db", "README.txt", "boxes.xml", "labels.csv", "noending"):
        (tmp_path / "insects" / "train" / "ant" / name).write_bytes(b"\0\5\26\7")
    splits = load(tmp_path)
    assert same(splits, expected)
    assert splits.note == "3 files left out: .csv, .xml, no ending"


@pytest.mark.parametrize("ending", ["heic", "AVIF", "jp2"])
def test_pictures_of_a_format_that_is_not_read_are_no_smaller_dataset(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "insects", {"train": 10, "test": 4})
    path = tmp_path / "insects" / "test" / "ant" / "001.png"
    path.rename(path.with_suffix(f".{ending}"))
    message = refusal(tmp_path)
    assert f"1 pictures are in a format that is not read (.{ending.lower()}; the first is ant/001.{ending})" in message


# -- what is in a picture ---------------------------------------------------------------------------------------------------
def test_pictures_of_16_bits_keep_their_depth_beside_others_of_8(tmp_path: Path) -> None:
    write(tmp_path / "insects", {"train": 10, "test": 4})
    deep = np.random.default_rng(0).integers(0, 65536, (6, 6), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "insects" / "test" / "ant" / "001.png")
    test = load(tmp_path).test.inputs
    assert any(np.abs(picture[0].numpy() - deep / 65535).max() < 1e-6 for picture in test)
    assert sum(bool(torch.allclose(picture[2], torch.tensor(7 / 255))) for picture in test) == 7


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    write(tmp_path / "insects", {"train": 10, "test": 4})
    tag = Image.Exif()
    tag[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "insects" / "test" / "ant" / "001.png", exif=tag)
    shown = torch.from_numpy(np.rot90(pixels, -1).copy()).movedim(-1, 0) / 255
    assert any(torch.allclose(picture, shown) for picture in load(tmp_path).test.inputs)


def test_transparent_pictures_need_a_background(tmp_path: Path) -> None:
    write(tmp_path / "insects", {"train": 10, "test": 4})
    path = tmp_path / "insects" / "test" / "ant" / "001.png"
    Image.new("RGBA", (6, 6), (200, 200, 200, 0)).save(path)
    message = refusal(tmp_path)
    assert str(path) in message
    assert "images.background=black or white" in message
    for background, value in (("black", 0.0), ("white", 1.0)):
        test = load(tmp_path, background=background).test.inputs
        assert any(bool((picture == value).all()) for picture in test)
    with pytest.raises(UsageError, match="images.background"):
        load(tmp_path, background="red")
    Image.new("RGBA", (6, 6), (200, 200, 200, 255)).save(path)
    assert any(bool((picture == 200 / 255).all()) for picture in load(tmp_path).test.inputs)


# -- datasets without parts -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_class_folders_alone_are_split_by_a_fixed_draw(tmp_path: Path, form: str) -> None:
    write(tmp_path / "insects", {"": 20})
    if form == "zip":
        pack(tmp_path / "insects", tmp_path / "packed.zip", prefix="insects/")
        (tmp_path / "insects").rename(tmp_path / "elsewhere")
        (tmp_path / "packed.zip").rename(tmp_path / "insects.zip")
    first, second = (
        load(tmp_path),
        Images().load_data(Request("images", "insects", ImagesSettings(), seed=5, data_dirs=(tmp_path,))),
    )
    assert [len(split) for split in (first.train, first.val, first.test)] == [29, 3, 8]
    assert first.test.targets.bincount().tolist() == [4, 4]
    assert torch.equal(first.test.inputs, second.test.inputs)
    assert "no test part: a fixed draw of 8 pictures, one of 5 of each class, is test" in first.note
    seen = {tuple(picture.flatten().tolist()) for split in (first.train, first.val, first.test) for picture in split.inputs}
    assert len(seen) == 40


def test_folders_one_level_deeper_are_no_classes(tmp_path: Path) -> None:
    write(tmp_path / "insects", {"set1": 5, "set2": 5})
    assert "several datasets (set1, set2)" in refusal(tmp_path)


def test_other_folders_beside_the_parts_are_named(tmp_path: Path, expected: Splits) -> None:
    write(tmp_path / "insects", {"train": 10, "test": 4, "extra": 3})
    splits = load(tmp_path)
    assert same(splits, expected)
    assert splits.note == "folder left out: extra"


# -- arrays -----------------------------------------------------------------------------------------------------------------
def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "x_train": random.integers(0, 256, (40, 6, 6), dtype=np.uint8),
        "y_train": np.arange(40) % 2,
        "x_test": random.integers(0, 256, (10, 6, 6), dtype=np.uint8),
        "y_test": np.arange(10) % 2,
    }


@pytest.mark.parametrize("place", ["insects.npz", "insects/pictures.npz", "Insects.NPZ"])
def test_arrays_of_an_npz_file_are_pictures(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    content = arrays()
    with open(tmp_path / place, "wb") as file:
        np.savez(file, **content)
    splits = load(tmp_path)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [36, 4, 10]
    assert np.array_equal(splits.test.inputs[:, 0].numpy(), content["x_test"].astype(np.float32) / 255)
    assert splits.test.targets.tolist() == content["y_test"].tolist()


@pytest.mark.parametrize("form", ["medmnist", "channels last", "channels first", "floats", "16 bits", "one-hot", "texts"])
def test_every_form_of_the_arrays_gives_the_same_pictures(tmp_path: Path, form: str) -> None:
    content = arrays()
    (tmp_path / "plain").mkdir()
    np.savez(tmp_path / "plain" / "insects.npz", **content)
    for part in ("train", "test"):
        x, y = content[f"x_{part}"], content[f"y_{part}"]
        if form == "medmnist":
            content[f"{part}_images"], content[f"{part}_labels"] = content.pop(f"x_{part}"), content.pop(f"y_{part}")[:, None]
        content |= {
            "channels last": {f"x_{part}": x[..., None]}, "channels first": {f"x_{part}": x[:, None]},
            "floats": {f"x_{part}": x.astype(np.float32) / 255}, "16 bits": {f"x_{part}": x.astype(np.uint16) * 257},
            "one-hot": {f"y_{part}": np.eye(2)[y]}, "texts": {f"y_{part}": np.array(["ant", "bee"])[y]},
        }.get(form, {})  # fmt: skip
    np.savez(tmp_path / "insects.npz", **content)
    first, second = load(tmp_path), load(tmp_path / "plain")
    for part in ("train", "val", "test"):
        assert torch.allclose(getattr(first, part).inputs, getattr(second, part).inputs, atol=1e-6)
        assert torch.equal(getattr(first, part).targets, getattr(second, part).targets)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x_train": np.full((40, 6, 6), 200.0)}, "values from 200 to 200: expected floats in [0, 1]"),
        ({"x_train": np.zeros((40, 6, 6), np.int64)}, "int64: expected uint8, uint16, or floats"),
        ({"x_train": np.zeros((40, 3, 6, 3), np.uint8)}, "it could be either of the last two"),
        ({"x_train": np.zeros((40, 36), np.uint8)}, "shape (40, 36)"),
        ({"y_train": np.linspace(0, 1, 40)}, "expected one label for each picture"),
        ({"y_train": np.arange(39) % 2}, "39 labels in y_train for the 40 pictures"),
        ({"y_train": None}, "x_train without its labels"),
        ({"y_test": np.arange(10)}, "class 2 of the test pictures is not among the training classes"),
        ({"x_test": np.zeros((10, 9, 9), np.uint8)}, "of another shape than those of train"),
    ],
)
def test_arrays_of_something_else_are_refused(tmp_path: Path, change: dict[str, np.ndarray | None], said: str) -> None:
    content = {**arrays(), **change}
    np.savez(tmp_path / "insects.npz", **{key: value for key, value in content.items() if value is not None})
    assert said in refusal(tmp_path)


# -- IDX and USPS -----------------------------------------------------------------------------------------------------------
def idx(values: np.ndarray, kind: int = 8) -> bytes:
    head = bytes([0, 0, kind, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return head + values.astype({8: ">u1", 12: ">i4"}[kind]).tobytes()


@pytest.mark.parametrize(
    "names",
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        ("emnist-letters-train-images-idx3-ubyte.gz", "emnist-letters-train-labels-idx1-ubyte.gz",
         "emnist-letters-test-images-idx3-ubyte.gz", "emnist-letters-test-labels-idx1-ubyte.gz"),
        ("Train-Images.IDX3-UBYTE", "Train-Labels.IDX1-UBYTE", "T10K-Images.IDX3-UBYTE", "T10K-Labels.IDX1-UBYTE"),
        ("train_images.idx.bz2", "train_labels.idx.bz2", "test_images.idx.bz2", "test_labels.idx.bz2"),
    ],
)  # fmt: skip
def test_idx_files_are_known_under_any_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    content = arrays()
    (tmp_path / "insects").mkdir()
    squeeze = {".gz": gzip.compress, "bz2": bz2.compress}.get(names[0][-3:], bytes)
    for name, key in zip(names, content, strict=True):
        (tmp_path / "insects" / name).write_bytes(squeeze(idx(content[key])))
    splits = load(tmp_path)
    assert np.array_equal(splits.test.inputs[:, 0].numpy(), content["x_test"].astype(np.float32) / 255)


def test_idx_labels_of_four_bytes_are_read_and_doubled_files_refused(tmp_path: Path) -> None:
    content = arrays()
    names = ("train-images-idx3-ubyte", "train-labels-idx1-int", "t10k-images-idx3-ubyte", "t10k-labels-idx1-int")
    (tmp_path / "insects").mkdir()
    for name, key in zip(names, content, strict=True):
        (tmp_path / "insects" / name).write_bytes(idx(content[key], 12 if "labels" in name else 8))
    assert load(tmp_path).test.targets.tolist() == content["y_test"].tolist()
    (tmp_path / "insects" / "letters-train-labels-idx1-int").write_bytes(b"")
    assert "several files could be train-labels" in refusal(tmp_path)


def test_usps_lies_in_the_frame_of_mnist(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (30, 16, 16), dtype=np.uint8)
    (tmp_path / "usps").mkdir()
    np.savez(
        tmp_path / "usps" / "usps.npz", x_train=pictures, y_train=np.arange(30) % 10, x_test=pictures, y_test=np.arange(30) % 10
    )
    test = load(tmp_path, "usps").test
    assert test.inputs.shape == (30, 1, 28, 28)
    assert (test.inputs[..., 4:24, 4:24] > 0).sum() == (test.inputs > 0).sum()
    # Bilinear, pixel centres aligned by their area: the pixel at (0, 0) is the stored one's corner, clamped at the edge.
    first = pictures[0].astype(np.float64) / 255
    at = np.clip((np.arange(20) + 0.5) * 16 / 20 - 0.5, 0, 15)
    low, part = np.floor(at).astype(int), at % 1
    high = np.minimum(low + 1, 15)
    rows = first[low] * (1 - part)[:, None] + first[high] * part[:, None]
    expected = rows[:, low] * (1 - part) + rows[:, high] * part
    assert np.allclose(test.inputs[0, 0, 4:24, 4:24], expected, atol=1e-6)


def test_mnist_usps_trains_on_one_and_tests_on_the_other(tmp_path: Path) -> None:
    for name, count in (("usps", 16), ("mnist", 28)):
        content = np.zeros((30, count, count), np.uint8)
        (tmp_path / name).mkdir()
        np.savez(
            tmp_path / name / f"{name}.npz",
            x_train=content + count, y_train=np.arange(30) % 10, x_test=content + count, y_test=np.arange(30) % 10,
        )  # fmt: skip
    splits = load(tmp_path, "mnist-usps")
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [27, 3, 30]
    assert (splits.train.inputs == 28 / 255).all()
    assert torch.allclose(splits.test.inputs[..., 14, 14], torch.tensor(16 / 255))


def test_a_member_without_a_name_is_one_line(tmp_path: Path) -> None:
    """zipfile itself raises an IndexError where it asks whether such a member is a folder."""
    write(tmp_path / "x", {"train": 2, "test": 1})
    pack(tmp_path / "x", tmp_path / "insects.zip")
    data = (tmp_path / "insects.zip").read_bytes()
    start = data.index(b"PK\x01\x02")
    length = int.from_bytes(data[start + 28 : start + 30], "little")
    nameless = data[: start + 28] + b"\0\0" + data[start + 30 : start + 46] + data[start + 46 + length :]
    end = nameless.index(b"PK\x05\x06")
    size = int.from_bytes(nameless[end + 12 : end + 16], "little") - length
    (tmp_path / "insects.zip").write_bytes(nameless[: end + 12] + size.to_bytes(4, "little") + nameless[end + 16 :])
    assert "insects.zip: a member without a name, or two of one name" in refusal(tmp_path)
