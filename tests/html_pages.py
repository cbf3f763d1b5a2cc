"""A run whose report has every plot, and the arithmetic of colours, for tests of the HTML report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from tests.runs import accuracy_scores, cell, write_run

DETAIL = {
    "layer_entropy": {"fc1": 3.2, "fc2": 2.1, "conv1": 0.7},
    "history": [[step, float(np.exp(-step / 9)), None if step % 2 else float(0.1 + np.exp(-step / 9))] for step in range(20)],
    "gain_candidates": [0.0, 0.5, 1.0],
    "gain_losses": [0.5, 0.4, 0.45],
    "rho": {"true": [0.1, 0.5, 2.0], "predicted": [0.2, 0.4, 1.5]},
}


def detailed_run(folder: Path, detail: dict[str, Any] | None = None) -> Path:
    """Two groups, rows of every kind, ``detail`` (default: everything the report knows) on ``ocd`` of the first."""
    cells, scores = [], {}
    for number, (task, dataset) in enumerate((("images", "mnist"), ("speech", "<mix> & 'more'"))):
        drawn = accuracy_scores({"base": 0.0, "ocd": 0.6, "ocd-x5": 0.7, "tent": -0.6}, (0, 1), n=80, stream=number)
        for (method, seed), arrays in drawn.items():
            told = (DETAIL if detail is None else detail) if (number, method) == (0, "ocd") else {}
            cost = {"fit_s": 0.0 if method == "base" else 12.0, "adapt_s": 0.1, "samples_per_s": 900.0 + seed}
            cells.append(cell(task, dataset, method, seed, arrays, detail=told, cost=cost))
            scores[task, dataset, method, seed] = arrays
        cells.append(cell(task, dataset, "bn-adapt", 0, status="not-applicable", reason="no norm layer <b>bold</b>"))
        cells.append(cell(task, dataset, "<img src=x>", 0, status="failed", reason="RuntimeError: 'quoted' & \"more\""))
    return write_run(folder, cells, scores)


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
