"""Weights found by name: what the table says of them, which pictures are left to judge by, and files that do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ocd_bench import Request, Unavailable, UsageError
from ocd_bench_images.models import check_size, pretrained
from ocd_bench_images.models.catalogue import cached_weights
from ocd_bench_images.models.cifar_resnet import CifarResNet
from ocd_bench_images.models.pretrained import Pretrained
from ocd_bench_images.models.weights import find_weights
from ocd_bench_images.task import Images, ImagesSettings

CLASSES = [f"c{number}" for number in range(10)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A set named cifar10 of ten classes, 3 training and 5 test pictures each, and a ResNet-20 for it."""
    random = np.random.RandomState(0)
    for part, count in (("train", 3), ("test", 5)):
        for name in CLASSES:
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(random.randint(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{name}-{number}.png")
    save(tmp_path, CifarResNet(20))
    return tmp_path


def save(folder: Path, model: torch.nn.Module, name: str = "resnet20") -> Path:
    path = folder / "cifar10_resnets" / f"{name}.pt"
    path.parent.mkdir(exist_ok=True)
    # Files of old versions of torch have no counters.
    torch.save({key: value for key, value in model.state_dict().items() if "num_batches" not in key}, path)
    return path


def request(folder: Path, dataset: str = "cifar10", seed: int = 0, **settings: object) -> Request:
    return Request("images", dataset, ImagesSettings(**{"model": "resnet20", **settings}), seed=seed, data_dirs=(folder,))


def pictures(samples) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in samples.inputs}


# -- the published networks -------------------------------------------------------------------------------------------------
def test_the_resnets_have_the_published_sizes():
    sizes = {depth: sum(p.numel() for p in CifarResNet(depth).parameters()) for depth in (20, 32, 44, 56)}
    assert sizes == {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018}


def test_a_shortcut_takes_every_second_pixel_and_adds_zero_channels_on_both_sides():
    block = CifarResNet(20).eval().layer2[0]
    with torch.no_grad():
        for convolution in (block.conv1, block.conv2):
            convolution.weight.zero_()
    x = torch.rand(1, 16, 6, 6)
    y = block(x)
    torch.testing.assert_close(y[:, 8:24], x[:, :, ::2, ::2])
    assert y[:, :8].abs().sum() == 0
    assert y[:, 24:].abs().sum() == 0


# -- what they have seen ----------------------------------------------------------------------------------------------------
def test_a_fifth_of_the_test_pictures_is_for_validation_and_the_table_says_so(data):
    path = data / "cifar10_resnets" / "resnet20.pt"
    splits, other = (Images().load_data(request(data, seed=seed)) for seed in (0, 1))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [30, 10, 40]
    assert not pictures(splits.val) & pictures(splits.test)
    assert pictures(splits.val) == pictures(other.val)
    assert torch.equal(splits.test.inputs, other.test.inputs)
    digest = find_weights(request(data), ImagesSettings(model="resnet20")).sha256
    assert f"base weights from {path.name} (sha256 {digest[:16]})" in splits.note
    assert "10 of its 50 pictures, drawn once by name, are for validation" in splits.note


def test_the_weights_are_those_of_the_file_and_nothing_is_trained(data):
    task, asked = Images(), request(data)
    splits = task.load_data(asked)
    model = task.base_model(splits, asked)
    state = torch.load(data / "cifar10_resnets" / "resnet20.pt", weights_only=True)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert task.train_base(model, splits, asked, lambda done, total: None) is model


def test_none_trains_from_random_weights_on_the_usual_splits(data):
    task, asked = Images(), request(data, checkpoint="none")
    splits = task.load_data(asked)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [27, 3, 50]
    assert "weights" not in splits.note
    assert task.train_base(task.base_model(splits, asked), splits, asked, lambda done, total: None) is None


def test_another_dataset_does_not_take_them(data):
    (data / "cifar10").rename(data / "birds")
    assert find_weights(request(data, "birds"), ImagesSettings(model="resnet20")) is None


def test_validation_samples_can_be_reported_on(data):
    splits = Images().load_data(request(data, report_on="validation"))
    assert pictures(splits.test) == pictures(splits.val)
    assert "measured on the validation samples" in splits.note
    with pytest.raises(UsageError, match="expected one of test, validation"):
        Images().load_data(request(data, report_on="train"))


# -- bad input --------------------------------------------------------------------------------------------------------------
def refusal(asked: Request) -> str:
    with pytest.raises((UsageError, Unavailable)) as caught:
        Images().base_model(Images().load_data(asked), asked)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_weights_of_another_network_or_number_of_classes_or_half_a_file_are_refused(data):
    save(data, CifarResNet(32))
    assert "'layer1.3.conv1.weight' is not in the model; these weights are not of model 'resnet20'" in refusal(request(data))
    save(data, CifarResNet(20, classes=7))
    assert "'linear.weight' is 7 x 64, the model has 10 x 64" in refusal(request(data))
    path = save(data, CifarResNet(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "not a readable file of weights" in refusal(request(data))


def test_unknown_models_are_answered_with_the_nearest_names(data):
    with pytest.raises(UsageError, match=r"unknown model \(nearest: resnet18"):
        ImagesSettings(model="resnet19")
    with pytest.raises(UsageError, match="unknown model; expected auto, .*timm:NAME"):
        ImagesSettings(model="vgg")


def test_a_size_that_the_network_cannot_take_is_refused_before_training(data):
    for path in (data / "cifar10").rglob("*.png"):
        Image.new("RGB", (2, 2)).save(path)
    assert "2 x 2 pixels are too few" in refusal(request(data, model="lenet5-bn"))
    splits = Images().load_data(request(data, model="lenet5-bn"))
    with pytest.raises(UsageError, match="model 'mine' cannot take pictures of 2 x 2 pixels .*set images.image_size=N"):
        check_size(torch.nn.Conv2d(3, 4, 5), "mine", splits)


# -- timm -------------------------------------------------------------------------------------------------------------------
def test_a_network_of_timm_gets_its_weights_from_a_file_and_a_new_last_layer(data, monkeypatch, tmp_path):
    timm = pytest.importorskip("timm")
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    net = timm.create_model("mobilenetv3_small_050", num_classes=4)
    file = tmp_path / "weights.pt"
    torch.save(net.state_dict(), file)
    asked = request(data, model="timm:mobilenetv3_small_050", checkpoint=str(file), input_size=32)
    task = Images()
    splits = task.load_data(asked)
    assert "base weights from weights.pt" in splits.note
    model = task.base_model(splits, asked)
    assert isinstance(model, Pretrained)
    assert model.head_is_new
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(
        torch.equal(before[f"net.{name}"], value) for name, value in net.state_dict().items() if "classifier" not in name
    )
    trained = task.train_base(model, splits, asked, lambda done, total: None)
    changed = {name for name, value in trained.state_dict().items() if not torch.equal(value, before[name])}
    norms = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert changed == {"net.classifier.weight", "net.classifier.bias", *norms}
    assert task.select_layer(model, asked) == "net.classifier"
    output = trained(splits.train.inputs)
    chance = torch.log(torch.tensor(10.0))
    assert task.loss(output, splits.train.targets).mean() < chance
    assert len(list((tmp_path / "cache" / "features").glob("*.npy"))) == 2


class Normed(torch.nn.Sequential):
    """A network with batch norm and a last layer, for pictures of three channels."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.Flatten(), torch.nn.Linear(5 * 36, 10))


@pytest.mark.parametrize("choice", ["training", "weights"])
def test_the_last_layer_is_trained_under_the_statistics_of_the_training_pictures(data, monkeypatch, tmp_path, choice):
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrained, "STATISTICS", 20)
    monkeypatch.setattr(pretrained, "BATCH", 10)
    task, asked = Images(), request(data, norm_statistics=choice)
    splits = task.load_data(asked)
    torch.manual_seed(0)
    model = Pretrained(Normed(), "3", 0, (0.5,) * 3, (0.25,) * 3)
    model.head_is_new = True
    norm, momentum = model.net[1], model.net[1].momentum
    few = splits.train.inputs[torch.randperm(30, generator=torch.Generator().manual_seed(0))[:20]]
    maps = torch.nn.functional.conv2d((few - 0.5) / 0.25, model.net[0].weight, model.net[0].bias).split(10)
    mean = sum(each.mean((0, 2, 3)) for each in maps) / 2
    variance = sum(each.var((0, 2, 3)) for each in maps) / 2
    if choice == "weights":
        mean, variance = torch.zeros(5), torch.ones(5)
    before_the_head = []
    original = Pretrained._features

    def watched(self, *args):
        before_the_head.append((norm.running_mean.clone(), norm.running_var.clone()))
        return original(self, *args)

    monkeypatch.setattr(Pretrained, "_features", watched)
    trained = task.train_base(model, splits, asked, lambda done, total: None)
    assert len(before_the_head) == 2  # training and validation pictures
    for found in (*before_the_head, (norm.running_mean, norm.running_var)):
        torch.testing.assert_close(found, (mean, variance), rtol=1e-4, atol=1e-5)
    assert norm.momentum == momentum
    assert not any(module.training for module in trained.modules())


def test_timm_downloads_nothing_and_names_what_can_be_done(data, monkeypatch, tmp_path):
    pytest.importorskip("timm")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Unavailable, match=r"no weights at hand; give a file with --set images.checkpoint=FILE"):
        cached_weights("timm:mobilenetv3_small_050", download=False)
    assert "nearest: timm:resnet18" in refusal(request(data, model="timm:resnet17", checkpoint="none"))


# -- EfficientNet-Lite0 -----------------------------------------------------------------------------------------------------
def test_the_packaged_lite0_sees_pictures_as_it_was_trained_to():
    """The first layer's input is (x - 127) / 128 of values 0 to 255, at 128 pixels."""
    pytest.importorskip("efficientnet_lite_pytorch")
    from ocd_bench_images.models.pretrained import lite0

    model = lite0(50, 0).eval()
    seen: list[torch.Tensor] = []
    model.net._conv_stem.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert model(torch.ones(1, 3, 64, 64)).shape == (1, 50)
    torch.testing.assert_close(seen[0], torch.full((1, 3, 128, 128), 1.0))
    assert model.net._bn0.eps == 1e-3
    assert model.adapted_layer == "net._fc"
