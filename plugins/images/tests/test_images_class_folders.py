"""Class folders and zip files of pictures, Tiny ImageNet's layout, and damaged or hostile pictures."""

import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from ocd_bench import Request, Splits, UsageError
from ocd_bench_images.sources.pictures import decode
from ocd_bench_images.task import Images, ImagesSettings

CLASSES = ("ant", "bee")


def request(folder: Path, seed: int = 0, **settings: object) -> Request:
    return Request("images", "insects", ImagesSettings(**settings), seed=seed, data_dirs=(folder,))


def load(folder: Path, **settings: object) -> Splits:
    return Images().load_data(request(folder, **settings))


def refusal(folder: Path, **settings: object) -> str:
    with pytest.raises(UsageError) as caught:
        load(folder, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def picture(value: int, mode: str = "RGB", size: tuple[int, int] = (6, 6)) -> Image.Image:
    return Image.new(mode, size, value if mode == "L" else (value, 255 - value, 7))


def write(folder: Path, parts: dict[str, int], mode: str = "RGB", suffix: str = "png") -> None:
    """``parts``: pictures per class. The red value encodes class and number."""
    for part, count in parts.items():
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                picture(100 * label + number, mode).save(folder / part / name / f"{number:03d}.{suffix}", lossless=True)


def pack(folder: Path, archive: Path, prefix: str = "") -> None:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.*")):
            file.write(path, prefix + path.relative_to(folder).as_posix())


def red(samples) -> list[int]:
    return (samples.inputs[:, 0, 0, 0] * 255).round().int().tolist()


@pytest.fixture
def expected(tmp_path) -> tuple[Path, Splits]:
    """A folder ``plain/insects`` and its splits. All other layouts of the same pictures must give the same splits."""
    write(tmp_path / "plain" / "insects", {"train": 10, "test": 4})
    return tmp_path, load(tmp_path / "plain")


def same(first: Splits, second: Splits) -> bool:
    return all(
        torch.equal(getattr(getattr(first, part), kind), getattr(getattr(second, part), kind))
        for part in ("train", "val", "test")
        for kind in ("inputs", "targets")
    )


def test_folders_of_classes(expected):
    _, splits = expected
    assert splits.extras["classes"] == CLASSES
    assert [len(splits.train), len(splits.val), len(splits.test)] == [18, 2, 8]
    assert splits.train.inputs.shape[1:] == (3, 6, 6)
    for part in (splits.train, splits.val, splits.test):
        assert [value // 100 for value in red(part)] == part.targets.tolist()
    assert sorted(red(splits.train) + red(splits.val)) == [*range(10), *range(100, 110)]


def test_test_pictures_are_shuffled_across_classes_the_same_way_for_every_seed(expected):
    folder, splits = expected
    other = Images().load_data(request(folder / "plain", seed=5))
    assert red(splits.test) == red(other.test)
    assert red(splits.test) != sorted(red(splits.test))
    assert sorted(red(splits.test)) == [0, 1, 2, 3, 100, 101, 102, 103]
    assert red(splits.val) != red(other.val)


@pytest.mark.parametrize("prefix", ["", "insects/"])
def test_one_zip_of_both_parts(expected, prefix):
    folder, splits = expected
    pack(folder / "plain" / "insects", folder / "insects.zip", prefix)
    assert same(load(folder), splits)


def test_zips_of_parts_are_joined_and_sorted(expected):
    folder, splits = expected
    target = folder / "zips" / "insects"
    target.mkdir(parents=True)
    names = sorted((folder / "plain" / "insects" / "train").rglob("*.png"))
    for index in range(2):
        with zipfile.ZipFile(target / f"train-{index}.zip", "w") as file:
            for path in names[index::2]:
                file.write(path, f"{path.parent.name}/{path.name}")
            file.writestr("__MACOSX/ant/._000.png", b"junk")
    pack(folder / "plain" / "insects" / "test", target / "test.zip", "test/")
    assert same(load(folder / "zips"), splits)


def test_a_validation_part_is_used_as_such_or_as_test(tmp_path):
    write(tmp_path / "three" / "insects", {"train": 5, "val": 2, "test": 3})
    splits = load(tmp_path / "three")
    assert [len(splits.train), len(splits.val), len(splits.test)] == [10, 4, 6]
    assert splits.note == ""
    write(tmp_path / "two" / "insects", {"train": 10, "valid": 3})
    splits = load(tmp_path / "two")
    assert [len(splits.train), len(splits.val), len(splits.test)] == [18, 2, 6]
    assert splits.note == "its validation part as test"


def test_tiny_imagenet_layout(tmp_path):
    top = tmp_path / "tiny-imagenet-200"
    for label, name in enumerate(("n01", "n02")):
        (top / "train" / name / "images").mkdir(parents=True)
        (top / "train" / name / f"{name}_boxes.txt").write_text("0\t0\n")
        for number in range(10):
            picture(100 * label + number).save(top / "train" / name / "images" / f"{name}_{number}.JPEG", quality=100)
    for part in ("val", "test"):
        (top / part / "images").mkdir(parents=True)
        for number in range(4):
            picture(100 * (number % 2)).save(top / part / "images" / f"{part}_{number}.JPEG", quality=100)
    lines = [f"val_{number}.JPEG\tn0{number % 2 + 1}\t0\t0\t9\t9\n" for number in range(4)]
    (top / "val" / "val_annotations.txt").write_text("".join(lines))
    tiny = Request("images", "tiny-imagenet", ImagesSettings(), data_dirs=(tmp_path,))
    splits = Images().load_data(tiny)
    assert splits.note == "its validation part as test"
    assert [len(splits.train), len(splits.val), len(splits.test)] == [18, 2, 4]
    assert [round(value / 100) for value in red(splits.test)] == splits.test.targets.tolist()
    (tmp_path / "zipped" / "tiny-imagenet").mkdir(parents=True)
    pack(top, tmp_path / "zipped" / "tiny-imagenet" / "tiny-imagenet-200.zip", "tiny-imagenet-200/")
    zipped = Request("images", "tiny-imagenet", ImagesSettings(), data_dirs=(tmp_path / "zipped",))
    assert same(Images().load_data(zipped), splits)
    (top / "val" / "val_annotations.txt").write_text(lines[0])
    with pytest.raises(UsageError, match="val_1.JPEG: the picture has no line in val_annotations.txt"):
        Images().load_data(tiny)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_grey_throughout_is_one_channel(tmp_path, mode, channels):
    write(tmp_path / "insects", {"train": 5, "test": 2}, mode)
    assert load(tmp_path).train.inputs.shape[1:] == (channels, 6, 6)


def test_one_coloured_picture_makes_all_colour(tmp_path):
    write(tmp_path / "insects", {"train": 5, "test": 2}, "L")
    picture(9).save(tmp_path / "insects" / "test" / "bee" / "999.png")
    assert load(tmp_path).train.inputs.shape[1] == 3


@pytest.mark.parametrize("suffix", ["webp", "bmp", "ppm", "tiff"])
def test_lossless_formats_give_the_same_pictures(tmp_path, expected, suffix):
    write(tmp_path / suffix / "insects", {"train": 10, "test": 4}, suffix=suffix)
    assert same(load(tmp_path / suffix), expected[1])


def test_differing_sizes_are_refused_and_resized_on_request(tmp_path):
    write(tmp_path / "insects", {"train": 5, "test": 2})
    path = tmp_path / "insects" / "train" / "bee" / "002.png"
    picture(1, size=(8, 5)).save(path)
    message = refusal(tmp_path)
    assert str(path) in message
    assert "8 x 5 pixels" in message
    assert "images.image_size=N" in message
    assert load(tmp_path, image_size=10).train.inputs.shape[1:] == (3, 10, 10)


def test_parts_of_differing_sizes_are_refused(tmp_path):
    write(tmp_path / "insects", {"train": 5, "test": 2})
    for path in (tmp_path / "insects" / "test").rglob("*.png"):
        picture(3, size=(9, 9)).save(path)
    assert "train 6 x 6, val 6 x 6, test 9 x 9" in refusal(tmp_path)


def test_incomplete_layouts_are_refused(tmp_path):
    write(tmp_path / "insects", {"train": 5})
    assert "neither test nor val" in refusal(tmp_path)
    (tmp_path / "insects" / "test").mkdir()
    assert "no pictures in test" in refusal(tmp_path)
    (tmp_path / "insects" / "test" / "wasp").mkdir()
    picture(1).save(tmp_path / "insects" / "test" / "wasp" / "0.png")
    assert "class wasp of the test pictures" in refusal(tmp_path)
    for path in (tmp_path / "insects" / "train" / "bee").iterdir():
        path.unlink()
    assert "one class (ant)" in refusal(tmp_path)


def test_invalid_or_damaged_zip_files_are_refused(tmp_path):
    write(tmp_path / "plain", {"train": 5, "test": 2})
    target = tmp_path / "insects"
    target.mkdir()
    for part in ("train", "test"):
        pack(tmp_path / "plain" / part, target / f"{part}.zip")
    good = (target / "train.zip").read_bytes()
    (target / "train.zip").write_bytes(b"<html>no such file</html>")
    assert "train.zip: cannot be read: damaged or of another format (BadZipFile: File is not a zip file)" in refusal(tmp_path)
    (target / "train.zip").write_bytes(good[:60] + b"\xff" * 10 + good[70:])
    message = refusal(tmp_path)
    assert "Bad CRC-32" in message
    assert "train.zip: ant/000.png" in message


def test_links_in_a_circle_are_refused_and_others_followed(tmp_path):
    write(tmp_path / "store", {"train": 3, "test": 2})
    (tmp_path / "insects").mkdir()
    for part in ("train", "test"):
        (tmp_path / "insects" / part).symlink_to(tmp_path / "store" / part)
    assert len(load(tmp_path).test) == 4
    (tmp_path / "store" / "train" / "ant" / "again").symlink_to(tmp_path / "insects" / "train")
    assert "a link that leads in a circle" in refusal(tmp_path)


# -- single pictures --------------------------------------------------------------------------------------------------------
def png(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [5000, 11_000, 60_000])
def test_a_picture_too_large_is_refused_from_its_header(side):
    with pytest.raises(UsageError, match=r"x\.png: the picture has more than 16,777,216 pixels"):
        decode(png(side, side), "x.png", 0)


@pytest.mark.parametrize("data", [b"", b"no picture", png(6, 6)[:40], png(6, 6, b"\0" * 3), b"GIF89a\xff\xff"])
def test_an_unreadable_picture_is_refused(data):
    with pytest.raises(UsageError, match=r"x\.png: not a readable picture") as caught:
        decode(data, "x.png", 0)
    assert "BytesIO" not in str(caught.value)


def test_an_unreadable_picture_in_a_folder_is_named(tmp_path):
    write(tmp_path / "insects", {"train": 5, "test": 2})
    path = tmp_path / "insects" / "test" / "ant" / "001.png"
    path.write_bytes(path.read_bytes()[:30])
    assert str(path) in refusal(tmp_path)
