"""Reading sound files: soundfile for every format it knows, one channel, 8 kHz.

torchaudio.load is not used: since torchaudio 2.9 it needs torchcodec, which needs FFmpeg libraries on the machine.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from ocd_bench import UsageError
from ocd_bench.reading import Notes, counted, open_unpacked, read_bounded, reading

RATE = 8000
SUFFIXES = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64",
    ".sph", ".nist",
)  # fmt: skip
UNREAD = frozenset(
    {".m4a", ".mp4", ".aac", ".wma", ".amr", ".3gp", ".webm", ".ape", ".wv", ".mka", ".ac3", ".pcm", ".raw", ".shn"}
)
"""Suffixes of sound formats that are not read. A corpus without these files would be a different one, so they are an error."""
FILE_LIMIT = 2**30
"""Maximum bytes of a sound file."""
SAMPLES = 2**27
"""Maximum number of samples of a file, over all channels: 4.6 hours at 8 kHz, 25 minutes of 44.1 kHz in stereo."""
RATES = (1000, 768_000)
"""Smallest and largest plausible sampling rate in Hz."""
KERNEL = 2**24
"""Largest size of the resampling filter: beyond it the two rates have no simple ratio."""
CANCELLED = 1e-3
"""Minimum power of the average of the channels, as a share of their mean power. Below it the channels cancel each other."""
SILENT = 1e-7
"""Largest deviation from the mean, full scale being 1, that counts as digital silence: less than the last bit of 16 and of
24."""


class Reader:
    """Reads files as mono waveforms ``(T,)`` at 8 kHz, and records the conversions for the note."""

    def __init__(self) -> None:
        self.resampled_from: Counter[int] = Counter()
        self.averaged = 0
        self.silent: list[Path] = []

    def read(self, path: Path) -> Tensor:
        """The file's waveform, channels averaged, resampled where its rate is not 8 kHz.

        Raises:
            UsageError: if the file cannot be read, is empty, breaks off, or holds values that are not finite; if its rate or
                its length cannot be true; if its channels cancel each other.
        """
        where = f"sound file {path}"
        with reading(where):  # a name may be longer than the system takes
            if not path.exists() and not path.is_symlink():
                raise UsageError(f"cannot read sound file {path}: no such file")
        with open_unpacked(path) as file:
            data = read_bounded(file, where, FILE_LIMIT)
        if not data:
            raise UsageError(f"{where} is empty")
        _check_whole(data, where)
        with reading(where, "replace it or take it away"), soundfile.SoundFile(io.BytesIO(data)) as sound:
            rate, promised, channels = sound.samplerate, sound.frames, sound.channels
            if not RATES[0] <= rate <= RATES[1]:
                raise UsageError(f"{where}: a sampling rate of {rate:,} Hz; expected {RATES[0]:,} to {RATES[1]:,}")
            if promised * channels > SAMPLES:
                raise UsageError(f"{where}: {promised:,} samples of {counted(channels, 'channel')}; cut it into shorter files")
            samples = sound.read(dtype="float32", always_2d=True)
        if len(samples) == 0 or not np.isfinite(samples).all():
            raise UsageError(f"{where} is {'empty' if len(samples) == 0 else 'damaged: values that are not finite'}")
        if len(samples) < promised:
            raise UsageError(f"{where}: breaks off after {len(samples):,} of {promised:,} samples; get the whole file")
        wave = torch.from_numpy(self._mono(samples, where))
        if rate != RATE:
            wave = self._resampled(wave, rate, where)
        if is_silent(wave):
            self.silent.append(path)
        return wave

    def _mono(self, samples: np.ndarray, where: str) -> np.ndarray:
        wave = samples.mean(1)
        if samples.shape[1] > 1:
            self.averaged += 1
            if np.square(wave).mean() < CANCELLED * np.square(samples).mean():
                raise UsageError(f"{where}: its channels cancel each other when they are averaged; keep one of them")
        return wave

    def _resampled(self, wave: Tensor, rate: int, where: str) -> Tensor:
        import torchaudio.functional

        common = math.gcd(rate, RATE)
        if (rate // common) * (RATE // common) > KERNEL:
            raise UsageError(f"{where}: a sampling rate of {rate:,} Hz has no simple ratio to {RATE:,}; resample it first")
        self.resampled_from[rate] += 1
        return torchaudio.functional.resample(wave, rate, RATE)

    def note(self) -> str:
        """``"; resampled from 16000 Hz"`` and the like, or nothing."""
        notes = Notes()
        if self.resampled_from:
            rates = ", ".join(str(rate) for rate in sorted(self.resampled_from))
            notes.add(f"resampled from {rates} Hz")
            below = sum(count for rate, count in self.resampled_from.items() if rate < RATE)
            if below:
                notes.add(f"{counted(below, 'file')} of less than {RATE} Hz, without the higher frequencies")
        if self.averaged:
            notes.add(f"channels of {counted(self.averaged, 'file')} averaged")
        if self.silent:
            notes.add(
                f"{counted(len(self.silent), 'silent file')} left out: {self.silent[0].name}" + ", ..." * (len(self.silent) > 1)
            )
        return f"; {notes}" if str(notes) else ""


def is_silent(wave: Tensor) -> bool:
    """Whether a waveform is digital silence: a constant."""
    return bool((wave - wave.mean()).abs().max() <= SILENT)


def _check_whole(data: bytes, where: str) -> None:
    """Refuse a RIFF file that is shorter than its data chunk says: libsndfile takes what is left for the whole.

    A size of 0 or of all ones is that of a stream whose length was not known.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    place = 12
    while place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        if data[place : place + 4] == b"data":
            there = len(data) - place - 8
            if there < size < 0x7FFFF000:
                raise UsageError(f"{where}: breaks off: its header promises {size:,} bytes of sound, {there:,} are there")
            return
        place += 8 + size + size % 2
