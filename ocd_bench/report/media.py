"""A task's own pictures, sounds and texts as parts of the page, inside the page: nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import io
import re
import wave
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from ocd_bench.report.png import grey_png

LIMIT = 8 * 2**20
"""Bytes of files shown per group; what does not fit is named."""
PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"}
WINDOW, RANGE = 256, 70.0
"""Samples of a spectrogram's window; decibels below the loudest that are still drawn."""


def arranged(files: Sequence[Path], methods: Sequence[str]) -> list[Path]:
    """By leading number, then what belongs to no method (the sample itself, the truth), then by method in the table's order."""

    def place(path: Path) -> tuple[int, int, str]:
        number = re.match(r"\d+", path.stem)
        named = [name for name in methods if re.search(rf"(^|-){re.escape(name)}(-|$)", path.stem)]
        method = max(named, key=len, default="")  # "0-ocd-x5-1" is of ocd-x5, not of ocd
        return int(number[0]) if number else -1, 1 + methods.index(method) if method else 0, path.stem

    return sorted(files, key=place)


def gallery(files: Sequence[Path]) -> str:
    """HTML of the files, in their order: pictures, sounds with a spectrogram and a player, texts; the rest by name only."""
    shown, named, size = [], [], 0
    for path in files:
        draw = _drawer(path)
        part = None
        if draw and size + path.stat().st_size <= LIMIT:
            part = draw(path)
        if part is None:
            named.append(path.name)
            continue
        size += path.stat().st_size
        shown.append(part)
    cards = f'<div class="media">{"".join(shown)}</div>' if shown else ""
    rest = f'<p class="quiet">not shown: {escape(", ".join(named))}</p>' if named else ""
    return cards + rest


def _drawer(path: Path) -> Callable[[Path], str | None] | None:
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        return _picture
    return {".wav": _sound, ".txt": _text}.get(suffix)


def _card(path: Path, body: str, kind: str) -> str:
    return f'<figure class="{kind}">{body}<figcaption>{escape(path.stem)}</figcaption></figure>'


def _picture(path: Path) -> str:
    return _card(path, _image(path.read_bytes(), PICTURES[path.suffix.lower()], path.stem), "picture")


def _text(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    return _card(path, f'<pre tabindex="0" aria-label="{escape(path.stem)}">{escape(text)}</pre>', "text")


def _sound(path: Path) -> str | None:
    """None for a file that is no sound of 16-bit samples."""
    data = path.read_bytes()
    try:
        with wave.open(io.BytesIO(data)) as file:
            if file.getsampwidth() != 2:
                return None
            rate, channels = file.getframerate(), file.getnchannels()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, channels).mean(axis=1) / 32768
    except (wave.Error, EOFError):
        return None
    seconds = len(samples) / rate
    picture = grey_png(spectrogram(samples))
    name = f"{path.stem}, spectrogram: {seconds:.1f} s, 0 to {rate / 2000:g} kHz"
    source = f"data:audio/wav;base64,{base64.b64encode(data).decode()}"
    player = f'<audio controls preload="metadata" aria-label="{escape(path.stem)}" src="{source}"></audio>'
    return _card(path, _image(picture, "image/png", name) + player, "sound")


def _image(data: bytes, kind: str, name: str) -> str:
    return f'<img alt="{escape(name)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'


def spectrogram(samples: np.ndarray, columns: int = 256) -> np.ndarray:
    """Levels ``(WINDOW / 2, columns)`` in 0 to 255 of a sound ``(T,)``: high frequencies above, black :data:`RANGE` dB below
    the peak. Fewer columns for a sound that has not enough samples for them.
    """
    padded = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    starts = np.unique(np.linspace(0, len(padded) - WINDOW, columns).astype(int))
    frames = padded[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, 1:]) ** 2
    level = 10 * np.log10(power / max(float(power.max()), 1e-12) + 1e-12)
    return np.round(255 * np.clip(1 + level / RANGE, 0, 1)).astype(np.uint8).T[::-1]
