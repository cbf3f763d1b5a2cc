"""Reading sound files: soundfile for every format it knows, one channel, 8 kHz.

torchaudio.load is not used: since torchaudio 2.9 it needs torchcodec, which needs FFmpeg libraries on the machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from ocd_bench import UsageError

RATE = 8000
SUFFIXES = (".wav", ".flac", ".ogg")


class Reader:
    """Reads files as mono waveforms ``(T,)`` at 8 kHz and remembers which other sampling rates it met."""

    def __init__(self) -> None:
        self.resampled_from: set[int] = set()

    def read(self, path: Path) -> Tensor:
        """The file's waveform, channels averaged, resampled where its rate is not 8 kHz.

        Raises:
            UsageError: if the file cannot be read, is empty, or holds values that are not finite.
        """
        try:
            samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, OSError) as error:
            reason = str(error).splitlines()[0] if path.exists() else "no such file"
            raise UsageError(f"cannot read sound file {path}: {reason}") from error
        if len(samples) == 0 or not np.isfinite(samples).all():
            raise UsageError(f"sound file {path} is {'empty' if len(samples) == 0 else 'damaged: values that are not finite'}")
        wave = torch.from_numpy(samples.mean(1))
        if rate != RATE:
            import torchaudio.functional

            self.resampled_from.add(rate)
            wave = torchaudio.functional.resample(wave, rate, RATE)
        return wave

    def note(self) -> str:
        """``"; resampled from 16000 Hz"``, or nothing."""
        rates = ", ".join(str(rate) for rate in sorted(self.resampled_from))
        return f"; resampled from {rates} Hz" if rates else ""
