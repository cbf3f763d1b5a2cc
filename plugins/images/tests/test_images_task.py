"""The task through its public interface: contract, splits, scores, and reference values of its base models."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss

from ocd_bench import Request, Splits, Unavailable, UsageError
from ocd_bench.config import BaseSettings
from ocd_bench.progress import Progress
from ocd_bench.runner.base import train
from ocd_bench.testing import TaskConformance
from ocd_bench_images.task import Images, ImagesSettings

SHARED = Path(os.environ.get("OCD_BENCH_DATA") or Path(__file__).resolve().parents[3].parent / "shared" / "data")


def shared(name: str) -> tuple[Path]:
    if not (SHARED / name).exists():
        pytest.skip(f"real data {name!r}: neither $OCD_BENCH_DATA nor shared/data beside the checkout has it")
    return (SHARED,)


def request(dataset: str = "digits", seed: int = 0, preset: str = "default", dirs: tuple = (), **settings: object) -> Request:
    return Request("images", dataset, ImagesSettings(**settings), preset, seed, data_dirs=dirs)


def test_the_entry_module_loads_nothing_heavy():
    code = (
        "import sys, ocd_bench_images; task = ocd_bench_images.Images(); task.datasets(); "
        "print(sorted({'torch', 'numpy', 'scipy', 'sklearn', 'PIL', 'transformers'} & set(sys.modules)))"
    )
    path = os.pathsep.join(sys.path)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert run.stdout.strip() == "[]", run.stderr


class TestImagesConformance(TaskConformance):
    """The contract of every task, on the embedded digits."""

    task = Images()


# -- splits -----------------------------------------------------------------------------------------------------------------
def rows(splits: Splits, part: str) -> set[bytes]:
    return {row.numpy().tobytes() for row in getattr(splits, part).inputs}


def test_digits_are_those_of_scikit_learn_without_its_import():
    code = "import sys; from ocd_bench_images.sources.digits import open_digits; open_digits(); print('sklearn' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    data, test = load_digits(), Images().load_data(request()).test
    assert np.array_equal(test.inputs[:, 0].numpy() * 16, data.images[4::5])
    assert np.array_equal(test.targets.numpy(), data.target[4::5])


def test_digits_of_a_scikit_learn_that_keeps_them_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    expected = Images().load_data(request()).test.inputs
    monkeypatch.setattr("ocd_bench_images.sources.digits.find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "x")))
    assert torch.equal(Images().load_data(request()).test.inputs, expected)


def test_digits_without_scikit_learn_are_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ocd_bench_images.sources.digits.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pip install scikit-learn"):
        Images().load_data(request())


def test_digits_split_and_its_seeds():
    first, again, other = (Images().load_data(request(seed=seed)) for seed in (0, 0, 1))
    assert [len(part) for part in (first.train, first.val, first.test)] == [1295, 143, 359]
    assert torch.equal(first.val.inputs, again.val.inputs)
    assert not torch.equal(first.val.inputs, other.val.inputs)
    assert torch.equal(first.test.inputs, other.test.inputs)
    assert not rows(first, "train") & rows(first, "val")
    assert rows(first, "train") | rows(first, "val") == rows(other, "train") | rows(other, "val")
    assert first.train.inputs.min() == 0
    assert first.train.inputs.max() == 1


def test_subsets_are_drawn_by_seed_for_training_and_once_for_test():
    whole = Images().load_data(request())
    parts = [Images().load_data(request(seed=seed, train_samples=200, test_samples=50)) for seed in (0, 1)]
    for part in parts:
        assert [len(split) for split in (part.train, part.val, part.test)] == [200, 50, 50]
        assert part.note == "200 of 1,295 training samples, 50 of 359 test samples"
        assert rows(part, "test") < rows(whole, "test")
    assert torch.equal(parts[0].test.inputs, parts[1].test.inputs)
    assert not torch.equal(parts[0].train.inputs, parts[1].train.inputs)
    assert rows(parts[0], "train") < rows(whole, "train")
    assert rows(parts[0], "val") < rows(whole, "val")
    assert Images().load_data(request(train_samples=99_999, test_samples=99_999)).note == ""


@pytest.mark.parametrize("name", ["train_samples", "test_samples", "image_size"])
def test_settings_below_zero_are_refused(name):
    with pytest.raises(UsageError, match=f"images.{name}=-1: expected 0 "):
        Images().load_data(request(**{name: -1}))


def test_image_size_resizes_and_keeps_the_mean():
    plain, resized = (Images().load_data(request(image_size=side)).test.inputs for side in (0, 16))
    assert resized.shape == (359, 1, 16, 16)
    assert resized.mean().item() == pytest.approx(plain.mean().item(), rel=0.02)


# -- scores -----------------------------------------------------------------------------------------------------------------
def test_scores_agree_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn(50, 4, generator=generator), torch.randint(0, 4, (50,), generator=generator)
    scores = Images().metrics(output, target)
    probabilities = np.exp(output.double().log_softmax(1).numpy())
    assert scores["accuracy"].mean().item() == pytest.approx(accuracy_score(target, probabilities.argmax(1)))
    assert scores["cross_entropy"].mean().item() == pytest.approx(log_loss(target, probabilities, labels=range(4)), rel=1e-5)
    expected = ((probabilities - np.eye(4)[target]) ** 2).sum(1)
    np.testing.assert_allclose(scores["brier"], expected, rtol=1e-4)
    assert torch.equal(Images().loss(output, target), scores["cross_entropy"])


def test_features_of_the_output_ignore_a_constant():
    output = torch.randn(3, 10)
    torch.testing.assert_close(Images().encode_output(output + 5), Images().encode_output(output))


# -- base models ------------------------------------------------------------------------------------------------------------
def accuracy_and_loss(model: torch.nn.Module, splits: Splits) -> tuple[float, float]:
    with torch.no_grad():
        output = torch.cat([model(part) for part in splits.test.inputs.split(1000)])
    scores = Images().metrics(output, splits.test.targets)
    return scores["accuracy"].mean().item(), scores["cross_entropy"].mean().item()


def test_a_short_training_on_digits_learns_them():
    task, asked = Images(), request(preset="quick")
    splits = task.load_data(asked)
    torch.manual_seed(0)
    how = BaseSettings(lr=3e-3, batch_size=64, epochs=10, augment=False)
    model = task.base_model(splits, asked)
    model = train(model, task, splits, asked, how, torch.device("cpu"), Progress()).eval()
    assert accuracy_and_loss(model, splits)[0] > 0.94


def test_the_reference_checkpoint_has_the_scores_of_its_readme():
    """98.75 % and cross entropy 0.0406 on the 10,000 test digits of MNIST."""
    shared("reference_checkpoints")
    asked = request("mnist", dirs=shared("mnist"), checkpoint="reference_checkpoints/checkpoint_lenet5.pth")
    splits = Images().load_data(asked)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [55_000, 5_000, 10_000]
    assert re.fullmatch(r"base weights from checkpoint_lenet5\.pth \(sha256 [0-9a-f]{16}\)", splits.note)
    model = Images().train_base(Images().base_model(splits, asked), splits, asked, lambda done, total: None)
    accuracy, loss = accuracy_and_loss(model.eval(), splits)
    assert accuracy == pytest.approx(0.9875, abs=1e-6)
    assert loss == pytest.approx(0.0406, abs=5e-5)
    assert Images().select_layer(model, asked) == "fc1"


def test_mnist_holds_the_published_class_counts():
    splits = Images().load_data(request("mnist", dirs=shared("mnist")))
    train_counts = torch.cat([splits.train.targets, splits.val.targets]).bincount().tolist()
    assert train_counts == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert splits.test.targets.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_cifar10_of_class_folder_zips():
    asked = request("cifar10", dirs=shared("cifar10"), train_samples=200, test_samples=100)
    splits = Images().load_data(asked)
    assert splits.train.inputs.shape == (200, 3, 32, 32)
    assert splits.note == "200 of 45,000 training samples, 100 of 10,000 test samples"
    assert splits.extras["classes"][:2] == ("airplane", "automobile")
    assert len(splits.test.targets[:50].unique()) > 5


@pytest.mark.parametrize("channels", [1, 3])
def test_the_signature_changes_with_blur_noise_and_light_more_than_with_rotation(channels):
    from ocd_bench_images.corruptions import corrupt
    from ocd_bench_images.signature import signature

    chance = torch.Generator().manual_seed(0)
    pictures = torch.zeros(6, channels, 28, 28)
    for number in range(6):
        pictures[number, :, 6 + number : 10 + number, 5:22] = 0.9
    plain = signature(pictures)
    assert plain.shape == (6, 15)
    assert plain.isfinite().all()
    turned = signature(pictures.transpose(2, 3))
    torch.testing.assert_close(turned, plain, rtol=1e-3, atol=1e-2)
    for kind in ("gaussian_blur", "gaussian_noise", "contrast", "brightness"):
        other = signature(corrupt(pictures, kind, 3, chance))
        assert float((other - plain).abs().max(1).values.min()) > 0.1, kind
