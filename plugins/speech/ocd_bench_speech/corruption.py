"""Common corruptions of mixtures at severities 1 to 5. The targets are still the clean sources."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fft import irfft, rfft, rfftfreq

RATE = 8000
SNR_DB = (20.0, 15.0, 10.0, 5.0, 0.0)
CLIP = (0.6, 0.45, 0.3, 0.2, 0.1)
CUTOFF_HZ = (3000.0, 2400.0, 1800.0, 1300.0, 900.0)
RT60_S = (0.1, 0.2, 0.35, 0.5, 0.8)


def gaussian_noise(mixtures: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """White noise at 20, 15, 10, 5 or 0 dB below the mixture."""
    return _at_snr(mixtures, _normal(mixtures, generator), SNR_DB[level])


def babble(mixtures: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Three other mixtures of the same test set, played backwards, at 20 to 0 dB below the mixture."""
    n, samples = mixtures.shape
    noise = torch.zeros_like(mixtures)
    for _ in range(3):
        row = int(torch.randint(max(1, n - 1), (), generator=generator)) + 1
        place = int(torch.randint(samples, (), generator=generator))
        noise = noise + mixtures.roll(row, 0).flip(-1).roll(place, -1)
    return _at_snr(mixtures, noise, SNR_DB[level])


def reverb(mixtures: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Reverberation: the room's response is noise that begins 2.5 ms after the direct sound, decays by 60 dB in 0.1 to 0.8 s,
    and has the energy of the direct sound."""
    samples = mixtures.shape[-1]
    time = torch.arange(int(RATE * RT60_S[level]), device=mixtures.device) / RATE
    tail = _normal(mixtures[:, :1].expand(-1, len(time)), generator) * 10 ** (-3 * time / RT60_S[level])
    tail[:, : RATE // 400] = 0
    tail = tail / tail.square().sum(-1, keepdim=True).sqrt()
    size = samples + len(time)  # of the FFT, so that the convolution does not wrap around
    wet = irfft(rfft(mixtures, size) * rfft(tail, size), size)[:, :samples]
    return mixtures + wet


def clipping(mixtures: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Clip at 60, 45, 30, 20 or 10 % of the mixture's peak."""
    limit = CLIP[level] * mixtures.abs().amax(-1, keepdim=True)
    return mixtures.clamp(-limit, limit)


def lowpass(mixtures: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Low-pass filter at 3000, 2400, 1800, 1300 or 900 Hz (magnitude of an order-8 Butterworth filter, zero phase)."""
    samples = mixtures.shape[-1]
    frequency = rfftfreq(2 * samples, 1 / RATE, device=mixtures.device)
    gain = (1 + (frequency / CUTOFF_HZ[level]) ** 16).rsqrt()
    return irfft(rfft(mixtures, 2 * samples) * gain, 2 * samples)[:, :samples]


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


def _at_snr(signal: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    ratio = signal.square().mean(-1, keepdim=True) / noise.square().mean(-1, keepdim=True).clamp_min(1e-12)
    return signal + noise * (ratio / 10 ** (snr_db / 10)).sqrt()


KINDS = {"gaussian_noise": gaussian_noise, "babble": babble, "reverb": reverb, "clipping": clipping, "lowpass": lowpass}
