"""OCD-Bench from Python and notebooks: :func:`run`, :func:`load` and :func:`compare`. docs/python.md has examples.

The command line shows what these functions return. Importing this module imports no torch.

.. versionadded:: 0.1
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocd_bench import results
from ocd_bench.errors import UsageError
from ocd_bench.merging import merge_runs
from ocd_bench.opened import Run
from ocd_bench.plugin import hookimpl

if TYPE_CHECKING:
    from ocd_bench.comparison import Comparison, Thresholds
    from ocd_bench.method import Method
    from ocd_bench.plugin.manager import Manager
    from ocd_bench.task import Task

__all__ = ["Run", "compare", "load", "run"]


def run(
    task: str | Task | Sequence[str | Task],
    dataset: str | Sequence[str] | None = None,
    methods: str | Method | Sequence[str | Method] | None = None,
    preset: str = "default",
    seeds: int | Sequence[int] | None = None,
    out: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    corruption: str | None = None,
    stream: str | None = None,
    data_dir: str | Path | None = None,
    device: str = "auto",
    offline: bool = False,
    plugins: str | Sequence[str] = (),
    jobs: int = 1,
    bases: str | Path | None = None,
    keep_bases: bool = False,
    progress: bool = True,
) -> Run:
    """Train base models, adapt them, measure, and return the results, like ``ocd-bench run``.

    Args:
        task: names of tasks, or ``all``; or your own :class:`ocd_bench.Task` objects, which need not be registered.
        dataset: names of datasets; default: each task's first, which needs no download.
        methods: names of methods, or ``all``, or :class:`ocd_bench.Method` objects; default: those that run by default.
        preset: ``quick``, ``default`` or ``paper``.
        seeds: how many (3: seeds 0, 1 and 2), or which (``[0, 7]``); default: 3, with ``quick`` 1.
        out: run folder; default: ``runs/<tasks>-<preset>-<digest>``. Finished cells in it are kept, the others are measured.
        settings: by dotted key, ``{"ocd.steps": 50}``, or by section, ``{"ocd": {"steps": 50}}``.
        corruption: as for ``--corruption``: ``"none,gaussian_noise:3"``.
        stream: as for ``--stream``: ``"iid,sorted,dirichlet:0.1"``.
        data_dir: folder of the datasets, each in a folder of its name. ``$OCD_BENCH_DATA`` and the cache are searched next.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        offline: whether the network must not be used.
        plugins: files or modules, as for ``--plugin``.
        jobs: worker processes; with objects as tasks or methods only 1.
        bases: folder of stored base models (``keep_bases`` of an earlier run), which are used in place of training.
        keep_bases: whether the base models are stored in the run folder.
        progress: whether progress is shown on stderr.

    Raises:
        UsageError: for a wrong argument or setting, before anything is measured; or if bad input let nothing be measured.
            If a part could be measured, there is a warning instead, and :attr:`Run.problems` has the lines.
        KeyboardInterrupt: when interrupted; the same call continues.

    A cell that fails raises nothing: see :attr:`Run.failed`.

    .. versionadded:: 0.1
    """
    from ocd_bench.config import check_preset
    from ocd_bench.folders import data_directories
    from ocd_bench.runner.order import RunRequest
    from ocd_bench.runner.start import measure, prepare

    check_preset(preset)
    if jobs < 1:
        raise UsageError(f"jobs={jobs}: expected 1 or more")
    tasks, own_tasks = _names("task", task)
    wanted, own_methods = _names("methods", methods or ())
    names, _ = _names("plugins", plugins)
    own = [*own_tasks, *own_methods]
    if own and jobs > 1:
        raise UsageError(
            f"jobs={jobs}: a worker process cannot load {own[0].name!r}: put it in a file and give plugins='FILE.py'"
        )
    from ocd_bench.runner.stored import check_folder

    request = RunRequest(
        tasks=tasks,
        dataset=None if dataset is None else ",".join(_names("dataset", dataset)[0]),
        corruption=corruption,
        stream=stream,
        methods=wanted,
        preset=preset,
        seeds=_seeds(seeds, preset),
        overrides=_flat(settings or {}),
        data_dirs=data_directories(None if data_dir is None else Path(data_dir)),
        offline=offline,
        device=device,
        plugins=names,
        jobs=jobs,
        bases=None if bases is None else check_folder(Path(bases)),
        keep_bases=keep_bases,
    )
    register = (lambda manager: _register(manager, own_tasks, own_methods)) if own else None
    planned = prepare(request, None if out is None else Path(out), own=register, quiet=not progress)
    outcome, path = measure(planned, quiet=not progress)
    if outcome.stopped:
        raise KeyboardInterrupt(f"{path}: the same call continues")
    if outcome.problems and not outcome.cells:
        raise UsageError("; ".join(dict.fromkeys(outcome.problems)))
    finished = Run(results.read_run(path), tuple(outcome.problems), names, planned.manager)
    finished.write_table()
    for line in dict.fromkeys(outcome.problems):
        warnings.warn(line, stacklevel=2)
    return finished


def load(path: str | Path, *more: str | Path, plugins: str | Sequence[str] = (), against: str = "base") -> Run:
    """A stored run, or several read as one (the shards of one run, or runs of different tasks).

    Args:
        path, more: run folders.
        plugins: files or modules whose columns and sections the tables have, as for ``ocd-bench report --plugin``.
        against: the method whose row all others are compared with.

    Raises:
        UsageError: if a folder is not a run folder, or is damaged, if the runs do not fit together, or if no run has the method
            ``against``.

    .. versionadded:: 0.1
    """
    stored = replace(merge_runs([results.read_run(folder) for folder in (path, *more)]), against=against)
    methods = dict.fromkeys(key.method for key in stored.cells)
    if against not in (*methods, results.BASE):
        raise UsageError(f"{stored.name}: no row {against!r} to compare with; it has: {', '.join(methods)}")
    return Run(stored, _plugins=_names("plugins", plugins)[0])


def compare(
    a: Run | str | Path,
    b: Run | str | Path,
    *,
    metrics: str = "primary",
    thresholds: Thresholds | str | Path | None = None,
    across_settings: bool = False,
) -> Comparison:
    """Test whether any row of run ``b`` is worse than in run ``a``, like ``ocd-bench compare``.

    Args:
        a, b: the baseline and the candidate: runs, or their folders.
        metrics: ``primary`` or ``all``.
        thresholds: the smallest losses that matter, by row, or a TOML file of them (docs/comparing.md).
        across_settings: whether rows with other settings are compared too; the settings are named.

    Raises:
        UsageError: if a folder is not a run folder, or is damaged.

    Example:
        >>> compare("results/quick", "results/quick").exit_code()
        0

    .. versionadded:: 0.1
    """
    from ocd_bench.comparison import compare_runs, read_thresholds

    first, second = (side.stored if isinstance(side, Run) else results.read_run(side) for side in (a, b))
    if isinstance(thresholds, str | Path):
        thresholds = read_thresholds(Path(thresholds))
    return compare_runs(first, second, thresholds, metrics, across_settings)


# -- arguments ------------------------------------------------------------------------------------------------------------
def _names(argument: str, value: Any) -> tuple[tuple[str, ...], list[Any]]:
    """Names, and the objects among the values. The name of an object is its attribute ``name``."""
    values = value if isinstance(value, list | tuple | set | frozenset) else [value]
    names: list[str] = []
    objects: list[Any] = []
    for item in values:
        if (
            argument in ("task", "methods")
            and not isinstance(item, str | type)
            and isinstance(getattr(item, "name", None), str)
        ):
            objects.append(item)
            names.append(item.name)
        elif isinstance(item, str | Path):
            text = str(item)
            names += [text] if argument == "plugins" else [part.strip() for part in text.split(",") if part.strip()]
        elif isinstance(item, type):
            raise UsageError(f"{argument}: {item.__name__} is a class: give an instance, {item.__name__}()")
        else:
            raise UsageError(f"{argument}: {item!r} is a {type(item).__name__}, expected a name or a list of names")
    if not names and (argument == "task" or value in ("", [""])):
        raise UsageError(f"{argument}: expected at least one name")
    return tuple(dict.fromkeys(names)), objects


def _seeds(seeds: int | Sequence[int] | None, preset: str) -> tuple[int, ...]:
    if seeds is None:
        return tuple(range(1 if preset == "quick" else 3))
    wrong = f"seeds={seeds!r}: expected a count such as 3, or a list such as [0, 1, 7]"
    if isinstance(seeds, bool | str | float):
        raise UsageError(wrong)
    try:
        found = tuple(dict.fromkeys(map(operator.index, seeds)) if hasattr(seeds, "__iter__") else range(operator.index(seeds)))
    except (TypeError, OverflowError) as error:
        raise UsageError(wrong) from error
    if not found or min(found) < 0 or max(found) >= 2**63 or len(found) > 100_000:
        raise UsageError(wrong)
    return found


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sections as dotted keys, and lists as tuples, as in the settings."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            flat[key] = value
    return flat


class _Objects:
    """Tasks and methods that the caller made, as a plugin."""

    def __init__(self, tasks: Sequence[Task], methods: Sequence[Method]) -> None:
        self.tasks, self.methods = tasks, methods

    @hookimpl
    def ocd_bench_register_tasks(self, register: Callable[[Task], None]) -> None:
        for task in self.tasks:
            register(task)

    @hookimpl
    def ocd_bench_register_methods(self, register: Callable[[Method], None]) -> None:
        for method in self.methods:
            register(method)


def _register(manager: Manager, tasks: Sequence[Task], methods: Sequence[Method]) -> None:
    """Add objects to the loaded plugins.

    Raises:
        UsageError: if one has a fault, or a name that is taken.
    """
    from ocd_bench.plugin.sources import Source

    objects = _Objects(tasks, methods)
    manager.add(Source("python", "python", "", lambda: objects, explicit=True))
    for kind, items, known in (("task", tasks, manager.tasks), ("methods", methods, manager.methods)):
        for item in items:
            if known.get(item.name) is not item:
                owner = manager.owner(known[item.name])
                raise UsageError(f"{kind}: the name {item.name!r} is taken by plugin {owner!r}: choose another")
