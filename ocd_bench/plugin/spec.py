"""The hooks of OCD-Bench. A plugin implements any of them, each marked with :data:`ocd_bench.hookimpl`.

An implementation may take any subset of the arguments, by name. A ``firstresult`` hook stops at the first result that is not
None. The task's own method is always called last. So a plugin that returns a value replaces the task's, and a plugin that
returns None keeps it.

A hook or argument that will be removed carries ``warn_on_impl`` or ``warn_on_impl_args``: the loader then prints a warning
that names the plugin and what to use instead, for at least one minor version (docs/public-api.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from ocd_bench.plugin import PROJECT

if TYPE_CHECKING:
    import torch

    from ocd_bench.method import Method
    from ocd_bench.samples import Splits
    from ocd_bench.task import Request, Task

hookspec = pluggy.HookspecMarker(PROJECT)

# ---------------------------------------------------------------------------------------------------------------------
# Registration
# ---------------------------------------------------------------------------------------------------------------------


@hookspec
def ocd_bench_register_tasks(register: Callable[[Task], None]) -> None:
    """Called once, when tasks are first needed.

    Args:
        register: call it with each :class:`ocd_bench.Task` object. If the name is already taken, the task is left out with a
            warning.

    .. versionadded:: 0.1
    """


@hookspec
def ocd_bench_register_methods(register: Callable[[Method], None]) -> None:
    """Called once, when methods are first needed.

    Args:
        register: call it with each :class:`ocd_bench.Method` object. The rows of a table follow the order of registration.

    .. versionadded:: 0.1
    """


# ---------------------------------------------------------------------------------------------------------------------
# Changing a task
# ---------------------------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def ocd_bench_load_data(task: Task, request: Request) -> Splits | None:
    """Called once per (task, dataset, seed) for the samples. Stops at the first result that is not None.

    Args:
        task: the task about to run; look at ``task.name`` before you return anything.
        request: dataset, settings, seed, folders.

    Returns:
        Splits in place of ``task.load_data(request)``, or None. A wrapper (``hookimpl(wrapper=True)``) may change the splits
        of another plugin or of the task.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def ocd_bench_base_model(task: Task, splits: Splits, request: Request) -> torch.nn.Module | None:
    """Called once per (task, dataset, seed) for the untrained base model. Stops at the first result that is not None.

    Args:
        task: the task about to run.
        splits: its samples; ``splits.test`` is the validation split.
        request: dataset, settings, seed.

    Returns:
        A model in place of ``task.base_model(splits, request)``, or None.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def ocd_bench_select_layer(task: Task, model: torch.nn.Module, request: Request) -> str | None:
    """Called once per (task, dataset, seed), with the trained base, for the layer to adapt.

    Stops at the first result that is not None. If there is none, the entropy criterion decides (paper, section 3.3).

    Args:
        task: the task about to run.
        model: the trained base model, in eval mode.
        request: dataset, settings, seed.

    Returns:
        The dotted name of a Linear or Conv layer of ``model``, or None.

    .. versionadded:: 0.1
    """


# ---------------------------------------------------------------------------------------------------------------------
# Results
# ---------------------------------------------------------------------------------------------------------------------


@hookspec
def ocd_bench_cell_finished(cell: Mapping[str, Any]) -> None:
    """Called after each cell has been written, and for each cell that is reused from an earlier run.

    Args:
        cell: the content of the cell file (docs/results-format.md), read-only.

    .. versionadded:: 0.1
    """


@hookspec
def ocd_bench_report_columns(cells: Sequence[Mapping[str, Any]]) -> Mapping[str, str] | None:
    """Called for each row of a comparison table.

    Args:
        cells: the contents of the row's cell files, one per seed.

    Returns:
        Further columns, ``{heading: text}``, or None.

    .. versionadded:: 0.1
    """


@hookspec
def ocd_bench_report_sections(task: str, dataset: str, cells: Sequence[Mapping[str, Any]]) -> Mapping[str, str] | None:
    """Called for each (task, dataset) of an HTML report.

    Args:
        task: name of the task.
        dataset: name of the dataset, with a corruption if there is one.
        cells: the contents of all of its cell files.

    Returns:
        Further sections, ``{heading: HTML}``, which follow the plots of this task and dataset, or None. The HTML is inserted
        as it is: escape names that you did not write yourself. The page loads nothing from elsewhere, so pictures must be
        inline SVG or ``data:`` addresses.

    .. versionadded:: 0.1
    """
