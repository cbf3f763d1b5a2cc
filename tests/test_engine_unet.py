"""The paper's U-Net: sizes, padding, parameters, and that the output depends on the condition."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from ocd_bench.engine.learn import parameter_count
from ocd_bench.published import unet
from ocd_bench.published.unet import Attention, UNet, group_norm
from tests.pages import ROOT

TINY = {"channels": 8, "multipliers": (1, 2, 2), "blocks": 1, "attention": (1,)}


def wake(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


def test_as_published_it_has_110_million_parameters_on_fc1_of_lenet5():
    with torch.device("meta"):
        net, six = UNet((84, 120)), UNet((84, 120), multipliers=(1, 1, 2, 2, 4, 4))
    assert parameter_count(net) == pytest.approx(110e6, rel=0.02)
    assert (len(net.down), net.channels, net.width, net.multiple) == (5, 128, 512, 16)
    assert parameter_count(six) == pytest.approx(110e6, rel=0.01)  # the levels of the authors' code


def test_two_attention_layers_in_the_bottleneck_and_those_asked_for():
    net = UNet((6, 5), **TINY)
    assert [isinstance(block.attention, Attention) for block in net.middle] == [True, True]
    assert [isinstance(row[0].attention, Attention) for row in net.down] == [False, True, False]
    assert [isinstance(row[0].attention, Attention) for row in net.up] == [False, True, False]


def test_dropout_is_of_training_alone():
    net = wake(UNet((6, 5), **TINY, dropout=0.5))
    code, t, e = torch.randn(1, 30), torch.zeros(1), torch.randn(1, 32)
    assert not torch.equal(net(code, t, e), net(code, t, e))
    net.eval()
    assert torch.equal(net(code, t, e), net(code, t, e))


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (8, 12), (13, 4)])
def test_any_matrix_is_padded_and_cut_again(shape):
    net = UNet(shape, **TINY)
    code = torch.randn(2, shape[0] * shape[1])
    found = net(code, torch.tensor([0.0, 999.0]), torch.randn(2, 32))
    assert torch.equal(found, torch.zeros_like(code))  # the last layer begins at zero
    found = wake(net)(code, torch.tensor([0.0, 999.0]), torch.randn(2, 32))
    assert found.shape == code.shape
    assert found.isfinite().all()


def test_code_time_and_condition_all_matter_and_samples_do_not_mix():
    net = wake(UNet((6, 5), **TINY))
    code, t, e = torch.randn(3, 30), torch.tensor([0.0, 300.0, 999.0]), torch.randn(3, 32)
    found = net(code, t, e)
    scale = float(found.detach().abs().mean())
    for other in (net(code + torch.randn(30), t, e), net(code, t.flip(0), e), net(code, t, e.flip(0))):
        assert (other - found)[[0, 2]].abs().mean() > 0.01 * scale
    torch.testing.assert_close(net(code[:1], t[:1], e[:1]), found[:1], rtol=1e-4, atol=1e-4 * scale)


def test_without_gradients_large_batches_are_processed_in_chunks(monkeypatch):
    net = wake(UNet((6, 5), **TINY))
    code, t, e = torch.randn(7, 30), torch.arange(7.0), torch.randn(7, 32)
    whole, sizes = net(code, t, e), []
    monkeypatch.setattr(unet, "PIECE", {False: 3 * 8 * 8 * 8})  # three samples of 8 channels on 8 x 8
    net.first.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    with torch.no_grad():
        torch.testing.assert_close(net(code, t, e), whole, rtol=1e-4, atol=1e-4)
    assert sizes == [3, 3, 1]
    net(code, t, e)
    assert sizes == [3, 3, 1, 7]


def test_no_group_of_a_single_channel():
    """The mean of such a group is that of the channel. Normalisation would remove the offset by time and condition."""
    for channels in (1, 4, 8, 16, 48, 128, 512):
        norm = group_norm(channels)
        assert channels % norm.num_groups == 0
        assert channels // norm.num_groups >= min(4, channels)
    assert group_norm(128).num_groups == 32
    x, steer = torch.randn(1, 16, 5, 5), torch.randn(1, 16, 1, 1)
    norm = group_norm(16)
    assert (norm(x + steer) - norm(x)).abs().mean() > 0.1


def test_attention_is_softmax_attention_over_positions():
    layer = wake(Attention(8)).double()
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    weight, bias = layer.inward.weight[:, :, 0, 0], layer.inward.bias
    rows = layer.norm(x).flatten(2).mT  # (N, positions, channels)
    query, key, value = (rows @ weight.T + bias).chunk(3, 2)
    mixed = torch.softmax(query @ key.mT / 8**0.5, -1) @ value
    out = mixed @ layer.outward.weight[:, :, 0, 0].T + layer.outward.bias
    torch.testing.assert_close(layer(x), x + out.mT.reshape(x.shape))


@pytest.mark.parametrize("attention", [(3,), (-1,)])
def test_attention_at_a_level_that_is_not_there_is_refused(attention):
    with pytest.raises(ValueError, match="U-Net of 3 levels"):
        UNet((4, 4), 8, (1, 2, 2), 1, attention)


def test_the_compiler_takes_it_as_one_graph():
    """In an interpreter of its own: the compiler starts autograd's threads, and no later test could fork."""
    code = "from tests.test_engine_unet import compile_as_one_graph; compile_as_one_graph()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def compile_as_one_graph() -> None:
    net = wake(UNet((6, 5), **TINY)).eval()
    code, t, e = torch.randn(3, 30), torch.tensor([0.0, 300.0, 999.0]), torch.randn(3, 32)
    compiled = torch.compile(UNet.denoise, dynamic=False, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(net, code, t, e), net(code, t, e))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the U-Net is compiled on a GPU alone")
def test_compiled_for_training_it_gives_the_same():
    net = wake(UNet((6, 5), **TINY, compiled=True)).cuda().eval()
    code, t, e = torch.randn(5, 30).cuda(), torch.tensor([0.0, 300.0, 999.0, 4.0, 7.0]).cuda(), torch.randn(5, 32).cuda()
    with torch.no_grad():
        expected = net(code, t, e)
    torch.testing.assert_close(net(code, t, e), expected, atol=1e-3, rtol=1e-3)
