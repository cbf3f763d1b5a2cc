"""The separators: shapes, the overlap-add, and per-sample weights by the engine."""

from __future__ import annotations

import copy

import pytest
import torch

from ocd_bench import UsageError
from ocd_bench.engine.apply import apply
from ocd_bench.engine.capture import TargetLayer, candidates
from ocd_bench.engine.forms import Full
from ocd_bench_speech.models import ConvTasNet, build, last_projection
from ocd_bench_speech.mulcat import GatedLSTM, MulCat
from ocd_bench_speech.task import SpeechSettings


def small(model: str = "gated_lstm", speakers: int = 2, **changes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"channels": 8, "hidden": 6, "blocks": 2, "kernel": 16, **changes}
    return build(SpeechSettings(model=model, speakers=speakers, **sizes)).eval()


def mixtures(n: int = 3, samples: int = 403) -> torch.Tensor:
    return torch.randn(n, samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", ["gated_lstm", "conv_tasnet"])
@pytest.mark.parametrize(("speakers", "samples"), [(2, 400), (3, 401), (5, 77), (2, 16)])
def test_one_waveform_per_speaker_of_the_mixtures_length(model: str, speakers: int, samples: int) -> None:
    assert small(model, speakers)(mixtures(2, samples)).shape == (2, speakers, samples)


@pytest.mark.parametrize("model", ["gated_lstm", "conv_tasnet"])
def test_estimates_follow_the_mixtures_level(model: str) -> None:
    network, x = small(model), mixtures()
    torch.testing.assert_close(network(100 * x), 100 * network(x), rtol=1e-3, atol=1e-3)


def test_chunks_overlap_and_add_to_the_frames_they_were_cut_from() -> None:
    """With an output layer that is the identity, decoding must equal encoder and decoder without chunks."""
    network = GatedLSTM(2, channels=8, hidden=4, blocks=1, kernel=16)
    with torch.no_grad():
        network.activation.weight.fill_(1.0)
        network.output_projection.weight.copy_(torch.eye(8).repeat(2, 1))
        network.output_projection.bias.zero_()
        x = mixtures()
        v, level = network._encode(x)
        found = network._decode(network.activation(v), level, x.shape[-1])
        padded = torch.nn.functional.pad(x[:, None] / level, (8, 5 + 8))
        expected = network.decoder(network.encoder(padded).relu())[..., 8 : 8 + 403] * level
    torch.testing.assert_close(found, expected.expand(-1, 2, -1))


def test_mulcat_equals_its_formula() -> None:
    torch.manual_seed(0)
    block, v = MulCat(5, 4).eval(), torch.randn(3, 7, 5)
    product = block.lstm.rnn(v)[0] * block.gate.rnn(v)[0]
    projected = torch.cat([product, v], -1) @ block.projection.weight.T + block.projection.bias
    centred = projected - projected.mean(-1, keepdim=True)
    expected = v + centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(block(v), expected)


def test_the_last_scale_is_the_output() -> None:
    network, x = small(), mixtures()
    assert isinstance(network, GatedLSTM)
    scales = network.all_scales(x)
    assert len(scales) == 2
    torch.testing.assert_close(scales[-1], network(x))
    assert not torch.allclose(scales[0], scales[1])


def test_the_output_depends_on_distant_samples() -> None:
    """The LSTMs across chunks carry information from the start of a mixture to its end."""
    network, x = small(), mixtures(1, 2000)
    changed = x.clone()
    changed[:, :100] *= -1
    assert (network(x) - network(changed))[..., 1500:].abs().max() > 1e-6


@pytest.mark.parametrize("model", ["gated_lstm", "conv_tasnet"])
def test_per_sample_weights_of_the_chosen_layer_equal_a_loop_over_changed_copies(model: str) -> None:
    network, x = small(model), mixtures()
    name = last_projection(network)
    assert name in candidates(network, x)
    layer = TargetLayer(network, str(name))
    change = 0.1 * torch.randn(3, *layer.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = apply(layer.trace(x), Full(change))
        for row in range(3):
            other = copy.deepcopy(network)
            weight = other.get_parameter(f"{name}.weight")
            weight.add_(change[row].view_as(weight))
            torch.testing.assert_close(found[row : row + 1], other(x[row : row + 1]), rtol=1e-4, atol=1e-5)


def test_every_projection_can_be_adapted() -> None:
    network = small()
    projections = {f"blocks.{i}.{path}.projection" for i in range(2) for path in ("along", "across")}
    assert set(candidates(network, mixtures())) == projections | {"encoder", "output_projection"}


def test_layers_of_our_models_and_of_others() -> None:
    assert last_projection(small()) == "output_projection"
    assert last_projection(ConvTasNet(2, 8, 8, 1, 16)) == "network.mask_generator.output_conv"
    assert last_projection(torch.nn.Linear(2, 2)) is None


def test_unknown_models_are_refused() -> None:
    with pytest.raises(UsageError, match="expected one of gated_lstm, conv_tasnet"):
        build(SpeechSettings(model="svoice"))
