"""A whole run: plan the groups, execute them here or in workers, leave a run folder behind."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocd_bench import __version__
from ocd_bench.config import check_overrides, fingerprint, known_sections, resolve
from ocd_bench.errors import Unavailable, UsageError
from ocd_bench.runner.cells import Group, assign_datasets, parse_variants
from ocd_bench.runner.store import SCHEMA, RunFolder


@dataclass(frozen=True)
class Order:
    """What the user asked for, as plain values (it travels to worker processes).

    ``tasks`` and ``methods`` may be ``("all",)``; no methods means those a plugin marks as default.
    """

    tasks: tuple[str, ...]
    dataset: str | None = None
    corruption: str | None = None
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


@dataclass
class Outcome:
    """Every cell of the run, in the plan's order, and what could not be measured at all."""

    cells: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """130 interrupted, 2 bad input somewhere, 3 some cell failed, 4 nothing was measured, else 0."""
        if self.interrupted:
            return 130
        if self.problems:
            return 2
        if any(cell["status"] == "failed" for cell in self.cells):
            return 3
        return 0 if any(cell["status"] == "ok" for cell in self.cells) else 4


def plan(order: Order, manager: Any) -> tuple[list[Group], list[str]]:
    """The groups of a run, and lines about tasks that ``all`` had to leave out.

    Raises:
        UsageError, Unavailable: for a name that is not known, or a task asked for by name that cannot run here.
    """
    left_out: list[str] = []
    if "all" in order.tasks:
        tasks = []
        for task in manager.tasks.values():
            reason = manager.availability(task)
            if reason:
                left_out.append(f"task {task.name!r} left out: {reason}")
            else:
                tasks.append(task)
        if not manager.tasks:
            manager.task("all")  # says how tasks are installed
    else:
        tasks = [manager.task(name) for name in dict.fromkeys(order.tasks)]
        for task in tasks:
            reason = manager.availability(task)
            if reason:
                raise Unavailable(f"task {task.name!r} {reason}")
    check_overrides(order.overrides, known_sections(list(manager.tasks.values()), list(manager.methods.values())))
    datasets = assign_datasets(order.dataset, tasks)
    groups = [
        Group(task.name, dataset, seed, _rows(order, task, manager), parse_variants(order.corruption, task))
        for task in tasks
        for dataset in datasets[task.name]
        for seed in order.seeds
    ]
    for task in tasks:
        resolve(task, list(manager.methods.values()), order.preset, order.overrides)
    for task in manager.tasks.values():  # a wrong value is refused in the section of a task that does not run, too
        own = {key: value for key, value in order.overrides.items() if key.startswith(f"{task.name}.")}
        if own and task not in tasks:
            resolve(task, [], order.preset, own)
    index, count = order.shard
    return groups[index::count], left_out


def _rows(order: Order, task: Any, manager: Any) -> tuple[str, ...]:
    """Methods of a task's table: those asked for by name, else all (or all default ones) that are made for it."""
    if order.methods and "all" not in order.methods:
        return tuple(manager.method(name).name for name in dict.fromkeys(order.methods))
    meant = [method for method in manager.methods.values() if not method.tasks or task.name in method.tasks]
    return tuple(method.name for method in meant if method.default or "all" in order.methods)


def default_folder(order: Order, groups: Sequence[Group]) -> Path:
    """``runs/<tasks>-<preset>-<digest>``: the same command finds its own folder again and continues."""
    digest = fingerprint(
        {
            "groups": [(g.task, g.dataset, [v.label("") for v in g.variants]) for g in groups],
            "overrides": dict(order.overrides),
            "preset": order.preset,
        }
    )
    tasks = "-".join(dict.fromkeys(group.task for group in groups)) or "none"
    return Path("runs") / f"{tasks}-{order.preset}-{digest[:8]}"


def execute(order: Order, groups: Sequence[Group], folder: RunFolder, manager: Any, reporter: Any) -> Outcome:
    """Run the groups; a group that meets bad input is named and skipped, the others are finished all the same."""
    from ocd_bench.runner.machine import choose_device, environment

    outcome = Outcome()
    device = choose_device(order.device)
    tasks: dict[str, dict[str, Any]] = {}
    for group in groups:
        task = manager.task(group.task)
        entry = tasks.setdefault(group.task, {"dataset": [], "config": {}})
        entry["dataset"] = list(dict.fromkeys([*entry["dataset"], *(v.label(group.dataset) for v in group.variants)]))
        entry["seen_in_tuning"] = [dataset.name for dataset in task.datasets() if dataset.seen_in_tuning]
        if task.average:
            entry["average"] = {"unit": task.average.unit, "higher_is_better": task.average.higher_is_better}
        entry["config"] = resolve(task, [manager.method(n) for n in group.methods], order.preset, order.overrides).as_dict()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run = {
        "schema": SCHEMA,
        "ocd_bench": __version__,
        "created": now,
        "preset": order.preset,
        "seeds": list(order.seeds),
        "methods": list(dict.fromkeys(name for group in groups for name in group.methods)),
        "tasks": tasks,
        "environment": environment(device),
        "plugins": {p["name"]: p["version"] for p in manager.describe()},
        "notes": {},
    }
    folder.write_run(run)
    try:
        for result in _results(order, groups, folder, manager, reporter):
            group, cells, note, problem = result
            if problem:
                outcome.problems.append(problem)
                reporter.note(f"ocd-bench: error: {problem}")
            outcome.cells.extend(cells)
            note = "; ".join(text for text in (_origin(order, group, manager), note) if text)
            if note:
                outcome.notes.update({f"{group.task}-{v.label(group.dataset)}": note for v in group.variants})
    except KeyboardInterrupt:
        outcome.interrupted = True
    folder.write_run({**run, "notes": outcome.notes})
    return outcome


def _origin(order: Order, group: Group, manager: Any) -> str:
    """Says so where the data were nobody's choice."""
    embedded = {dataset.name: dataset.embedded for dataset in manager.task(group.task).datasets()}
    return "embedded default data, no --dataset given" if order.dataset is None and embedded.get(group.dataset) else ""


Result = tuple[Group, list[dict[str, Any]], str, str | None]


def _results(order: Order, groups: Sequence[Group], folder: RunFolder, manager: Any, reporter: Any) -> Iterator[Result]:
    if order.executor == "ray":
        from ocd_bench.runner.workers import ray_results

        return ray_results(order, groups, folder.path, reporter)
    if order.jobs > 1 and len(groups) > 1:
        from ocd_bench.runner.workers import process_results

        return process_results(order, groups, folder.path, reporter)
    return (run_group(order, group, folder, manager, reporter) for group in groups)


def run_group(order: Order, group: Group, folder: RunFolder, manager: Any, reporter: Any) -> Result:
    """One group in this process; bad input comes back as a line, not as an exception."""
    from ocd_bench.runner.group import GroupRunner, Settings
    from ocd_bench.runner.machine import choose_device

    settings = Settings(
        preset=order.preset,
        overrides=order.overrides,
        data_dirs=order.data_dirs,
        offline=order.offline,
        device=choose_device(order.device),
        figures=order.figures,
    )
    runner = GroupRunner(group, manager, settings, folder, reporter)
    try:
        return group, runner.execute(), runner.note, None
    except (UsageError, Unavailable) as error:
        return group, runner.finished, runner.note, str(error)
