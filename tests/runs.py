"""Synthetic run folders for tests of report, compare and merge: ``from tests.runs import make_run``.

Scores are drawn here, by a known law, so that a test knows what a table ought to say. Nothing of the runner is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

UNITS = {
    "accuracy": ("fraction", True, "mean"),
    "cross_entropy": ("nats", False, "mean"),
    "rmse": ("", False, "root_mean"),
    "psnr": ("dB", True, "mean"),
    "matthews": ("", True, "matthews"),
}
ENVIRONMENT = {
    "python": "3.11.2",
    "torch": "2.11.0",
    "numpy": "2.4.0",
    "platform": "Linux",
    "device": "cpu",
    "cpu": "Test CPU",
    "threads": 1,
    "git": "abc",
}


def sha(*parts: object) -> str:
    """A fingerprint of anything."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def reduce(scores: np.ndarray, how: str) -> float:
    """Values by a second, independent implementation of the reductions."""
    if how == "mean":
        return float(np.mean(scores))
    if how == "root_mean":
        return float(np.sqrt(np.mean(scores)))
    target, predicted = scores // 2, scores % 2
    return float(np.corrcoef(target, predicted)[0, 1])


def cell(
    task: str,
    dataset: str,
    method: str,
    seed: int,
    scores: Mapping[str, np.ndarray] | None = None,
    *,
    status: str = "ok",
    reason: str | None = None,
    config: str = "config",
    data: str = "data",
    base: str | None = None,
    cost: Mapping[str, float] | None = None,
    detail: Mapping[str, Any] | None = None,
    layer: str = "fc1",
) -> dict[str, Any]:
    """A cell of schema 1; the first metric is the primary one."""
    metrics = {}
    for place, (name, array) in enumerate((scores or {}).items()):
        unit, higher, how = UNITS[name]
        metrics[name] = {
            "value": reduce(array, how),
            "unit": unit,
            "higher_is_better": higher,
            "primary": place == 0,
            "reduce": how,
        }
    return {
        "schema": 1,
        "ocd_bench": "0.1.0",
        "task": task,
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "status": status,
        "reason": reason,
        "layer": layer,
        "n_test": len(next(iter(scores.values()))) if scores else 0,
        "groups": len(next(iter(scores.values()))) if scores else 0,
        "metrics": metrics,
        "cost": dict(cost or {"fit_s": 1.5, "adapt_s": 0.5, "samples_per_s": 200.0, "peak_memory_mb": 300.0, "parameters": 10}),
        "fingerprint": {
            "config": sha(config, method),
            "data": sha(data, task, dataset),
            "base": sha(base if base is not None else (task, dataset, seed)),
        },
        "detail": dict(detail or {}),
    }


def write_run(
    folder: Path,
    cells: Sequence[Mapping[str, Any]],
    scores: Mapping[tuple[str, str, str, int], Mapping[str, np.ndarray]],
    **info: Any,
) -> Path:
    """Cells and scores, by (task, dataset, method, seed), as a run folder."""
    (folder / "cells").mkdir(parents=True)
    (folder / "scores").mkdir()
    tasks: dict[str, Any] = {}
    for entry in cells:
        task = tasks.setdefault(entry["task"], {"dataset": [], "config": {"base": {"epochs": 3, "lr": 0.001}}})
        task["dataset"] = list(dict.fromkeys([*task["dataset"], entry["dataset"]]))
        stem = f"{entry['task']}-{entry['dataset']}-{entry['method']}-s{entry['seed']}"
        (folder / "cells" / f"{stem}.json").write_text(json.dumps(entry))
        arrays = scores.get((entry["task"], entry["dataset"], entry["method"], entry["seed"]))
        if arrays:
            np.savez_compressed(folder / "scores" / f"{stem}.npz", **arrays)
    run = {
        "schema": 1,
        "ocd_bench": "0.1.0",
        "created": "2026-11-23T09:00:00+00:00",
        "preset": "quick",
        "seeds": sorted({entry["seed"] for entry in cells}),
        "methods": list(dict.fromkeys(entry["method"] for entry in cells)),
        "tasks": tasks,
        "environment": dict(ENVIRONMENT),
        "plugins": {"images": "0.1.0"},
        "notes": {},
    }
    run.update(info)
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def accuracy_scores(
    methods: Mapping[str, float],
    seeds: Sequence[int],
    *,
    n: int = 400,
    stream: int = 0,
    shared: float = 0.0,
    own: float = 0.0,
    noise: float = 0.5,
) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Per-sample accuracy and cross-entropy by (method, seed), all on one test set.

    Args:
        methods: name to the method's advantage on the latent scale; 0 is right on about three samples in four.
        stream: the random stream of seeds and noise; the test set's difficulties do not depend on it.
        shared, own: SD of a seed's shift of every method together, and of each method by itself.
        noise: SD of a single (method, seed, sample).
    """
    difficulty = 1.5 * np.random.default_rng(12345).normal(size=n)
    result = {}
    for seed in seeds:
        together = np.random.default_rng([stream, seed]).normal(0, shared) if shared else 0.0
        for place, (name, advantage) in enumerate(methods.items()):
            random = np.random.default_rng([stream, seed, place])
            latent = 1.0 + advantage + difficulty + together + random.normal(0, own or 1e-12) + random.normal(0, noise, n)
            result[name, seed] = {
                "accuracy": (latent > 0).astype(float),
                "cross_entropy": np.logaddexp(0.0, -2 * latent),
            }
    return result


def make_run(
    folder: Path,
    methods: Mapping[str, float] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    groups: Sequence[tuple[str, str]] = (("images", "mnist"),),
    cell_options: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
    with_scores: bool = True,
    **law: Any,
) -> Path:
    """A run folder with ``methods`` (default: base, a better ocd, an equal tent) in every group."""
    methods = methods if methods is not None else {"base": 0.0, "ocd": 0.4, "tent": 0.0}
    cells, scores = [], {}
    for number, (task, dataset) in enumerate(groups):
        drawn = accuracy_scores(methods, seeds, **{**law, "stream": law.get("stream", 0) * 1000 + number})
        for (method, seed), arrays in drawn.items():
            cells.append(cell(task, dataset, method, seed, arrays, **(cell_options or {})))
            if with_scores:
                scores[task, dataset, method, seed] = arrays
    return write_run(folder, cells, scores, **(info or {}))


def edit_cell(folder: Path, stem: str, **changes: Any) -> None:
    """Change a stored cell."""
    path = folder / "cells" / f"{stem}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
