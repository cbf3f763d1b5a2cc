"""Sounds of a few test mixtures, to listen to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from ocd_bench import Samples
from ocd_bench_speech.audio import RATE
from ocd_bench_speech.separation import align

MIXTURES = 3


def write_sounds(test: Samples, outputs: Mapping[str, Tensor], folder: Path) -> list[Path]:
    """``{number}-mixture.wav``, ``{number}-truth-{speaker}.wav`` and ``{number}-{method}-{speaker}.wav``, 16 bit, 8 kHz.

    A mixture and its true sources keep their relative levels. The level of an estimate is arbitrary, so it is set to that of
    the true source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = min(MIXTURES, len(test), *(len(output) for output in outputs.values()))
    truth, mixture = test.targets[:count].cpu(), test.inputs[:count].cpu()
    gain = 0.9 / torch.cat([truth, mixture[:, None]], 1).abs().amax((1, 2), keepdim=True).clamp_min(1e-8)
    paths = _write(folder, "mixture", (gain * mixture[:, None]), [""]) + _write(folder, "truth", gain * truth)
    for method, output in outputs.items():
        estimates = align(output[:count].cpu(), truth)
        levels = truth.square().mean(-1, keepdim=True).sqrt() / estimates.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-8)
        paths += _write(folder, re.sub(r"[^\w-]", "_", method), gain * levels * estimates)
    return paths


def _write(folder: Path, name: str, waves: Tensor, endings: Sequence[str] | None = None) -> list[Path]:
    paths = []
    for number, channels in enumerate(waves):
        for speaker, wave in enumerate(channels):
            ending = endings[speaker] if endings else f"-{speaker + 1}"
            paths.append(folder / f"{number}-{name}{ending}.wav")
            soundfile.write(str(paths[-1]), wave.clamp(-1, 1).numpy(), RATE, subtype="PCM_16")
    return paths
