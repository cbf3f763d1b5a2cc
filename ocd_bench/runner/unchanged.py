"""Whether a run that is finished can be shown again without measuring, loading data, or importing torch.

After a run whose cells all have a number (or cannot have one), a note is kept in the cache folder. Its key covers the request,
the folder, and the sizes and times of every file that the numbers depend on: OCD-Bench, the plugins, the datasets, the files
that settings name, and which distributions are installed. If the same command finds its own note, nothing has changed, and the
finished cells are the result. In any doubt there is no note, and the run checks everything as usual.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ocd_bench.cache import NOTES, find, keep
from ocd_bench.config import fingerprint, resolve
from ocd_bench.runner.cells import Group
from ocd_bench.runner.fingerprints import named_files
from ocd_bench.runner.order import RunRequest
from ocd_bench.runner.store import RunFolder

KIND = NOTES[0]
MOST_FILES = 20_000
"""A dataset of more files is not looked through: loading it is then what tells whether it has changed."""
VARIABLES = ("OCD_BENCH_", "OMP_", "MKL_", "CUDA_", "HF_", "TORCH_")
"""Prefixes of environment variables that may change a number."""


def finished_cells(request: RunRequest, groups: Sequence[Group], path: Path, manager: Any) -> list[dict[str, Any]] | None:
    """The cells of a run folder if they are all finished and nothing they depend on has changed, in the plan's order; else
    None."""
    if not (path / "run.json").is_file():
        return None
    key = note_key(request, groups, path, manager)
    if key is None or find(KIND, path.name, key, lambda line: None) is None:
        return None
    folder = RunFolder.at(path)
    cells = [
        folder.read_cell(group.task, variant.label(group.dataset), method, group.seed)
        for group in groups
        for variant in group.variants
        for method in group.methods
    ]
    whole = [cell for cell in cells if cell is not None and cell["status"] in ("ok", "not-applicable")]
    return whole if len(whole) == len(cells) else None


def note_finished(request: RunRequest, groups: Sequence[Group], path: Path, manager: Any) -> None:
    """Keep the note of a run that has just finished."""
    key = note_key(request, groups, path, manager)
    if key is not None:
        keep(KIND, path.name, key, {}, b"", lambda line: None)


def note_key(request: RunRequest, groups: Sequence[Group], path: Path, manager: Any) -> str | None:
    """Fingerprint of the request and of everything that its numbers depend on; None if that cannot be told by looking at
    files."""
    folders = manager.folders()
    if folders is None or request.bases is not None or request.keep_bases:
        return None
    methods = list(manager.methods.values())
    settings, data = {}, []
    for group in groups:
        task = manager.task(group.task)
        config = resolve(task, methods, request.preset, request.overrides).as_dict()
        settings[group.task] = [config, named_files(config, request.data_dirs)]
        if not any(known.embedded and known.name == group.dataset for known in task.datasets()):
            found = _dataset(group.dataset, request.data_dirs)
            if not found:
                return None
            data += found
    if len(data) > MOST_FILES:
        return None
    return fingerprint(
        {
            "request": {**request.as_dict(), "shard": list(request.shard), "figures": request.figures},
            "cells": [
                [group.task, group.dataset, group.seed, *group.methods, [variant.label("") for variant in group.variants]]
                for group in groups
            ],
            "folder": str(path.resolve()),
            "machine": [platform.node(), sys.version, sys.prefix],
            "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
            "settings": settings,
            "data": sorted(data),
            "beside": [_status(place) for folder in request.data_dirs for place in (folder, *_entries(folder))],
            "code": sorted(_status(file) for folder in {Path(__file__).parents[1], *folders} for file in _files(folder)),
            "installed": sorted(name for place in sys.path for name in _distributions(place)),
        }
    )


def _dataset(name: str, data_dirs: Sequence[Path]) -> list[list[Any]]:
    """State of every file of a dataset: files and folders whose name begins with the dataset's."""
    places = [place for folder in data_dirs for place in _entries(folder) if place.name.startswith(name)]
    found = []
    for place in places:
        for file in _files(place):
            found.append(_status(file))
            if len(found) > MOST_FILES:
                return found
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _files(place: Path) -> Iterator[Path]:
    if not place.is_dir():
        yield place
        return
    for folder, inner, names in os.walk(place, followlinks=True):
        inner[:] = [name for name in inner if name != "__pycache__" and not name.startswith(".")]
        yield from (Path(folder, name) for name in names)


def _status(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except OSError:
        return [str(path), -1, -1]
    return [str(path), status.st_size, status.st_mtime_ns]


def _distributions(place: str) -> list[str]:
    try:
        return [name for name in os.listdir(place or ".") if name.endswith((".dist-info", ".egg-info"))]
    except OSError:
        return []
