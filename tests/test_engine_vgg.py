"""VGG11 with torchvision's names, and the preparation of pictures of any size."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ocd_bench.engine.learn import parameter_count
from ocd_bench.errors import UsageError
from ocd_bench.published.vgg11 import MEAN, STD, VGG11, PictureFeatures, cached_vgg11, load_vgg11

CONVOLUTIONS = {
    0: (3, 64), 3: (64, 128), 6: (128, 256), 8: (256, 256), 11: (256, 512), 13: (512, 512), 16: (512, 512), 18: (512, 512),
}  # fmt: skip
"""torchvision's numbers of the convolutions in ``features``, with their channels."""


def zeros() -> dict[str, torch.Tensor]:
    """A state dict of VGG11's names and shapes that takes no memory to speak of."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in VGG11().state_dict().items()}
    return {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}


class Small(nn.Module):
    """Returns the sum of its input by picture and channel."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        self.seen = pictures
        return pictures.sum((2, 3))


def test_names_shapes_and_number_of_parameters_are_torchvisions():
    with torch.device("meta"):
        net = VGG11()
    assert parameter_count(net) == 132_863_336  # as torchvision's documentation of VGG11_Weights says
    expected = {f"features.{k}.weight": (b, a, 3, 3) for k, (a, b) in CONVOLUTIONS.items()}
    expected |= {f"features.{k}.bias": (b,) for k, (_, b) in CONVOLUTIONS.items()}
    for k, (a, b) in {0: (25088, 4096), 3: (4096, 4096), 6: (4096, 1000)}.items():
        expected |= {f"classifier.{k}.weight": (b, a), f"classifier.{k}.bias": (b,)}
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == expected


def test_the_forward_pass_written_out():
    """Eight convolutions and five halvings, in the order of configuration A."""
    torch.manual_seed(0)
    net = VGG11()
    x = torch.rand(1, 3, 40, 33)
    y = x
    for k in CONVOLUTIONS:
        layer = net.features[k]
        y = F.relu(F.conv2d(y, layer.weight, layer.bias, padding=1))
        if k in (0, 3, 8, 13, 18):
            y = F.max_pool2d(y, 2)
    torch.testing.assert_close(net.features(x), y)
    assert y.shape == (1, 512, 1, 1)
    net.classifier = nn.Sequential(nn.Linear(512 * 49, 5))
    torch.testing.assert_close(net(x), net.classifier(y.expand(1, 512, 7, 7).flatten(1)))


def test_pictures_are_normalised_enlarged_and_processed_in_chunks():
    features = PictureFeatures(Small())
    grey = torch.rand(40, 1, 20, 64)
    found = features(grey)
    assert found.shape == (40, 3)
    assert features.vgg.seen.shape == (8, 3, 32, 64)  # the second chunk
    large = torch.rand(2, 3, 50, 40)
    features(large)
    torch.testing.assert_close(features.vgg.seen[1, 2], (large[1, 2] - MEAN[2]) / STD[2])
    with pytest.raises(ValueError, match=r"shape \(4, 2, 8, 8\): expected \(N, 1, H, W\) or \(N, 3, H, W\)"):
        features(torch.rand(4, 2, 8, 8))


def test_a_file_of_the_right_names_and_shapes_is_loaded(tmp_path):
    torch.save(zeros() | {"classifier.6.bias": torch.arange(1000.0)}, tmp_path / "vgg.pth")
    features = load_vgg11(tmp_path / "vgg.pth")
    assert torch.equal(features(torch.rand(1, 1, 32, 32)), torch.arange(1000.0)[None])
    assert not any(module.training for module in features.modules())
    assert not any(parameter.requires_grad for parameter in features.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {},
            "'classifier.0.weight' is missing (16 of the model's 22 tensors are in the file); expected torchvision's vgg11",
        ),  # the features alone
        ({"features.0.weight": torch.zeros(64, 1, 3, 3)}, "'features.0.weight' is 64 x 1 x 3 x 3, the model has 64 x 3"),
    ],
)
def test_weights_of_other_names_or_shapes_are_refused(tmp_path, change, message):
    path = tmp_path / "vgg.pth"
    torch.save({name: value for name, value in zeros().items() if "features" in name} | change, path)
    with pytest.raises(UsageError, match="checkpoint .*vgg.pth: ") as caught:
        load_vgg11(path)
    assert message in str(caught.value)


def test_weights_are_found_in_torchvisions_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    assert cached_vgg11() is None
    path = tmp_path / "hub" / "checkpoints" / "vgg11-8a719046.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    assert cached_vgg11() == path
