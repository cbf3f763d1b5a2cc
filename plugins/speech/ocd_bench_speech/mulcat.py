"""The Gated-LSTM separator of Nachmani, Adi and Wolf 2020 (arXiv 2003.01531), written from the paper's description.

Encoder (1-D convolution, ReLU) → chunks of half overlap → R double blocks, each one MULCAT block along the chunk and one across
the chunks → PReLU and 1 × 1 convolution to C times the channels → overlap-add → decoder. It uses no masks: speakers are
separated in the features. As in the paper, the output of every double block is decoded in training (multi-scale loss), by one
shared head. Omitted: the paper's speaker-identity loss, which needs a pretrained speaker network. Added: see :class:`MulCat`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class BiLSTM(nn.Module):
    """A bidirectional LSTM over sequences ``(M, S, I)`` that returns its outputs ``(M, S, 2 * hidden)`` only."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(size, hidden, batch_first=True, bidirectional=True)

    def forward(self, sequences: Tensor) -> Tensor:
        # cuDNN has no backward pass through an LSTM in eval mode, and test-time adaptation needs one.
        if sequences.is_cuda and not self.training and torch.is_grad_enabled():
            with torch.backends.cudnn.flags(enabled=False):
                return self.rnn(sequences)[0]
        return self.rnn(sequences)[0]


class MulCat(nn.Module):
    """Multiply and concatenate: ``projection([lstm(v) * gate(v), v])`` (paper section 3.1).

    The gate is a second LSTM. Deviation from the paper: a layer norm and a residual connection around the block, without which
    a short training does not converge. The concatenation of v is as published.

    Shape: ``(M, S, N) -> (M, S, N)``.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lstm = BiLSTM(channels, hidden)
        self.gate = BiLSTM(channels, hidden)
        self.projection = nn.Linear(2 * hidden + channels, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, v: Tensor) -> Tensor:
        return v + self.norm(self.projection(torch.cat([self.lstm(v) * self.gate(v), v], -1)))


class DoubleBlock(nn.Module):
    """A MULCAT block along each chunk, then one across the chunks. Shape: ``(N, S, K, F)``, S chunks of K frames."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.along = MulCat(channels, hidden)
        self.across = MulCat(channels, hidden)

    def forward(self, v: Tensor) -> Tensor:
        n, chunks, length, channels = v.shape  # (N, S, K, F)
        v = self.along(v.reshape(n * chunks, length, channels)).view_as(v)
        v = v.transpose(1, 2).reshape(n * length, chunks, channels)  # (N * K, S, F)
        return self.across(v).view(n, length, chunks, channels).transpose(1, 2)  # (N, S, K, F)


class GatedLSTM(nn.Module):
    """Mixtures to sources, ``(N, T) -> (N, C, T)``, at the mixture's level.

    Args:
        speakers: C.
        channels: N of the paper, features of the encoder and of every block.
        hidden: H, units of each LSTM direction.
        blocks: R, number of double blocks.
        kernel: L, samples of the encoder's window; its hop is half of it.
        chunk: frames of a chunk. 0: about sqrt(2 * frames), computed at each call from the length of the mixtures, so that
            both sequence lengths are about equal.

    ``trained``: whether the weights are those of a finished base that must not be trained further.
    """

    trained = False

    def __init__(self, speakers: int, channels: int = 128, hidden: int = 128, blocks: int = 6, kernel: int = 8, chunk: int = 0):
        super().__init__()
        self.speakers, self.kernel, self.chunk = speakers, kernel, chunk
        self.encoder = nn.Conv1d(1, channels, kernel, stride=kernel // 2, bias=False)
        self.blocks = nn.ModuleList(DoubleBlock(channels, hidden) for _ in range(blocks))
        self.activation = nn.PReLU()
        self.output_projection = nn.Linear(channels, speakers * channels)
        self.decoder = nn.ConvTranspose1d(channels, 1, kernel, stride=kernel // 2, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        v, level = self._encode(mixture)
        for block in self.blocks:
            v = block(v)
        v = self.activation(v)
        return self._decode(v, level, mixture.shape[-1])

    def all_scales(self, mixture: Tensor) -> list[Tensor]:
        """The estimates after each double block, R tensors ``(N, C, T)``, for the multi-scale loss. The last is the output."""
        v, level = self._encode(mixture)
        estimates = []
        for block in self.blocks:
            v = block(v)
            estimates.append(self._decode(self.activation(v), level, mixture.shape[-1]))
        return estimates

    def _encode(self, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """Chunks of encoder frames ``(N, S, K, F)`` and the mixture's root mean square ``(N, 1, 1)``."""
        level = mixture.square().mean(-1, keepdim=True).add(1e-8).sqrt()[..., None]  # (N, 1, 1)
        hop = self.kernel // 2
        samples = mixture.shape[-1]
        right = math.ceil(samples / hop) * hop - samples + hop
        frames = self.encoder(pad(mixture[:, None] / level, (hop, right))).relu().transpose(1, 2)  # (N, frames, F)
        half = self._half_chunk(frames.shape[1])
        count = math.ceil(frames.shape[1] / half) + 1
        padded = pad(frames, (0, 0, half, count * half - frames.shape[1]))
        return padded.unfold(1, 2 * half, half).transpose(2, 3), level  # unfold gives (N, S, F, K)

    def _half_chunk(self, frames: int) -> int:
        return (self.chunk or max(2, round(math.sqrt(2 * frames)))) // 2

    def _decode(self, v: Tensor, level: Tensor, samples: int) -> Tensor:
        """Activations of chunks ``(N, S, K, F)`` to waveforms ``(N, C, T)``."""
        n, chunks, length, channels = v.shape
        separated = self.output_projection(v)  # (N, S, K, C * F)
        half, hop = length // 2, self.kernel // 2
        # Overlap-add: on the grid of half chunks, add the second half of each chunk to the first half of the next.
        halves = separated.view(n, chunks, 2, half, -1)  # (N, S, 2, K / 2, C * F)
        frames = (halves[:, 1:, 0] + halves[:, :-1, 1]).flatten(1, 2) / 2  # (N, (S - 1) * K / 2, C * F)
        count = math.ceil(samples / hop) + 1
        frames = frames[:, :count].view(n, count, self.speakers, channels).permute(0, 2, 3, 1)  # (N, C, F, frames)
        waves = self.decoder(frames.reshape(n * self.speakers, channels, count))  # (N * C, 1, T')
        return waves.view(n, self.speakers, -1)[..., hop : hop + samples] * level
