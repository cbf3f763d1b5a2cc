"""Published test sets under shift, read from files as their authors lay them out; the tests write small ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ocd_bench import DataMissing, Request, UsageError
from ocd_bench_images.corruptions import MAIN
from ocd_bench_images.task import Images, ImagesSettings

CLASSES = [f"c{number}" for number in range(10)]
PER_CLASS = 3
SIZE = PER_CLASS * len(CLASSES)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.RandomState(0)
    for part in ("train", "test"):
        for name in CLASSES:
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            for number in range(PER_CLASS):
                Image.fromarray(random.randint(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{part}_{name}_{number}.png")
    return tmp_path


def arrays(folder: Path, kinds=MAIN, labels: np.ndarray | None = None) -> np.ndarray:
    """CIFAR-10-C of our small set; pixel (0, 0) of every picture holds its row and its severity."""
    (folder / "CIFAR-10-C").mkdir(exist_ok=True)
    pictures = np.zeros((5 * SIZE, 8, 8, 3), np.uint8)
    pictures[:, 0, 0, 0] = np.tile(np.arange(SIZE), 5)
    pictures[:, 0, 0, 1] = np.repeat(np.arange(1, 6), SIZE)
    for kind in kinds:
        np.save(folder / "CIFAR-10-C" / f"{kind}.npy", pictures)
    wanted = np.tile(np.repeat(np.arange(10), PER_CLASS), 5) if labels is None else labels
    np.save(folder / "CIFAR-10-C" / "labels.npy", wanted.astype(np.uint8))
    return pictures


def request(folder: Path, dataset: str = "cifar10", **settings: object) -> Request:
    return Request("images", dataset, ImagesSettings(model="resnet18-slim", **settings), data_dirs=(folder,))


def recorded(asked: Request, kind: str, severity: int):
    task = Images()
    splits = task.load_data(asked)
    return splits, task.recorded_corruption(splits, kind, severity, asked)


def refusal(asked: Request, kind: str = "fog", severity: int = 3) -> str:
    with pytest.raises(UsageError) as caught:
        recorded(asked, kind, severity)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- CIFAR-10-C -------------------------------------------------------------------------------------------------------------
def test_a_severity_of_an_array_is_the_test_set_row_by_row(data):
    arrays(data)
    splits, test = recorded(request(data, corruption_files="CIFAR-10-C"), "fog", 4)
    rows = torch.from_numpy(splits.extras["test_rows"])
    assert torch.equal((test.inputs[:, 0, 0, 0] * 255).round().long(), rows)
    assert ((test.inputs[:, 1, 0, 0] * 255).round() == 4).all()
    assert torch.equal(test.targets, splits.test.targets)
    assert test.inputs.shape == splits.test.inputs.shape


def test_a_subset_takes_its_own_rows(data):
    arrays(data)
    splits, test = recorded(request(data, corruption_files="CIFAR-10-C", test_samples=7), "snow", 1)
    assert (test.inputs[:, 0, 0, 0] * 255).round().long().tolist() == splits.extras["test_rows"].tolist()
    assert len(test) == 7


def test_without_the_setting_nothing_is_read(data):
    arrays(data)
    assert recorded(request(data), "fog", 3)[1] is None


def test_files_of_another_order_or_size_or_half_a_file_are_refused(data):
    asked = request(data, corruption_files="CIFAR-10-C")
    arrays(data, labels=np.tile(np.repeat(np.arange(10)[::-1], PER_CLASS), 5))
    assert "the labels are in another order than the test set's (30 of 30 differ)" in refusal(asked)
    pictures = arrays(data)
    np.save(data / "CIFAR-10-C" / "fog.npy", pictures[:-1])
    assert "149 pictures and 150 labels, expected five severities of the 30 test pictures" in refusal(asked)
    np.save(data / "CIFAR-10-C" / "fog.npy", pictures.astype(np.float32))
    assert "expected integers of 4 dimensions" in refusal(asked)
    np.save(data / "CIFAR-10-C" / "fog.npy", pictures)
    path = data / "CIFAR-10-C" / "fog.npy"
    path.write_bytes(path.read_bytes()[:5000])
    assert "not a whole .npy file" in refusal(asked)
    path.write_bytes(b"no array")
    assert "not a whole .npy file" in refusal(asked)
    (data / "CIFAR-10-C" / "labels.npy").unlink()
    np.save(path, pictures)
    assert "labels.npy: no such file" in refusal(asked)


def test_kinds_without_files_and_folders_that_do_not_exist_are_refused(data):
    arrays(data)
    asked = request(data, corruption_files="CIFAR-10-C")
    assert "'own_rotate' is not a published one" in refusal(asked, "own_rotate")
    assert "neither saturate.npy with labels.npy nor saturate/3/CLASS/NAME" in refusal(asked, "saturate")
    assert "no such folder; looked for" in refusal(request(data, corruption_files="CIFAR-11-C"))


# -- ImageNet-C -------------------------------------------------------------------------------------------------------------
def folders(folder: Path, kind: str = "fog", severity: int = 3, top: str = "Tiny-ImageNet-C", size: int = 8) -> Path:
    place = folder / top / kind / str(severity)
    for label, name in enumerate(CLASSES):
        (place / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            Image.new("RGB", (size, size), (20 * label, 50 * number, 9)).save(
                place / name / f"test_{name}_{number}.JPEG", quality=95
            )
    return place


@pytest.mark.parametrize("top", ["Tiny-ImageNet-C", "ImageNet-C/weather"])
def test_class_folders_are_matched_by_class_and_name(data, top):
    folders(data, top=top)
    splits, test = recorded(request(data, corruption_files=top.partition("/")[0]), "fog", 3)
    label = (test.inputs[:, 0].mean((1, 2)) * 255 / 20).round().long()
    assert torch.equal(label, splits.test.targets)
    number = (test.inputs[:, 1].mean((1, 2)) * 255 / 50).round().long().tolist()
    assert number == [int(name[-1]) for name in splits.extras["test_names"]]


def test_a_missing_picture_or_another_size_is_refused(data):
    place = folders(data)
    asked = request(data, corruption_files="Tiny-ImageNet-C")
    (place / "c3" / "test_c3_1.JPEG").unlink()
    assert "no picture c3/test_c3_1 (1 of 30 test pictures are missing)" in refusal(asked)
    Image.new("RGB", (9, 9)).save(place / "c3" / "test_c3_1.JPEG")
    assert "differing sizes" in refusal(asked)
    folders(data, severity=5, size=12)
    assert "3 x 12 x 12, the test set's 3 x 8 x 8" in refusal(asked, severity=5)


# -- CIFAR-10.1 -------------------------------------------------------------------------------------------------------------
def new_test(folder: Path, labels: list[int], side: int = 8) -> None:
    folder.mkdir(exist_ok=True)
    np.save(
        folder / "cifar10.1_v6_data.npy",
        np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, side, side, 3), np.uint8),
    )
    np.save(folder / "cifar10.1_v6_labels.npy", np.array(labels, np.int64))


@pytest.mark.parametrize("place", ["cifar10.1", "CIFAR-10.1"])
def test_the_new_test_set_goes_with_the_training_part_of_cifar10(data, place):
    new_test(data / place, [3, 1, 4])
    splits = Images().load_data(request(data, "cifar10.1"))
    assert len(splits.train) + len(splits.val) == SIZE
    assert splits.test.targets.tolist() == [3, 1, 4]
    assert (splits.test.inputs[:, 0, 0, 0] * 255).round().tolist() == [0, 1, 2]
    assert "CIFAR-10.1 v6" in splits.note


def test_a_damaged_new_test_set_is_refused(data):
    with pytest.raises(DataMissing, match="cifar10.1_v6_data.npy"):
        Images().load_data(request(data, "cifar10.1"))
    new_test(data / "cifar10.1", [3, 11])
    with pytest.raises(UsageError, match="label 11 is not a class"):
        Images().load_data(request(data, "cifar10.1"))
    new_test(data / "cifar10.1", [3, 1])
    np.save(data / "cifar10.1" / "cifar10.1_v6_labels.npy", np.array([1]))
    with pytest.raises(UsageError, match="1 labels for 2 pictures"):
        Images().load_data(request(data, "cifar10.1"))
