"""Writing a run folder (schema 1): cells, per-sample scores, run.json, table.md. Every write is atomic."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ocd_bench import __version__
from ocd_bench.errors import UsageError
from ocd_bench.results import SCHEMA, json_bytes, write_atomic
from ocd_bench.runner.cells import cell_name


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


class RunFolder:
    """One run folder, made or continued.

    Raises:
        UsageError: if the folder cannot be written, or holds something that is not a run of this schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            (path / "cells").mkdir(parents=True, exist_ok=True)
            (path / "scores").mkdir(exist_ok=True)
            write_atomic(path / ".writable", b"")
            (path / ".writable").unlink()
        except OSError as error:
            raise UsageError(f"--out {path}: cannot write there: {error.strerror or error}; choose another folder") from error

    def read_run(self) -> dict[str, Any] | None:
        """The content of run.json, None where there is none yet."""
        try:
            run = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"--out {self.path}: run.json cannot be read ({error}); choose another folder") from error
        if not isinstance(run, dict) or run.get("schema") != SCHEMA:
            raise UsageError(f"--out {self.path}: holds a run of another schema; choose another folder")
        return run

    def write_run(self, run: Mapping[str, Any]) -> None:
        """run.json, joined with what an earlier part of the same run wrote there."""
        old = self.read_run() or {}
        merged = {**old, **run}
        merged["created"] = old.get("created", run["created"])
        for key in ("tasks", "notes", "plugins"):
            merged[key] = {**old.get(key, {}), **run[key]}
        for task, entry in old.get("tasks", {}).items():
            if task in run["tasks"]:
                datasets = dict.fromkeys([*entry["dataset"], *run["tasks"][task]["dataset"]])
                config = {**entry["config"], **run["tasks"][task]["config"]}
                merged["tasks"][task] = {**run["tasks"][task], "dataset": list(datasets), "config": config}
        for key in ("seeds", "methods"):
            merged[key] = list(dict.fromkeys([*old.get(key, []), *run[key]]))
        write_atomic(self.path / "run.json", json_bytes(merged, _plain))

    def read_cell(self, task: str, dataset: str, method: str, seed: int) -> dict[str, Any] | None:
        """A finished cell, None if it is absent or unreadable (it is then measured again)."""
        name = cell_name(task, dataset, method, seed)
        try:
            cell = json.loads((self.path / "cells" / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(cell, dict) or cell.get("schema") != SCHEMA:
            return None
        if cell.get("status") == "ok" and not (self.path / "scores" / f"{name}.npz").exists():
            return None
        return cell

    def write_cell(self, cell: Mapping[str, Any], scores: Mapping[str, np.ndarray] | None) -> None:
        """A cell and its scores; the scores first, so that a cell on disk always has them."""
        name = cell_name(cell["task"], cell["dataset"], cell["method"], cell["seed"])
        if scores is not None:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **scores)  # type: ignore[arg-type]
            write_atomic(self.path / "scores" / f"{name}.npz", buffer.getvalue())
        write_atomic(self.path / "cells" / f"{name}.json", json_bytes(cell, _plain))

    def write_error(self, name: str, text: str) -> Path:
        """The traceback of a failed cell, for its author."""
        path = self.path / "errors" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, text.encode())
        return path

    def write_table(self, markdown: str) -> None:
        """table.md."""
        write_atomic(self.path / "table.md", markdown.encode())


def new_cell(task: str, dataset: str, method: str, seed: int) -> dict[str, Any]:
    """The head of a cell of schema 1; the caller fills in the rest."""
    return {
        "schema": SCHEMA,
        "ocd_bench": __version__,
        "task": task,
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "status": "failed",
        "reason": None,
        "layer": None,
        "n_test": 0,
        "metrics": {},
        "cost": {},
        "fingerprint": {},
        "detail": {},
    }
