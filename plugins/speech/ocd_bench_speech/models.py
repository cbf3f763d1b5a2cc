"""The base models: the Gated-LSTM separator, and torchaudio's Conv-TasNet as an alternative."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ocd_bench_speech.mulcat import GatedLSTM

if TYPE_CHECKING:
    from ocd_bench_speech.settings import SpeechSettings


class ConvTasNet(nn.Module):
    """torchaudio's Conv-TasNet (Luo and Mesgarani 2019, not causal): mixtures ``(N, T)`` to estimates ``(N, C, T)`` at the
    mixture's level.

    Sizes follow the Gated-LSTM's settings: N channels between blocks, 2 N filters of L samples, 4 H channels inside a block,
    R stacks of six blocks.
    """

    trained = False

    def __init__(self, speakers: int, channels: int, hidden: int, blocks: int, kernel: int, depth: int = 6) -> None:
        super().__init__()
        from torchaudio.models import ConvTasNet as Network

        self.network = Network(
            num_sources=speakers, enc_kernel_size=kernel, enc_num_feats=2 * channels, msk_num_feats=channels,
            msk_num_hidden_feats=4 * hidden, msk_num_layers=depth, msk_num_stacks=blocks, msk_activate="relu",
        )  # fmt: skip

    def forward(self, mixture: Tensor) -> Tensor:
        level = mixture.square().mean(-1, keepdim=True).add(1e-8).sqrt()[:, None]
        return self.network(mixture[:, None] / level) * level


def build(settings: SpeechSettings) -> GatedLSTM | ConvTasNet:
    """The untrained base model of the settings."""
    sizes = (settings.speakers, settings.channels, settings.hidden, settings.blocks, settings.kernel)
    if settings.model == "gated_lstm":
        return GatedLSTM(*sizes)
    return ConvTasNet(*sizes)


def last_projection(model: nn.Module) -> str | None:
    """The layer to adapt: the last projection before the decoder, as in the OCD paper; None for a model of another plugin.

    The paper can also be read as the projection of the last block (``blocks.{R - 1}.across.projection``). Set ``select.layer``
    to adapt that one; overfitting it to a sample gains about half as much.
    """
    if isinstance(model, GatedLSTM):
        return "output_projection"
    if isinstance(model, ConvTasNet):
        return "network.mask_generator.output_conv"
    return None
