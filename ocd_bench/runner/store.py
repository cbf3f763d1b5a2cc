"""Writes a run folder (schema 1): cells, per-sample scores, run.json, table.md. Writes are atomic; files carry a SHA-256."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ocd_bench._version import __version__
from ocd_bench.cache import to_stderr
from ocd_bench.errors import UsageError
from ocd_bench.files import is_intact, remove_leftovers, seal, sha256, write_atomic
from ocd_bench.results import SCHEMA, check_cell, json_bytes
from ocd_bench.runner.cells import Group, cell_name

LOCKS = ".locks"
"""Sub-folder of the leases of cells that are being measured."""


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def pack_scores(scores: Mapping[str, np.ndarray]) -> bytes:
    """Per-sample scores as the bytes of a NumPy archive. Scores that are all 0 or 1 become int8, which loses nothing."""
    buffer = io.BytesIO()
    small = {
        name: values.astype(np.int8) if ((values == 0) | (values == 1)).all() and values.dtype.kind == "f" else values
        for name, values in scores.items()
    }
    np.savez_compressed(buffer, **small)  # type: ignore[arg-type]
    return buffer.getvalue()


def check_place(path: Path) -> None:
    """Refuse a run folder that cannot be made or continued. Nothing is written.

    Raises:
        UsageError: if the folder cannot be written, or holds a run of another schema.
    """
    reason = ""
    try:
        nearest = next(place for place in (path, *path.parents) if place.exists())
        if not nearest.is_dir():
            reason = os.strerror(errno.ENOTDIR)
        elif not os.access(nearest, os.W_OK | os.X_OK):
            reason = os.strerror(errno.EACCES)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
    if reason:
        raise _unwritable(path, reason)
    RunFolder.at(path).read_run()


def _unwritable(path: Path, reason: str) -> UsageError:
    return UsageError(f"--out {str(path)!r}: cannot write there: {reason}; choose another folder")


class RunFolder:
    """One run folder, new or continued.

    Args:
        warn: function that takes a line about a damaged file.

    Raises:
        UsageError: if the folder cannot be written, or its content is not a run of this schema.
    """

    def __init__(self, path: Path, warn: Any = to_stderr) -> None:
        self.path, self.warn = path, warn
        try:
            self._make()
            write_atomic(path / ".writable", b"")
            (path / ".writable").unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            raise _unwritable(path, str(getattr(error, "strerror", None) or error)) from error
        remove_leftovers((path, path / "cells", path / "scores", path / "errors"))

    @classmethod
    def at(cls, path: Path) -> RunFolder:
        """The folder to read from only: nothing is made, and a damaged file is no news."""
        folder = object.__new__(cls)
        folder.path, folder.warn = path, lambda line: None
        return folder

    def _make(self) -> None:
        (self.path / "cells").mkdir(parents=True, exist_ok=True)
        (self.path / "scores").mkdir(exist_ok=True)

    def read_run(self) -> dict[str, Any] | None:
        """The content of run.json. None if there is none yet, or, after a warning, if it is damaged. It is then written
        again."""
        try:
            run = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"--out {self.path}: run.json cannot be read ({error.strerror}); choose another folder") from error
        except (ValueError, RecursionError, MemoryError) as error:
            self.warn(f"{self.path / 'run.json'}: damaged ({type(error).__name__}); written anew")
            return None
        if not isinstance(run, dict) or not is_intact(run):
            self.warn(f"{self.path / 'run.json'}: damaged; written anew")
            return None
        if run.get("schema") != SCHEMA:
            raise UsageError(f"--out {self.path}: holds a run of another schema; choose another folder")
        if problem := _run_problem(run):
            self.warn(f"{self.path / 'run.json'}: damaged ({problem}); written anew")
            return None
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
                changed = {**entry.get("changed", {}), **run["tasks"][task].get("changed", {})}
                together = {"dataset": list(datasets), "config": config, "changed": changed}
                merged["tasks"][task] = {**run["tasks"][task], **together}
                if sets := {**entry.get("corruption_sets", {}), **run["tasks"][task].get("corruption_sets", {})}:
                    merged["tasks"][task]["corruption_sets"] = sets
                methods = dict.fromkeys([*entry.get("methods", []), *run["tasks"][task].get("methods", [])])
                merged["tasks"][task]["methods"] = list(methods)
        for key in ("seeds", "methods", "shards"):
            if key in old or key in run:
                merged[key] = list(dict.fromkeys([*old.get(key, []), *run.get(key, [])]))
        self._make()
        write_atomic(self.path / "run.json", json_bytes(seal(json.loads(json_bytes(merged, _plain)))))

    def read_cell(self, task: str, dataset: str, method: str, seed: int) -> dict[str, Any] | None:
        """A finished cell. None if it is absent, and, after a warning, if it or its scores are damaged: it is then measured
        again."""
        name = cell_name(task, dataset, method, seed)
        path = self.path / "cells" / f"{name}.json"
        try:
            cell = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            self.warn(f"{path}: damaged ({type(error).__name__}); measured again")
            return None
        problem = self._cell_problem(cell, (task, dataset, method, seed), name)
        if problem:
            self.warn(f"{path}: {problem}; measured again")
            return None
        return cell

    def _cell_problem(self, cell: Any, names: tuple[str, str, str, int], name: str) -> str:
        """A description of what is wrong with a cell that was read from disk; empty if nothing is."""
        if not isinstance(cell, dict):
            return "damaged: it is no table"
        if not is_intact(cell):
            return "damaged: its content does not match its sha256"
        if cell.get("schema") != SCHEMA:
            return f"of schema {cell.get('schema')!r}"
        if (cell.get("task"), cell.get("dataset"), cell.get("method"), cell.get("seed")) != names:
            return "holds another cell"
        try:
            check_cell(cell, self.path / "cells" / f"{name}.json")
        except UsageError as error:
            return f"damaged: {str(error).rpartition(': ')[2]}"
        if cell["status"] == "ok":
            try:
                data = (self.path / "scores" / f"{name}.npz").read_bytes()
            except OSError:
                return f"scores/{name}.npz cannot be read"
            if cell.get("scores_sha256", sha256(data)) != sha256(data):
                return f"scores/{name}.npz is damaged: it does not match the sha256 in its cell"
        return ""

    def write_cell(self, cell: Mapping[str, Any], scores: bytes | None) -> dict[str, Any]:
        """Write the scores of a cell, then the cell, so that a cell on disk always has scores. Returns the cell as written."""
        name = cell_name(cell["task"], cell["dataset"], cell["method"], cell["seed"])
        self._make()
        if scores is not None:
            write_atomic(self.path / "scores" / f"{name}.npz", scores)
            cell = {**cell, "scores_sha256": sha256(scores)}
        sealed = seal(json.loads(json_bytes(cell, _plain)))
        write_atomic(self.path / "cells" / f"{name}.json", json_bytes(sealed))
        return sealed

    def holds(self, cell: Mapping[str, Any]) -> bool:
        """Whether the folder has exactly this cell (a plugin may have removed it)."""
        name = cell_name(cell["task"], cell["dataset"], cell["method"], cell["seed"])
        return (self.path / "cells" / f"{name}.json").exists() and (
            cell["status"] != "ok" or (self.path / "scores" / f"{name}.npz").exists()
        )

    def has_files(self, group: Group) -> bool:
        """Whether there is a file for every cell of a group. The content is not checked."""
        return all(
            (self.path / "cells" / f"{cell_name(group.task, variant.label(group.dataset), method, group.seed)}.json").exists()
            for method in group.methods
            for variant in group.variants
        )

    def write_error(self, name: str, text: str) -> Path:
        """Write the traceback of a failed cell, for the author of the method."""
        path = self.path / "errors" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode("utf-8", "backslashreplace"))
        return path

    def other_tasks(self, tasks: Iterable[str]) -> list[str]:
        """Tasks of which the folder has cells, beside these."""
        run = RunFolder.at(self.path).read_run()  # damage is named once, where run.json is written anew
        return [name for name in (run or {}).get("tasks", {}) if name not in set(tasks)]

    def measured(self, tasks: Iterable[str]) -> set[str]:
        """Those of the tasks of which the folder has a cell with a number."""
        wanted, found = set(tasks), set[str]()
        for path in (self.path / "cells").glob("*.json"):
            if wanted <= found:
                break
            with contextlib.suppress(OSError, ValueError, RecursionError, KeyError, TypeError):  # a damaged cell
                cell = json.loads(path.read_text(encoding="utf-8"))
                found |= {str(cell["task"])} & wanted if cell["status"] == "ok" else set()
        return found

    def discard(self) -> None:
        """Remove a folder in which nothing was measured. A folder with files of others stays."""
        (self.path / "run.json").unlink(missing_ok=True)
        for folder in (self.path / "cells", self.path / "scores", self.path):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def lock_path(self, name: str) -> Path:
        """The path of the lease of a cell."""
        return self.path / LOCKS / f"{name.replace('/', '_')}.lease"

    def remove_locks(self) -> None:
        """Remove the folder of leases if it is empty."""
        with contextlib.suppress(OSError):
            (self.path / LOCKS).rmdir()


def _run_problem(run: Mapping[str, Any]) -> str:
    """What is wrong with a run.json that no seal protects (an earlier version's), in words."""
    for key, kind in (("tasks", dict), ("notes", dict), ("plugins", dict), ("seeds", list), ("methods", list)):
        if not isinstance(run.get(key, kind()), kind):
            return f"{key!r} is not a {'table' if kind is dict else 'list'}"
    for task, entry in run.get("tasks", {}).items():
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("dataset"), list)
            or not isinstance(entry.get("config"), dict)
        ):
            return f"the entry of task {task!r}"
    return ""


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
