"""IDX and CIFAR binary files: accepted files, and one-line errors for others."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ocd_bench import DataMissing, Request, UsageError
from ocd_bench_images.sources import cifar
from ocd_bench_images.sources.idx import read_idx
from ocd_bench_images.task import Images, ImagesSettings

RANDOM = np.random.default_rng(0)


def request(folder: Path, dataset: str = "mnist", seed: int = 0, **settings: object) -> Request:
    return Request("images", dataset, ImagesSettings(**settings), seed=seed, data_dirs=(folder,))


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(folder: Path, gz: bool = True, train: int = 40, test: int = 10, side: int = 6) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train-images-idx3-ubyte": RANDOM.integers(0, 256, (train, side, side), np.uint8),
        "train-labels-idx1-ubyte": np.arange(train, dtype=np.uint8) % 4,
        "t10k-images-idx3-ubyte": RANDOM.integers(0, 256, (test, side, side), np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(test, dtype=np.uint8) % 4,
    }
    for name, array in arrays.items():
        if gz:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return arrays


def refusal(call) -> str:
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("layout", ["mnist", "mnist/raw", "MNIST/raw", "mnist/MNIST/raw"])
@pytest.mark.parametrize("gz", [True, False])
def test_idx_is_found_in_the_usual_places(tmp_path, layout, gz):
    arrays = write_idx(tmp_path / layout, gz)
    splits = Images().load_data(request(tmp_path))
    assert splits.test.inputs.dtype == torch.float32
    np.testing.assert_allclose(splits.test.inputs[:, 0].numpy() * 255, arrays["t10k-images-idx3-ubyte"], atol=1e-4)
    np.testing.assert_array_equal(splits.test.targets, arrays["t10k-labels-idx1-ubyte"])
    assert [len(splits.train), len(splits.val), len(splits.test)] == [36, 4, 10]
    assert splits.extras["classes"] == ("0", "1", "2", "3")
    assert splits.note == ""


def test_any_name_with_idx_files_is_a_dataset(tmp_path):
    write_idx(tmp_path / "kuzushiji")
    assert len(Images().load_data(request(tmp_path, "kuzushiji")).test) == 10


def test_labels_that_skip_numbers_are_renumbered(tmp_path):
    arrays = write_idx(tmp_path / "letters")
    for part in ("train", "t10k"):
        labels = arrays[f"{part}-labels-idx1-ubyte"] * 5 + 1
        (tmp_path / "letters" / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    splits = Images().load_data(request(tmp_path, "letters"))
    assert splits.extras["classes"] == ("1", "6", "11", "16")
    np.testing.assert_array_equal(splits.test.targets, arrays["t10k-labels-idx1-ubyte"])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: raw[:-5], r"declares 1,440 bytes of data, the file has only 1,435"),
        (lambda raw: raw + b"x", r"declares 1,440 bytes of data, the file has more"),
        (lambda raw: b"\0\0\x0d\x03" + raw[4:], r"magic number 3331, expected 2051"),
        (lambda raw: raw[:7], r"7 bytes are too few for an IDX header"),
        (lambda raw: raw[:4] + b"\0\0\0\0" + raw[8:], r"0 x 6 x 6: nothing in it"),
        (lambda raw: raw[:4] + b"\xff\xff\xff\xff" * 3, r"GiB; take fewer"),
    ],
)
@pytest.mark.parametrize("gz", [True, False])
def test_a_damaged_idx_file_is_refused(tmp_path, damage, said, gz):
    write_idx(tmp_path / "mnist", gz)
    path = tmp_path / "mnist" / f"train-images-idx3-ubyte{'.gz' if gz else ''}"
    raw = gzip.decompress(path.read_bytes()) if gz else path.read_bytes()
    path.write_bytes(gzip.compress(damage(raw)) if gz else damage(raw))
    message = refusal(lambda: Images().load_data(request(tmp_path)))
    assert said in message
    assert str(path) in message


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-20], lambda raw: b"<html>" + raw, lambda raw: raw[:60] + b"\xff" * 40 + raw[100:]]
)
def test_broken_gzip_is_refused(tmp_path, damage):
    write_idx(tmp_path / "mnist")
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(lambda: read_idx(path, 3))
    assert str(path) in message
    assert any(said in message for said in ("breaks off", "magic number", "CRC check failed"))
    assert str(path) in message


def test_idx_files_that_do_not_fit_together_are_refused(tmp_path):
    arrays = write_idx(tmp_path / "mnist")
    labels = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx_bytes(arrays["train-labels-idx1-ubyte"][:-1])))
    assert "39 labels for the 40 pictures" in refusal(lambda: Images().load_data(request(tmp_path)))
    labels.write_bytes(gzip.compress(idx_bytes(np.zeros(40, np.uint8))))
    assert "one class (0)" in refusal(lambda: Images().load_data(request(tmp_path)))
    labels.unlink()
    assert "train-labels-idx1-ubyte.gz is missing" in refusal(lambda: Images().load_data(request(tmp_path)))


def test_a_test_label_that_training_lacks_is_refused(tmp_path):
    arrays = write_idx(tmp_path / "mnist")
    path = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(arrays["t10k-labels-idx1-ubyte"] + 6)))
    assert "class 6 of the test pictures" in refusal(lambda: Images().load_data(request(tmp_path)))


def test_missing_and_unknown_data_say_where_and_what(tmp_path):
    with pytest.raises(DataMissing, match="looked in .* for a folder 'mnist' or 'MNIST'"):
        Images().load_data(request(tmp_path))
    (tmp_path / "mnist").mkdir()
    assert "no pictures in a known layout" in refusal(lambda: Images().load_data(request(tmp_path)))
    (tmp_path / "cifar10" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "cifar10" / "cifar-10-batches-py" / "batches.meta").touch()
    assert "get the binary version" in refusal(lambda: Images().load_data(request(tmp_path, "cifar10")))


# -- CIFAR-10 -------------------------------------------------------------------------------------------------------------
def write_cifar(folder: Path, records: int = 6) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name in (*cifar.TRAIN, cifar.TEST):
        rows = RANDOM.integers(0, 256, (records, cifar.RECORD)).astype(np.uint8)
        rows[:, 0] = np.arange(records) % 10
        (folder / name).write_bytes(rows.tobytes())
        arrays[name] = rows
    return arrays


@pytest.mark.parametrize("layout", ["cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin"])
def test_cifar_binary_version(tmp_path, layout):
    arrays = write_cifar(tmp_path / layout)
    splits = Images().load_data(request(tmp_path, "cifar10"))
    row = arrays[cifar.TEST][3]
    assert splits.test.inputs.shape == (6, 3, 32, 32)
    # Red plane first, rows one after the other: green of row 2, column 5.
    assert splits.test.inputs[3, 1, 2, 5].item() == pytest.approx(row[1 + 1024 + 2 * 32 + 5] / 255)
    assert splits.test.targets.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(splits.train) + len(splits.val) == 30
    assert splits.extras["classes"][9] == "truck"


def test_cifar_is_read_from_the_official_archive(tmp_path):
    write_cifar(tmp_path / "unpacked")
    (tmp_path / "cifar10").mkdir()
    archive = tmp_path / "cifar10" / cifar.ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "unpacked", "cifar-10-batches-bin")
    packed = Images().load_data(request(tmp_path, "cifar10"))
    plain = cifar.open_cifar(tmp_path / "unpacked")
    assert plain is not None
    np.testing.assert_array_equal(packed.test.targets, plain.test.labels)
    assert len(packed.train) + len(packed.val) == len(plain.train)
    archive.write_bytes(archive.read_bytes()[:-400])
    assert "breaks off" in refusal(lambda: Images().load_data(request(tmp_path, "cifar10")))


def test_a_damaged_cifar_batch_is_refused(tmp_path):
    write_cifar(tmp_path / "cifar10")
    path = tmp_path / "cifar10" / "data_batch_3.bin"
    good = path.read_bytes()
    for data, said in (
        (good[:-1], "18,437 bytes are not"),
        (b"", "0 bytes are not"),
        (b"\x0a" + good[1:], "label 10 is not a class"),
    ):
        path.write_bytes(data)
        message = refusal(lambda: Images().load_data(request(tmp_path, "cifar10")))
        assert said in message
        assert "data_batch_3.bin" in message
    path.unlink()
    assert "data_batch_3.bin is missing" in refusal(lambda: Images().load_data(request(tmp_path, "cifar10")))


def test_an_empty_archive_names_what_is_missing(tmp_path):
    (tmp_path / "cifar10").mkdir()
    with tarfile.open(tmp_path / "cifar10" / cifar.ARCHIVE, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("other.txt"), io.BytesIO())
    assert "data_batch_1.bin is missing" in refusal(lambda: Images().load_data(request(tmp_path, "cifar10")))
