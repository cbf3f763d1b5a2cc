"""The request of a run and its outcome: plain values that can be sent to workers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocd_bench.config import without_machines
from ocd_bench.errors import UsageError
from ocd_bench.files import is_intact

REPEATED = ("tasks", "dataset", "corruption", "stream", "methods", "preset", "seeds", "overrides", "device", "plugins")
"""Fields of a request that run.json stores."""


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for.

    ``tasks`` and ``methods`` may be ``("all",)``. Empty ``methods`` means the methods that plugins mark as default.

    Args:
        cell_timeout: maximum seconds of each step of a cell (data, base model, fit and test of one method); None: no limit.
        bases: folder of stored bases, on which all methods run but ``base-anew``; None: bases are trained.
        keep_bases: whether the bases are stored in the run folder.
    """

    tasks: tuple[str, ...]
    dataset: str | None = None
    corruption: str | None = None
    stream: str | None = None
    methods: tuple[str, ...] = ()
    preset: str = "default"
    seeds: tuple[int, ...] = (0,)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    data_dirs: tuple[Path, ...] = ()
    offline: bool = False
    device: str = "auto"
    plugins: tuple[str, ...] = ()
    shard: tuple[int, int] = (0, 1)
    jobs: int = 1
    executor: str = "local"
    figures: bool = True
    cell_timeout: float | None = None
    bases: Path | None = None
    keep_bases: bool = False

    @property
    def local_device(self) -> str:
        """The device of this machine that computes; the CPU, which computes nothing, if other machines do."""
        return "cpu" if self.executor == "ray" else self.device

    def as_dict(self) -> dict[str, Any]:
        """The values that ``run --config RUN/run.json`` needs to repeat this run: all that numbers depend on, no folders."""
        values = dataclasses.asdict(self)
        values["overrides"] = without_machines(self.overrides)
        return {name: list(v) if isinstance(v := values[name], tuple) else v for name in REPEATED}


@dataclass
class Outcome:
    """Every cell of the run in the plan's order, and the problems that prevented further cells.

    Attributes:
        problems: lines about bad input and about files that could not be written.
        stopped: number of the signal that ended the run early; 0: none.
    """

    cells: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    stopped: int = 0

    @property
    def exit_code(self) -> int:
        """130: interrupted; 143: terminated; 2: bad input; 3: a cell failed; 4: nothing was measured; else 0."""
        if self.stopped:
            return 128 + self.stopped
        if self.problems:
            return 2
        if any(cell["status"] == "failed" for cell in self.cells):
            return 3
        return 0 if any(cell["status"] == "ok" for cell in self.cells) else 4


def read_request(path: Path) -> dict[str, Any]:
    """The request of an earlier run, from its run.json.

    Raises:
        UsageError: if the file cannot be read, or was written by a version that did not store requests.
    """
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"--config {path}: not valid JSON ({type(error).__name__})") from error
    if not isinstance(run, dict) or not isinstance(run.get("tasks"), dict):
        raise UsageError(f"--config {path}: expected the run.json of a run folder, or a TOML file")
    if not is_intact(run):
        raise UsageError(f"--config {path}: damaged: its content does not match its sha256")
    request = run.get("request")
    if not isinstance(request, dict):
        raise UsageError(f"--config {path}: written by a version that did not store the options; give the options again")
    texts = ("dataset", "corruption", "stream", "preset", "device")
    lists = ("tasks", "methods", "seeds", "plugins")
    if (
        any(not isinstance(request.get(name), str | None) for name in texts)
        or any(not isinstance(request.get(name), list) for name in lists)
        or not isinstance(request.get("overrides"), dict)
        or not all(isinstance(seed, int) for seed in request["seeds"])
        or not all(isinstance(word, str) for name in ("tasks", "methods", "plugins") for word in request[name])
    ):
        raise UsageError(f"--config {path}: its 'request' is not one that OCD-Bench wrote")
    return {**request, **{name: tuple(request[name]) for name in lists}}
