"""Several run folders as one: shards of one run, or runs of different tasks."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ocd_bench.errors import UsageError
from ocd_bench.files import SEAL, seal, write_atomic
from ocd_bench.reading import read_bytes
from ocd_bench.results import Key, Run, config_differences, in_order, inside, json_bytes


def merge_runs(runs: Sequence[Run]) -> Run:
    """The union of the runs' cells (shards of one run, or runs of different tasks).

    A cell that is in several runs must be the same in all: status, fingerprints, metric values, scores. Its cost may differ.

    Raises:
        UsageError: for a cell or a configuration on which two runs disagree; the message names both.
    """
    if not runs:
        raise UsageError("no run folder given")
    if len(runs) == 1:
        return runs[0]
    cells: dict[Key, dict[str, Any]] = {}
    sources: dict[Key, Path] = {}
    origin: dict[Key, Run] = {}
    for run in runs:
        for key, cell in run.cells.items():
            if key not in cells:
                cells[key], origin[key] = cell, run
            else:
                _same_cell(key, origin[key], run)
            if key in run.sources:
                sources.setdefault(key, run.sources[key])
    info = _merge_info(runs)
    figures = {names: files for run in reversed(runs) for names, files in run.figures.items()}
    ordered = {key: cells[key] for key in in_order(cells, info)}
    return Run(", ".join(run.name for run in runs), info, ordered, sources, figures=figures, parts=tuple(runs))


def _same_cell(key: Key, one: Run, other: Run) -> None:
    first, second, where, there = one.cells[key], other.cells[key], one.name, other.name
    for what in ("status", "fingerprint", "metrics", "n_test", "layer"):
        if first.get(what) != second.get(what):
            raise UsageError(f"cell {key.stem} differs in {what} between {where} and {there}")
    if first["status"] == "ok" and not _same_scores(key, one, other):
        raise UsageError(f"cell {key.stem} differs in its scores between {where} and {there}")


def _same_scores(key: Key, one: Run, other: Run) -> bool:
    """Whether two runs have the same scores of a cell. A folder without scores agrees with any."""
    if key not in one.sources or key not in other.sources:
        return True
    hashes = [run.cells[key].get("scores_sha256") for run in (one, other)]
    if None not in hashes:
        return hashes[0] == hashes[1]
    first, second = one.arrays(key), other.arrays(key)  # of an earlier version, whose cells do not name their scores
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def missing(runs: Sequence[Run]) -> tuple[list[str], list[Key]]:
    """What is not there although the run folders name it: shards such as ``2/4``, and cells."""
    shards = {str(name) for run in runs for name in run.info.get("shards", ())}
    counts = {name.partition("/")[2] for name in shards}
    absent = [
        f"{index}/{count}" for count in sorted(counts) for index in range(1, int(count) + 1) if f"{index}/{count}" not in shards
    ]
    measured = dict.fromkeys(key for run in runs for key in run.cells)
    planned = dict.fromkeys(key for run in runs for key in _planned(run, measured))
    return absent, [key for key in planned if key not in measured]


def _planned(run: Run, measured: Collection[Key]) -> Iterator[Key]:
    """The cells that a run.json names: all datasets, methods and seeds of each task. If it has no list of a task's methods (an
    earlier version), those with a cell count. In a folder joined from runs that differ in these, what it has counts.
    """
    if "joined" in run.info:
        yield from run.cells
        return
    for task, entry in run.info.get("tasks", {}).items():
        methods = entry.get("methods") or dict.fromkeys(key.method for key in measured if key.task == task)
        for dataset in entry.get("dataset", []):
            for method in methods:
                for seed in run.info.get("seeds", []):
                    yield Key(task, dataset, method, seed)


def _merge_info(runs: Sequence[Run]) -> dict[str, Any]:
    info = copy.deepcopy(runs[0].info)
    for key in ("tasks", "plugins", "notes"):
        info.setdefault(key, {})
    for run in runs[1:]:
        for what in ("preset", "ocd_bench"):
            if run.info.get(what) != info.get(what):
                raise UsageError(
                    f"{runs[0].name} and {run.name} differ in {what}: {info.get(what)!r} and {run.info.get(what)!r}"
                )
        for task, entry in run.info.get("tasks", {}).items():
            mine = info["tasks"].setdefault(task, {**entry, "dataset": [], "config": {}})
            mine["dataset"] = list(dict.fromkeys([*mine.get("dataset", []), *entry.get("dataset", [])]))
            for difference in config_differences(mine.get("config", {}), entry.get("config", {}), common=True):
                raise UsageError(f"{runs[0].name} and {run.name} differ in configuration: {task}: {difference}")
            mine["config"] = {**entry.get("config", {}), **mine.get("config", {})}
            if "changed" in entry and "changed" in mine:
                mine["changed"] = {**entry["changed"], **mine["changed"]}
            else:
                mine.pop("changed", None)  # of an earlier version: the request of the run has it
            if sets := {**entry.get("corruption_sets", {}), **mine.get("corruption_sets", {})}:
                mine["corruption_sets"] = sets
            if methods := dict.fromkeys([*mine.get("methods", []), *entry.get("methods", [])]):
                mine["methods"] = list(methods)
        for name in ("seeds", "methods", *(["oracles"] if "oracles" in info or "oracles" in run.info else [])):
            info[name] = list(dict.fromkeys([*info.get(name, []), *run.info.get(name, [])]))
        for name in ("plugins", "notes"):
            info[name] = {**run.info.get(name, {}), **info[name]}
    if shards := {shard for run in runs for shard in run.info.get("shards", [])}:
        info["shards"] = sorted(shards)
    overrides = [(run.info.get("request") or {}).get("overrides") or {} for run in runs]
    if any(overrides):
        union = {key: value for found in overrides for key, value in found.items()}
        info["request"] = {**(info.get("request") or {}), "overrides": union}
    info["seeds"] = sorted(info.get("seeds", []))
    environments = [run.info.get("environment", {}) for run in runs]
    if any(environment != environments[0] for environment in environments):
        info["environments"] = dict(zip(_folder_names([run.name for run in runs]), environments, strict=True))
    return info


def _folder_names(paths: Sequence[str]) -> list[str]:
    """The last parts of each path, as many as tell all of them apart: where the folders lay tells nothing of the runs."""
    parts = [Path(path).parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(found[-count:]) for found in parts]
        if len(set(names)) == len(set(paths)):
            return names
    return list(paths)


def write_merged(run: Run, sources: Sequence[Path], out: Path) -> None:
    """Write a merged run as a run folder of its own: cells, scores, figures and tracebacks, ``run.json`` last.

    Args:
        run: what :func:`merge_runs` made of ``sources``.

    Raises:
        UsageError: if ``out`` holds a run already, or cannot be written.
    """
    if (out / "run.json").exists():
        raise UsageError(f"--out {out}: holds a run already; choose another folder")
    try:
        for name in ("cells", "scores"):
            (out / name).mkdir(parents=True, exist_ok=True)
        for key, cell in run.cells.items():
            if key in run.sources:
                write_atomic(out / "scores" / f"{key.stem}.npz", read_bytes(run.sources[key]))
            write_atomic(out / "cells" / f"{key.stem}.json", json_bytes(_sealed(cell)))
        for source in sources:
            for folder in ("figures", "errors", "bases"):
                for file in sorted((source / folder).rglob("*")):
                    target = out / file.relative_to(source)
                    if file.is_file() and not target.exists():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        write_atomic(target, read_bytes(inside(file, source)))
        apart = run.parts and missing([run])[1] != missing(run.parts)[1]
        info = {**run.info, "joined": True} if apart else run.info
        write_atomic(out / "run.json", json_bytes(_sealed(info)))
    except OSError as error:
        raise UsageError(f"--out {out}: cannot write there: {error.strerror or error}") from error


def _sealed(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same, with a seal of what it holds now if it has one."""
    return seal(value) if SEAL in value else value
