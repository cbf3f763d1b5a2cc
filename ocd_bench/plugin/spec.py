"""The hooks of OCD-Bench. A plugin implements any of them, each marked with :data:`ocd_bench.hookimpl`.

An implementation may take any subset of the arguments, by name. ``firstresult`` hooks stop at the first answer that is not
None; the last of them is always the task's own method: a plugin that answers replaces it, one that returns None leaves it.
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
    """Called once, when tasks are first asked for.

    Args:
        register: call it with each :class:`ocd_bench.Task` object. A second task of a name already taken is left out with a
            warning.
    """


@hookspec
def ocd_bench_register_methods(register: Callable[[Method], None]) -> None:
    """Called once, when methods are first asked for.

    Args:
        register: call it with each :class:`ocd_bench.Method` object; rows of the table follow the order of registration.
    """


# ---------------------------------------------------------------------------------------------------------------------
# Stepping into a task
# ---------------------------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def ocd_bench_load_data(task: Task, request: Request) -> Splits | None:
    """Called once per (task, dataset, seed) for the samples. Stops at the first result that is not None.

    Args:
        task: the task about to run; look at ``task.name`` before answering.
        request: dataset, settings, seed, folders.

    Returns:
        Splits in place of ``task.load_data(request)``, or None. As a wrapper (``hookimpl(wrapper=True)``) it may change
        the splits another gave.
    """


@hookspec(firstresult=True)
def ocd_bench_base_model(task: Task, splits: Splits, request: Request) -> torch.nn.Module | None:
    """Called once per (task, dataset, seed) for the untrained base model. Stops at the first result that is not None.

    Args:
        task: the task about to run.
        splits: its samples.
        request: dataset, settings, seed.

    Returns:
        A model in place of ``task.base_model(splits, request)``, or None.
    """


@hookspec(firstresult=True)
def ocd_bench_select_layer(task: Task, model: torch.nn.Module, request: Request) -> str | None:
    """Called once per (task, dataset, seed), with the trained base, for the layer to adapt. Stops at the first result that
    is not None; if there is none, the entropy criterion decides.

    Args:
        task: the task about to run.
        model: the trained base model, in eval mode.
        request: dataset, settings, seed.

    Returns:
        The dotted name of a Linear or Conv layer of ``model``, or None.
    """


# ---------------------------------------------------------------------------------------------------------------------
# Results
# ---------------------------------------------------------------------------------------------------------------------


@hookspec
def ocd_bench_cell_finished(cell: Mapping[str, Any]) -> None:
    """Called after each cell has been written, reused ones included.

    Args:
        cell: the content of the cell file (schema 1), read-only.
    """


@hookspec
def ocd_bench_report_columns(cells: Sequence[Mapping[str, Any]]) -> Mapping[str, str] | None:
    """Called for each row of a comparison table.

    Args:
        cells: the row's cell files, one per seed.

    Returns:
        Further columns, ``{heading: text}``, or None.
    """


@hookspec
def ocd_bench_report_sections(task: str, dataset: str, cells: Sequence[Mapping[str, Any]]) -> Mapping[str, str] | None:
    """Called for each (task, dataset) of a report; the page has no other source of pictures or scripts than itself.

    Args:
        task: name of the task.
        dataset: name of the dataset, with a corruption if there is one.
        cells: all of its cell files.

    Returns:
        Further sections of the HTML report, ``{heading: HTML}``, below the plots of this task and dataset, or None. The HTML
        goes in as it is: escape names that come from elsewhere.
    """
