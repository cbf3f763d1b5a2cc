"""Features of mixtures and estimates for the hypernetwork, and the unsupervised loss for test-time adaptation."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

FFT, HOP = 1024, 256
FRAME = 64
"""Samples of a frame for the control `capacity`: 8 ms at 8 kHz."""
EPS = 1e-8


def power(waves: Tensor) -> Tensor:
    """Power spectrogram ``(..., 513, frames)`` of ``waves (..., T)``: 1024-bin FFT, Hann window, hop 256."""
    window = torch.hann_window(FFT, dtype=waves.dtype, device=waves.device)
    flat = waves.reshape(-1, waves.shape[-1])
    spectrum = torch.stft(flat, FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()).unflatten(0, waves.shape[:-1])


def spectral_summary(estimates: Tensor) -> Tensor:
    """Mean and standard deviation over time of each estimate's log power spectrogram, ``(N, C, T) -> (N, C * 1026)``.

    Speakers are in the order of the output, because the effect of a weight change depends on that order.
    """
    log = torch.log10(power(estimates) + 1e-4)  # (N, C, 513, frames)
    return torch.cat([log.mean(-1), log.std(-1)], -1).flatten(1)


def spectral_picture(estimates: Tensor) -> Tensor:
    """Log power spectrograms, stacked vertically in one grey picture: ``(N, C, T) -> (N, 1, C * 513, frames)``. A power of 1e-4
    (the smallest) is black, a power of 1e6 white. A tone of amplitude 1 has a power of 6.6e4."""
    return ((torch.log10(power(estimates) + 1e-4) + 4) / 10).clamp(0, 1).flatten(1, 2).unsqueeze(1)


def assignment_entropy(estimates: Tensor, mixture: Tensor) -> Tensor:
    """Entropy of the estimates' shares of each time-frequency bin, plus the unexplained share of its energy, ``(N,)``.

    Estimates ``(N, C, T)`` are first scaled by the gains with which their sum is nearest to ``mixture (N, T)``, because a
    separator trained on SI-SDR does not estimate levels.
    """
    gram = estimates @ estimates.mT  # (N, C, C)
    ridge = 1e-4 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] + EPS
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    gains = torch.linalg.solve(gram + ridge * identity, (estimates @ mixture[..., None])[..., 0])
    scaled = gains[..., None] * estimates  # gains are (N, C)
    residual = (mixture - scaled.sum(1)).square().mean(-1) / (mixture.square().mean(-1) + EPS)  # (N,)
    energies = power(scaled) + EPS  # (N, C, 513, frames)
    shares = energies / energies.sum(1, keepdim=True)
    entropy = -(shares * shares.log()).sum(1) / math.log(estimates.shape[1])  # (N, 513, frames), between 0 and 1
    weight = power(mixture)
    return (entropy * weight).sum((-1, -2)) / (weight.sum((-1, -2)) + EPS) + residual


class MixtureEncoder(nn.Module):
    """Log-mel spectrogram of a mixture → three strided convolutions → mean and standard deviation over time → ``(N, size)``."""

    def __init__(self, size: int = 128, mels: int = 40) -> None:
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.mel = MelSpectrogram(8000, n_fft=256, hop_length=128, n_mels=mels, pad_mode="constant")
        widths = (mels, 64, 96, 128)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv1d(before, after, 5, stride=2, padding=2), nn.GroupNorm(1, after), nn.GELU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(2 * widths[-1], size)

    def forward(self, mixtures: Tensor) -> Tensor:
        """``(N, T) -> (N, size)``."""
        features = self.convolutions(torch.log(self.mel(mixtures) + 1e-3))  # (N, 128, frames / 8)
        return self.head(torch.cat([features.mean(-1), features.std(-1, unbiased=False)], -1))


def frames(mixture: Tensor, estimates: Tensor) -> Tensor:
    """Frames of the mixture ``(N, T)`` and of the estimates ``(N, C, T)``, each with the frame before and the one after,
    ``(N, P, 3 (C + 1) FRAME)``. The last frame is filled up with zeros."""
    signals = torch.cat([mixture[:, None], estimates], 1)  # (N, C + 1, T)
    count = -(-signals.shape[-1] // FRAME)
    padded = nn.functional.pad(signals, (FRAME, FRAME + count * FRAME - signals.shape[-1]))
    return padded.unfold(-1, 3 * FRAME, FRAME).movedim(2, 1).flatten(2)


def unframed(change: Tensor, speakers: int, length: int) -> Tensor:
    """Signals ``(N, C, T)`` of numbers at frames ``(N, P, C FRAME)``."""
    return change.unflatten(2, (speakers, FRAME)).movedim(2, 1).flatten(2)[..., :length]
