"""A task's own pictures, sounds and texts, embedded in the page, so that the page loads no other file."""

from __future__ import annotations

import base64
import io
import re
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ocd_bench.report.png import grey_png

LIMIT = 8 * 2**20
"""Maximum bytes of embedded files per group. Further files are only named."""
PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"}
WINDOW, RANGE = 256, 70.0
"""Length of a spectrogram's window in samples; range of its levels in dB below the peak."""


def arranged(files: Sequence[Path], methods: Sequence[str]) -> list[Path]:
    """Sort key: the leading number; then files of no method (the sample, the truth); then methods in the table's order."""

    def place(path: Path) -> tuple[int, int, str]:
        number = re.match(r"\d+", path.stem)
        named = [name for name in methods if re.search(rf"(^|-){re.escape(name)}(-|$)", path.stem)]
        method = max(named, key=len, default="")  # "0-ocd-x5-1" is of ocd-x5, not of ocd
        return int(number[0]) if number else -1, 1 + methods.index(method) if method else 0, path.stem

    return sorted(files, key=place)


@dataclass(frozen=True)
class Medium:
    """One file as part of the page.

    Attributes:
        kind: ``picture``, ``sound`` or ``text``.
        name: the file's name without its suffix.
        picture: a picture as a ``data:`` address; for a sound, its spectrogram.
        alt: description of ``picture``.
        sound: a sound as a ``data:`` address.
        text: the content of a text.
    """

    kind: str
    name: str
    picture: str = ""
    alt: str = ""
    sound: str = ""
    text: str | None = None


@dataclass(frozen=True)
class Gallery:
    """The files that are embedded, and the names of those that are not because they are too large or of an unknown kind."""

    shown: tuple[Medium, ...]
    left_out: tuple[str, ...]


def in_words(stem: str, methods: Sequence[str]) -> str:
    """A file's name as a caption: ``0-truth`` is "0, truth", and ``changed-ocd-x5`` is "changed, ocd-x5"."""
    named = [name for name in methods if re.search(rf"(^|-){re.escape(name)}(-|$)", stem)]
    method = max(named, key=len, default="")
    before, _, after = stem.partition(method) if method else (stem, "", "")
    parts = [part for part in (*before.split("-"), method, *after.split("-")) if part]
    return ", ".join(parts)


def gallery(files: Sequence[Path], methods: Sequence[str] = ()) -> Gallery:
    """Pictures, sounds and texts, in the order of ``files``, up to :data:`LIMIT` bytes.

    Args:
        methods: names of methods, which are one word in a caption.
    """
    shown: list[Medium] = []
    left_out, size = [], 0
    for path in files:
        read = _READERS.get(path.suffix.lower())
        medium = read(path) if read and size + path.stat().st_size <= LIMIT else None
        if medium is None:
            left_out.append(path.name)
        else:
            size += path.stat().st_size
            shown.append(replace(medium, name=in_words(path.stem, methods)))
    return Gallery(tuple(shown), tuple(left_out))


def _picture(path: Path) -> Medium:
    return Medium("picture", path.stem, _address(path.read_bytes(), PICTURES[path.suffix.lower()]), path.stem)


def _text(path: Path) -> Medium:
    return Medium("text", path.stem, text=path.read_text(encoding="utf-8", errors="replace"))


def _sound(path: Path) -> Medium | None:
    """A sound of 16-bit samples; None for any other file."""
    data = path.read_bytes()
    try:
        with wave.open(io.BytesIO(data)) as file:
            if file.getsampwidth() != 2:
                return None
            rate, channels = file.getframerate(), file.getnchannels()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, channels).mean(axis=1) / 32768
    except (wave.Error, EOFError):
        return None
    picture = _address(grey_png(spectrogram(samples)), "image/png")
    alt = f"{path.stem}, spectrogram: {len(samples) / rate:.1f} s, 0 to {rate / 2000:g} kHz"
    return Medium("sound", path.stem, picture, alt, _address(data, "audio/wav"))


_READERS: Mapping[str, Callable[[Path], Medium | None]] = {
    **dict.fromkeys(PICTURES, _picture),
    ".wav": _sound,
    ".txt": _text,
}


def _address(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def spectrogram(samples: np.ndarray, columns: int = 256) -> np.ndarray:
    """Levels ``(WINDOW / 2, columns)``, 0 to 255, of a sound ``(T,)``. High frequencies are at the top; :data:`RANGE` dB below
    the peak is black. A short sound has fewer columns.
    """
    padded = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    starts = np.unique(np.linspace(0, len(padded) - WINDOW, columns).astype(int))
    frames = padded[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, 1:]) ** 2
    level = 10 * np.log10(power / max(float(power.max()), 1e-12) + 1e-12)
    return np.round(255 * np.clip(1 + level / RANGE, 0, 1)).astype(np.uint8).T[::-1]
