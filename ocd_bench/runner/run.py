"""A whole run: plan the groups, execute them, write the run folder."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocd_bench._version import __version__
from ocd_bench.cache import tidy
from ocd_bench.config import Config, check_overrides, fingerprint, known_sections, resolve, without_machines
from ocd_bench.errors import OCDBenchError, Terminated, Unavailable, UsageError
from ocd_bench.results import config_differences
from ocd_bench.runner.blame import Blame, message_of
from ocd_bench.runner.cells import Group, Variant, assign_datasets, parse_sets, parse_variants
from ocd_bench.runner.order import Outcome, RunRequest
from ocd_bench.runner.store import SCHEMA, RunFolder
from ocd_bench.runner.stored import ANEW
from ocd_bench.runner.streams import with_streams

HARMLESS = ("base.cache", "run.threads")
"""Settings that make no other experiment. With other threads, finished cells are measured again."""


def plan(request: RunRequest, manager: Any, try_import: bool = True) -> tuple[list[Group], list[str]]:
    """The groups of a run, and lines about tasks that ``all`` skipped.

    Args:
        try_import: whether the packages that tasks need are imported, or only looked for.

    Raises:
        UsageError, Unavailable: for an unknown name, or a task that was requested by name and cannot run here.
    """
    try:
        return _plan(request, manager, try_import)
    except (OCDBenchError, KeyboardInterrupt, Terminated):
        raise
    except BaseException as error:  # a member of a task or method, such as datasets(), that raises or exits
        item = next((task for task in manager.tasks.values() if task.name in request.tasks), None)
        if item is None:
            raise
        blame = Blame(manager)
        raise UsageError(
            f"task {item.name!r} ({blame.of_error(error, item)}): {message_of(error)}; {blame.how_to_check(item)}"
        ) from error


def _plan(request: RunRequest, manager: Any, try_import: bool) -> tuple[list[Group], list[str]]:
    left_out: list[str] = []
    if "all" in request.tasks:
        tasks = []
        for task in manager.tasks.values():
            reason = manager.availability(task, try_import)
            if reason:
                left_out.append(f"task {task.name!r} left out: {reason}")
            else:
                tasks.append(task)
        if not manager.tasks:
            manager.task("all")  # raises an error that says how to install tasks
    else:
        tasks = [manager.task(name) for name in dict.fromkeys(request.tasks)]
        for task in tasks:
            reason = manager.availability(task, try_import)
            if reason:
                raise Unavailable(f"task {task.name!r} {reason}")
    check_overrides(request.overrides, known_sections(list(manager.tasks.values()), list(manager.methods.values())))
    datasets = assign_datasets(request.dataset, tasks)
    groups = [
        Group(task.name, dataset, seed, _rows(request, task, manager), _variants(request, task, dataset))
        for task in tasks
        for dataset in datasets[task.name]
        for seed in request.seeds
    ]
    for task in tasks:
        resolve(task, list(manager.methods.values()), request.preset, request.overrides)
    for task in manager.tasks.values():  # also refuse a wrong value in the section of a task that does not run
        own = {key: value for key, value in request.overrides.items() if key.startswith(f"{task.name}.")}
        if own and task not in tasks:
            resolve(task, [], request.preset, own)
    index, count = request.shard
    return groups[index::count], left_out


def _corruption(request: RunRequest, task: Any, dataset: str) -> str | None:
    """What the user asked for, or what the dataset is measured under by default."""
    if request.corruption is not None:
        return request.corruption
    return next((known.corruption for known in task.datasets() if known.name == dataset), "") or None


def _variants(request: RunRequest, task: Any, dataset: str) -> tuple[Variant, ...]:
    return with_streams(parse_variants(_corruption(request, task, dataset), task), request.stream)


def _rows(request: RunRequest, task: Any, manager: Any) -> tuple[str, ...]:
    """Methods of a task's table: those requested by name, else all (or all default ones) that are intended for it."""
    if request.methods and "all" not in request.methods:
        return _with_anew(request, tuple(manager.method(name).name for name in dict.fromkeys(request.methods)))
    meant = [method for method in manager.methods.values() if not method.tasks or task.name in method.tasks]
    return _with_anew(request, tuple(method.name for method in meant if method.default or "all" in request.methods))


def _with_anew(request: RunRequest, rows: tuple[str, ...]) -> tuple[str, ...]:
    """With the row of the base that is trained here, where the others run on a stored one."""
    if request.bases is None or "base" not in rows or ANEW in rows:
        return rows
    place = rows.index("base") + 1
    return (*rows[:place], ANEW, *rows[place:])


def default_folder(request: RunRequest, groups: Sequence[Group]) -> Path:
    """``runs/<tasks>-<preset>-<digest>``: the same command uses the same folder again and continues."""
    digest = fingerprint(
        {
            "groups": [(g.task, g.dataset, [v.label("") for v in g.variants]) for g in groups],
            "overrides": without_machines(request.overrides),
            "preset": request.preset,
        }
    )
    tasks = "-".join(dict.fromkeys(group.task for group in groups)) or "none"
    return Path("runs") / f"{tasks}-{request.preset}-{digest[:8]}"


def execute(request: RunRequest, groups: Sequence[Group], folder: RunFolder, manager: Any, reporter: Any) -> Outcome:
    """Run the groups. A group with bad input is reported and skipped; the others are still run."""
    from ocd_bench.runner.workers import results

    run = describe(request, groups, manager)
    tidy()
    folder.warn = reporter.note
    folder.write_run(run)
    outcome = results(request, groups, folder, manager, reporter)
    notes = {}
    for group in groups:
        for variant in group.variants:
            name = f"{group.task}-{variant.label(group.dataset)}"
            texts = (_origin(request, group, manager), outcome.notes.get(name, ""))
            if note := "; ".join(text for text in texts if text):
                notes[name] = note
    outcome.notes = notes
    try:
        folder.write_run({**run, "notes": notes})
    except OSError as error:
        outcome.problems.append(f"--out {folder.path}: cannot write run.json: {error.strerror or error}")
        reporter.note(f"ocd-bench: error: {outcome.problems[-1]}")
    return outcome


def describe(request: RunRequest, groups: Sequence[Group], manager: Any) -> dict[str, Any]:
    """The content of run.json."""
    from ocd_bench.runner.machine import choose_device, environment

    tasks: dict[str, dict[str, Any]] = {}
    changed = without_machines(request.overrides)
    threads = []
    for group in groups:
        task = manager.task(group.task)
        entry = tasks.setdefault(group.task, {"dataset": [], "config": {}})
        entry["dataset"] = list(dict.fromkeys([*entry["dataset"], *(v.label(group.dataset) for v in group.variants)]))
        sets = parse_sets(_corruption(request, task, group.dataset), task)
        for name, variants in sets.items():
            entry.setdefault("corruption_sets", {})[name] = [variant.label("") for variant in variants]
        entry["seen_in_tuning"] = [dataset.name for dataset in task.datasets() if dataset.seen_in_tuning]
        if task.average:
            entry["average"] = {"unit": task.average.unit, "higher_is_better": task.average.higher_is_better}
        entry["methods"] = list(dict.fromkeys([*entry.get("methods", []), *group.methods]))
        config = _config(request, group, manager)
        entry["config"] = config.as_dict()
        entry["changed"] = {key: value for key, value in changed.items() if key.partition(".")[0] in entry["config"]}
        threads.append(config.section("run").threads)
    return {
        "schema": SCHEMA,
        "ocd_bench": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "preset": request.preset,
        "seeds": list(request.seeds),
        "methods": list(dict.fromkeys(name for group in groups for name in group.methods)),
        "oracles": [name for name, method in manager.methods.items() if method.uses_test_labels],
        "tasks": tasks,
        "environment": environment(choose_device(request.local_device), max(threads, default=1)),
        "plugins": {p["name"]: p["version"] for p in manager.describe()},
        "request": request.as_dict(),
        **({"shards": [f"{request.shard[0] + 1}/{request.shard[1]}"]} if request.shard[1] > 1 else {}),
        "notes": {},
    }


def _config(request: RunRequest, group: Group, manager: Any) -> Config:
    """The settings of a task and of its methods."""
    methods = [manager.method(name) for name in group.methods]
    return resolve(manager.task(group.task), methods, request.preset, request.overrides)


def check_continued(path: Path, request: RunRequest, groups: Sequence[Group], manager: Any) -> None:
    """Refuse to add to a folder what would not be comparable with its numbers: another preset, or another setting of a task.

    Raises:
        UsageError: naming the first settings that differ.
    """
    folder = RunFolder.at(path)
    run = folder.read_run() or {}
    measured = folder.measured(run.get("tasks", {}))
    if measured and run.get("preset", request.preset) != request.preset:
        raise UsageError(f"--out {path}: holds a run of preset {run['preset']}; choose another --out")
    for group in {group.task: group for group in groups}.values():
        if group.task in measured:
            old = run.get("tasks", {}).get(group.task, {}).get("config", {})
            new = json.loads(json.dumps(_config(request, group, manager).as_dict()))
            differ = [text for text in config_differences(old, new, common=True) if text.split()[0] not in HARMLESS]
            if differ:
                raise UsageError(
                    f"--out {path}: task {group.task!r} was measured there with another configuration "
                    f"({', '.join(differ[:3])}); choose another --out"
                )


def _origin(request: RunRequest, group: Group, manager: Any) -> str:
    """A note if the user did not choose the dataset."""
    embedded = {dataset.name: dataset.embedded for dataset in manager.task(group.task).datasets()}
    return "embedded default data, no --dataset given" if request.dataset is None and embedded.get(group.dataset) else ""


def check_repeat(path: Path, request: RunRequest, groups: Sequence[Group], manager: Any) -> None:
    """Refuse to repeat a run whose settings differ now because a default has changed.

    Raises:
        UsageError: naming the first setting that differs.
    """
    earlier = json.loads(path.read_text(encoding="utf-8"))
    asked = earlier["request"]["overrides"]
    given = {key for key, value in request.overrides.items() if value != asked.get(key)}
    if request.preset != earlier.get("preset"):
        return
    for task, entry in describe(request, groups, manager)["tasks"].items():
        old = earlier["tasks"].get(task, {}).get("config", {})
        new = json.loads(json.dumps(entry["config"]))
        changed = [text for text in config_differences(old, new, common=True) if text.split()[0] not in given]
        if changed:
            raise UsageError(
                f"--config {path}: another version wrote it, whose setting differs: {task}: {changed[0]}; "
                "fix it with --set, or repeat the run with that version"
            )
