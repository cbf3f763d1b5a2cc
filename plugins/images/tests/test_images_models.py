"""Models: names, shapes and sizes; checkpoints; DeiT without a network."""

from pathlib import Path

import pytest
import torch

from ocd_bench import Request, Splits, Unavailable, UsageError
from ocd_bench_images.models import build, choose
from ocd_bench_images.models.encoder import Encoder
from ocd_bench_images.models.googlenet import GoogLeNet
from ocd_bench_images.models.lenet import LeNet5
from ocd_bench_images.models.resnet import ResNet18
from ocd_bench_images.settings import MODELS
from ocd_bench_images.task import Images, ImagesSettings

LENET = {
    "conv1.weight": (6, 1, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "conv3.weight": (120, 16, 5, 5),
    "conv3.bias": (120,),
    "fc1.weight": (84, 120),
    "fc1.bias": (84,),
    "fc2.weight": (10, 84),
    "fc2.bias": (10,),
}


def splits_of(channels: int, height: int, width: int, classes: int = 10) -> Splits:
    pair = (torch.rand(classes, channels, height, width), torch.arange(classes))
    return Splits(pair, pair, pair)


def request(preset: str = "default", folder: Path | None = None, **settings: object) -> Request:
    return Request("images", "mnist", ImagesSettings(**settings), preset, data_dirs=(folder,) if folder else ())


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_lenet_has_the_names_and_shapes_of_the_reference_checkpoint():
    assert {name: tuple(value.shape) for name, value in LeNet5().state_dict().items()} == LENET
    assert parameters(LeNet5()) == 61_706


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 4, 5), (1, 20, 28), (3, 19, 40)]
)
@pytest.mark.parametrize("norm", [False, True])
def test_lenet_takes_any_small_picture(channels, height, width, norm):
    model = LeNet5(channels, height, width, 7, norm).eval()
    assert model(torch.rand(2, channels, height, width)).shape == (2, 7)
    assert model.fc1.weight.shape == (84, 120)


def test_lenet_refuses_pictures_of_three_pixels():
    with pytest.raises(UsageError, match="3 x 9 pixels are too few"):
        LeNet5(1, 3, 9)


def test_only_the_bn_variant_has_norm_layers_and_it_trains_on_one_sample():
    kinds = [[type(module) for module in LeNet5(norm=norm).modules()] for norm in (False, True)]
    assert [kind.count(torch.nn.BatchNorm2d) for kind in kinds] == [0, 2]
    assert LeNet5(norm=True).train()(torch.rand(1, 1, 28, 28)).isfinite().all()


@pytest.mark.parametrize(
    ("model", "expected"), [(ResNet18(), 11_173_962), (ResNet18(width=16), 701_466), (GoogLeNet(), 6_166_250)]
)
def test_networks_for_cifar(model, expected):
    assert parameters(model) == expected
    output = model.train()(torch.rand(2, 3, 32, 32))
    assert output.shape == (2, 10)
    output.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.get_submodule(model.adapted_layer).weight.shape[0] == 10
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_googlenet_has_the_channels_of_table_1():
    """Channels after each Inception block of Szegedy et al. 2015, table 1."""
    widths = [block.outputs for stage in GoogLeNet().stages for block in stage]
    assert widths == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


@pytest.mark.parametrize(
    ("shape", "preset", "expected"),
    [
        ((1, 28), "default", "lenet5"),
        ((1, 8), "quick", "lenet5-bn"),
        ((1, 28), "paper", "lenet5"),
        ((3, 32), "default", "resnet18"),
        ((3, 32), "quick", "lenet5-bn"),
        ((3, 32), "paper", "googlenet"),
        ((3, 64), "quick", "resnet18-slim"),
        ((3, 64), "paper", "resnet18"),
        ((1, 64), "default", "resnet18"),
    ],
)
def test_auto(shape, preset, expected):
    assert choose(*shape, preset) == expected
    assert expected in MODELS


def test_build_follows_the_setting_and_the_data():
    model = build(splits_of(3, 32, 32, classes=4), request(model="lenet5-bn"), ImagesSettings(model="lenet5-bn"))
    assert model.fc2.out_features == 4
    with pytest.raises(UsageError, match=r"images.model='resnet81'.*nearest: resnet18"):
        build(splits_of(3, 32, 32), request(), ImagesSettings(model="resnet81"))


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 64)])
def test_encoder(channels, side):
    pictures = torch.rand(3, channels, side, side)
    encoder = Encoder(channels)
    assert encoder(pictures).shape == (3, 256)
    assert 500_000 < parameters(encoder) < 3_000_000
    torch.testing.assert_close(encoder(pictures)[1:2], encoder(pictures[1:2]), rtol=1e-4, atol=1e-5)


# -- checkpoints ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_a_checkpoint_replaces_training(tmp_path, key):
    state = {name: torch.randn(shape) for name, shape in LENET.items()}
    torch.save(state if key is None else {key: state}, tmp_path / "weights.pth")
    task, asked = Images(), request(folder=tmp_path, checkpoint="weights.pth")
    splits = splits_of(1, 28, 28)
    initial = task.base_model(splits, asked)
    swapped = task.train_base(LeNet5(), splits, asked, lambda done, total: None)
    for model in (initial, swapped):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert task.train_base(LeNet5(), splits, request(), lambda done, total: None) is None


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    torch.save(LeNet5(classes=7).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(
        UsageError,
        match=r"weights.pth: 'fc2.weight' is 7 x 84, the model has 10 x 84 .all else fits.*; choose the fitting model",
    ):
        Images().base_model(splits_of(1, 28, 28), request(folder=tmp_path, checkpoint="weights.pth"))


def test_the_message_on_a_missing_checkpoint_lists_the_searched_paths(tmp_path):
    with pytest.raises(UsageError, match=r"images.checkpoint='none.pth': no such file; looked for none.pth, .*none.pth"):
        Images().base_model(splits_of(1, 28, 28), request(folder=tmp_path, checkpoint="none.pth"))


# -- DeiT -------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def tiny_deit(tmp_path, monkeypatch) -> Path:
    """A DeiT of two small layers for three classes, as transformers saves it."""
    transformers = pytest.importorskip("transformers", reason="the extra 'deit' is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.DeiTConfig(image_size=32, patch_size=16, num_labels=3, **size)
    transformers.DeiTForImageClassificationWithTeacher(config).save_pretrained(tmp_path / "deit")
    return tmp_path / "deit"


def test_deit_with_the_same_number_of_classes_is_not_trained(tiny_deit):
    task, asked = Images(), request(model="deit", pretrained=str(tiny_deit))
    splits = splits_of(3, 20, 20, classes=3)
    model = task.base_model(splits, asked).eval()
    assert task.train_base(model, splits, asked, lambda done, total: None) is model
    assert task.select_layer(model, asked) == "net.cls_classifier"
    pictures = torch.rand(4, 3, 20, 20)
    output = model(pictures)
    assert output.shape == (4, 3)
    torch.testing.assert_close(model(pictures[2:3]), output[2:3])
    again = task.base_model(splits, asked).eval()
    torch.testing.assert_close(again(pictures), output)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 3)


def test_deit_of_other_classes_trains_its_heads_only(tiny_deit):
    task, asked = Images(), request(model="deit", pretrained=str(tiny_deit))
    splits = splits_of(3, 32, 32, classes=5)
    model = task.base_model(splits, asked)
    assert task.train_base(model, splits, asked, lambda done, total: None) is None
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.rsplit(".", 1)[0] for name in trained} == {"net.cls_classifier", "net.distillation_classifier"}
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_deit_without_local_weights_is_unavailable(tmp_path, tiny_deit):
    for source in (str(tmp_path / "nowhere"), "nobody/no-such-model-of-ours"):
        with pytest.raises(Unavailable, match="no weights of .* were found; give a folder with --set images.pretrained=FOLDER"):
            Images().base_model(splits_of(3, 32, 32), request(model="deit", pretrained=source))
    weights = tiny_deit / "model.safetensors"
    for damaged in (b"junk", weights.read_bytes()[:3000]):
        weights.write_bytes(damaged)
        with pytest.raises(UsageError, match="deit': cannot be loaded .*; get it again"):
            Images().base_model(splits_of(3, 32, 32), request(model="deit", pretrained=str(tiny_deit)))
    (tiny_deit / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match="a bert model, expected deit"):
        Images().base_model(splits_of(3, 32, 32), request(model="deit", pretrained=str(tiny_deit)))
