"""Reading run folders (schema 1): run.json, cells, per-sample scores; several folders as one; atomic writes.

A run folder is plain JSON and NumPy archives, so this module needs neither torch nor the plugins that made the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ocd_bench.errors import UsageError
from ocd_bench.files import is_intact, sha256
from ocd_bench.files import write_atomic as write_atomic  # a public name of this module
from ocd_bench.metrics import GROUPS
from ocd_bench.reading import guarded, list_folder, quoted, read_bytes, read_json, read_npz
from ocd_bench.shapes import checked_cell, checked_run

if TYPE_CHECKING:
    from numpy import ndarray as Array

SCHEMA = 1


def parts_of(dataset: str) -> tuple[str, str, str]:
    """Name, corruption and stream of a dataset as cells and tables name it.

    Example:
        >>> parts_of("mnist+fog-3@dirichlet-0.1"), parts_of("mnist@sorted"), parts_of("mnist")
        (('mnist', 'fog-3', 'dirichlet-0.1'), ('mnist', '', 'sorted'), ('mnist', '', ''))
    """
    rest, _, stream = dataset.partition("@")
    name, _, variant = rest.partition("+")
    return name, variant, stream


BASE = "base"
"""The method that changes nothing."""


class Key(NamedTuple):
    """The name of a cell."""

    task: str
    dataset: str
    method: str
    seed: int

    @property
    def stem(self) -> str:
        """Stem of the cell's files."""
        return f"{self.task}-{self.dataset}-{self.method}-s{self.seed}".replace("/", "_")


@dataclass
class Run:
    """One run folder, or several read as one.

    Attributes:
        name: the folder as the user gave it, for messages.
        info: content of ``run.json``.
        cells: every cell, in the run's order of tasks, datasets, methods and seeds.
    """

    name: str
    info: dict[str, Any]
    cells: dict[Key, dict[str, Any]]
    sources: dict[Key, Path] = field(default_factory=dict)
    """The score archive of each cell that has one."""
    _loaded: dict[Key, dict[str, Array]] = field(default_factory=dict)
    figures: dict[tuple[str, str, int], list[Path]] = field(default_factory=dict)
    """The task's own pictures, sounds and texts by (task, dataset, seed), sorted by name."""
    against: str = BASE
    """The method whose row all others are compared with."""
    parts: tuple[Run, ...] = ()
    """The runs that it was joined from, if any: each has a plan of its own."""

    def scores(self, key: Key, metric: str) -> Array | None:
        """Per-sample scores ``(N,)`` in float64; None where the folder has none (a reference table without scores).

        Raises:
            UsageError: if the archive is damaged, or does not fit its cell.
        """
        return self.arrays(key).get(metric)

    def groups(self, key: Key) -> Array | None:
        """Groups of the test samples, integers ``(N,)`` or ``(N, K)`` (:attr:`ocd_bench.Samples.groups`); None where the folder
        has none.

        Raises:
            UsageError: if the archive is damaged, or does not fit its cell.
        """
        import numpy as np

        stored, cell = self.scores(key, GROUPS), self.cells[key]
        if stored is None and (cell.get("groups") or 0) >= cell["n_test"]:
            return np.arange(cell["n_test"])  # every sample is a group of its own
        return stored

    def arrays(self, key: Key) -> Mapping[str, Array]:
        """Every array of a cell's score archive, by name; see :meth:`scores`."""
        if key not in self._loaded:
            self._loaded[key] = self._load(key)
        return self._loaded[key]

    def _load(self, key: Key) -> dict[str, Array]:
        import numpy as np

        path = self.sources.get(key)
        if path is None:
            return {}
        recorded = self.cells[key].get("scores_sha256")
        if recorded is not None and sha256(read_bytes(path)) != recorded:
            raise UsageError(f"{path}: damaged: its content does not match the sha256 in its cell; run the cell again")
        n_test = self.cells[key]["n_test"]
        arrays = {}
        for name, values in read_npz(path).items():
            if values.dtype.kind not in ("iu" if name == GROUPS else "biuf"):
                wanted = "integers" if name == GROUPS else "numbers"
                raise UsageError(f"{path}: {quoted(name)} holds {values.dtype}, not {wanted}")
            arrays[name] = array = values.astype(np.int64 if name == GROUPS else np.float64)
            if array.shape != (n_test,) and not (name == GROUPS and array.ndim == 2 and len(array) == n_test):
                raise UsageError(f"{path}: {name!r} has shape {array.shape}, the cell says ({n_test},)")
            if not np.isfinite(array).all():
                raise UsageError(f"{path}: {name!r} holds values that are not finite")
        return arrays


@guarded
def read_run(path: Path | str) -> Run:
    """Read and check a run folder; scores are loaded when first asked for. Links that lead out of the folder are not followed.

    Raises:
        UsageError: if it is not a run folder, has another schema, or is damaged. The message names the file.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{path}: {'not a run folder, but a file' if path.exists() else 'no such run folder'}")
    if not (path / "run.json").exists():
        raise UsageError(f"{path}: not a run folder (it has no run.json)")
    info = checked_run(_read_json(path / "run.json"), path / "run.json")
    cells: dict[Key, dict[str, Any]] = {}
    sources: dict[Key, Path] = {}
    for file in sorted((path / "cells").glob("*.json")) if (path / "cells").is_dir() else ():
        if file.name.startswith("."):
            continue
        cell, key = check_cell(_read_json(inside(file, path)), file)
        if key.stem != file.stem:
            raise UsageError(f"{file}: holds the cell {key.stem}; a cell's file has its name")
        cells[key] = cell
        scores = path / "scores" / f"{file.stem}.npz"
        if scores.is_symlink() or scores.exists():
            sources[key] = inside(scores, path)
    _same_primary(cells, path)
    order = in_order(cells, info)
    figures = {
        names: files
        for names in dict.fromkeys((key.task, key.dataset, key.seed) for key in order)
        if (files := _files(path / "figures" / "{}-{}-s{}".format(*names), path))
    }
    return Run(str(path), info, {key: cells[key] for key in order}, sources, figures=figures)


def _same_primary(cells: Mapping[Key, Mapping[str, Any]], path: Path) -> None:
    """Refuse cells of one task and dataset whose primary metrics differ in name or meaning."""
    known: dict[tuple[str, str], tuple[Any, ...]] = {}
    for key, cell in cells.items():
        if cell["status"] != "ok":
            continue
        name = primary_of(cell)
        metric = cell["metrics"][name]
        meaning = (name, metric["unit"], metric["higher_is_better"], metric.get("reduce", "mean"))
        if known.setdefault((key.task, key.dataset), meaning) != meaning:
            raise UsageError(f"{path}: cell {key.stem} has another primary metric than the others of its task and dataset")


def inside(file: Path, folder: Path) -> Path:
    """``file``, if it is one and lies in ``folder``.

    Raises:
        UsageError: for a link that leads out of the folder, or something that is no regular file.
    """
    if not file.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{file}: a link that leads out of the run folder; remove it")
    if not file.is_file():
        raise UsageError(f"{file}: not a regular file; remove it")
    return file


def _files(place: Path, folder: Path) -> list[Path]:
    """The files of a sub-folder that are no leftovers, sorted."""
    names = list_folder(place, ()).left_out if place.is_dir() else ()
    return [inside(place / name, folder) for name in sorted(names) if "." in name]


def _read_json(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected an object")
    if value.get("schema") != SCHEMA:
        raise UsageError(f"{path}: schema {str(value.get('schema'))[:40]}, this version reads schema {SCHEMA}")
    if not is_intact(value):
        raise UsageError(
            f"{path}: damaged: its content does not match its sha256; 'ocd-bench run' with the same --out repairs it"
        )
    return value


def check_cell(cell: dict[str, Any], file: Path) -> tuple[dict[str, Any], Key]:
    """The cell with printable texts, and its key, after its shape has been checked.

    Raises:
        UsageError: naming the file and the field that has another type.
    """
    cell = checked_cell(cell, file)
    return cell, Key(cell["task"], cell["dataset"], cell["method"], cell["seed"])


def in_order(keys: Iterable[Key], info: Mapping[str, Any]) -> list[Key]:
    """Keys in the run's own order of tasks, datasets and methods; unlisted ones after them, by name; seeds ascending."""
    tasks, methods = list(info.get("tasks", {})), list(info.get("methods", []))
    datasets = {task: list(entry.get("dataset", [])) for task, entry in info.get("tasks", {}).items()}

    def place(names: Sequence[str], name: str) -> tuple[int, str]:
        return (names.index(name), "") if name in names else (len(names), name)

    return sorted(
        keys,
        key=lambda k: (place(tasks, k.task), place(datasets.get(k.task, []), k.dataset), place(methods, k.method), k.seed),
    )


def primary_of(cell: Mapping[str, Any]) -> str:
    """Name of the primary metric of an ok cell."""
    return next(name for name, metric in cell["metrics"].items() if metric.get("primary"))


def is_oracle(info: Mapping[str, Any], method: str) -> bool:
    """Whether a method is fitted to the test labels, by the content of run.json. A run of an earlier version does not say so:
    the name does."""
    stated = info.get("oracles")
    return method in stated if isinstance(stated, list) else method.startswith("oracle")


# -- two configurations ----------------------------------------------------------------------------------------------
def config_differences(
    first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]], common: bool = False
) -> list[str]:
    """``section.key 3 and 5`` for every setting on which two configurations differ.

    Args:
        common: only sections that both have (shards may run different methods).
    """
    differences = []
    sections = [name for name in first if name in second] if common else list(dict.fromkeys([*first, *second]))
    for section in sections:
        one, two = first.get(section, {}), second.get(section, {})
        differences += [
            f"{section}.{key} {one.get(key, 'absent')} and {two.get(key, 'absent')}"
            for key in dict.fromkeys([*one, *two])
            if (key not in one or key not in two or one[key] != two[key]) and not _is_new(section, key, one, two)
        ]
    return differences


def _is_new(section: str, key: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Whether one of two configurations is older than a setting that only decides how numbers are rounded."""
    return (section, key) == ("run", "threads") and (key not in one or key not in two)


def json_bytes(value: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> bytes:
    """The content of a JSON file of a run folder; ``default`` makes plain values of others, as for :func:`json.dumps`."""
    return (json.dumps(value, indent=1, ensure_ascii=False, default=default) + "\n").encode("utf-8", "backslashreplace")
