"""A run whose report has every plot, and computations with colours, for tests of the HTML report."""

from __future__ import annotations

import re
import wave
from pathlib import Path
from typing import Any

import numpy as np

from ocd_bench.report.png import grey_png
from tests.runs import accuracy_scores, cell, write_run

DETAIL = {
    "entropies": {"conv1": 0.7, "fc1": 3.2, "fc2": 2.1},
    "history": [[step, float(np.exp(-step / 9)), None if step % 2 else float(0.1 + np.exp(-step / 9))] for step in range(20)],
    "history_parts": {
        "diffusion": [[step, 1.0 / (1 + step)] for step in range(0, 20, 2)],
        "scale": [[step, 5.0 - step] for step in range(0, 20, 2)],
        "task": [],
    },
    "gain_candidates": [0.0, 0.5, 1.0],
    "gain_losses": [0.5, 0.4, 0.45],
    "rho": [[0.1, 0.2], [0.5, 0.4], [2.0, 1.5]],
}


def detailed_run(folder: Path, detail: dict[str, Any] | None = None) -> Path:
    """Two groups, rows of every kind, ``detail`` (default: everything the report knows) on ``ocd`` of the first; confidences in
    the first, a picture, a sound, a text and a file of no known kind in the second."""
    cells, scores = [], {}
    for number, (task, dataset) in enumerate((("images", "mnist"), ("speech", "<mix> & 'more'"))):
        drawn = accuracy_scores({"base": 0.0, "ocd": 0.6, "ocd-x5": 0.7, "tent": -0.6}, (0, 1), n=80, stream=number)
        for (method, seed), arrays in drawn.items():
            told = (DETAIL if detail is None else detail) if (number, method) == (0, "ocd") else {}
            cost = {"fit_s": 0.0 if method == "base" else 12.0, "adapt_s": 0.1, "samples_per_s": 900.0 + seed}
            cells.append(cell(task, dataset, method, seed, arrays, detail=told, cost=cost))
            sure = 1 / (1 + np.exp(-np.abs(arrays["cross_entropy"])))
            told = {"confidence": sure, "correct": arrays["accuracy"]} if number == 0 else {}
            scores[task, dataset, method, seed] = {**arrays, **told}
        cells.append(cell(task, dataset, "bn-adapt", 0, status="not-applicable", reason="no norm layer <b>bold</b>"))
        cells.append(cell(task, dataset, "<img src=x>", 0, status="failed", reason="RuntimeError: 'quoted' & \"more\""))
    write_run(folder, cells, scores)
    write_media(folder / "figures" / "speech-<mix> & 'more'-s0")
    return folder


def write_media(folder: Path) -> None:
    """A file of every kind that the page shows, and one that it only names."""
    folder.mkdir(parents=True)
    (folder / "views.png").write_bytes(grey_png(np.arange(400 * 120).reshape(120, 400) % 251))
    (folder / "changed.txt").write_text("joy -> <anger>: " + "a long line & more of it " * 20)
    (folder / "weights.bin").write_bytes(b"0")
    for name in ("0-mixture", "0-truth-1"):
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
            file.writeframes((20000 * tone).astype("<i2").tobytes())


def variables(css: str, theme: str) -> dict[str, str]:
    """Colours of a theme's block by name."""
    block = next(part for part in re.findall(r"\{([^{}]*)\}", css) if f"color-scheme:{theme}" in part)
    return dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6})", block))


def contrast(one: str, two: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)
