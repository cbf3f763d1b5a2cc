"""List tasks, datasets, methods, plugins, settings, and the layers of a base model, as text or JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocd_bench.layers import Layer
    from ocd_bench.plugin.manager import Manager
    from ocd_bench.task import Dataset, Task

KINDS = ("tasks", "datasets", "methods", "plugins")
"""What is listed without an argument."""

Row = dict[str, Any]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``list [KIND]``, ``list settings [SECTION]`` and ``list layers --task T``."""
    from ocd_bench.cli import add_plugin_option

    help = "list tasks, datasets, methods, plugins, settings and layers"
    parser = subparsers.add_parser("list", help=help, description=__doc__)
    words = (*KINDS, "settings", "layers")
    parser.add_argument("kind", nargs="?", choices=words, metavar="|".join(words), help="default: the first four")
    parser.add_argument("section", nargs="?", metavar="SECTION", help="with settings: one section, or one key 'section.name'")
    parser.add_argument("--preset", metavar="quick|default|paper", help="with settings and layers: whose values to use")
    parser.add_argument("--task", metavar="T", help="with layers: the task whose base model to examine")
    parser.add_argument("--dataset", metavar="D", help="with layers: default: the task's first")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="with layers: where datasets lie")
    parser.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="a.b=value", help="with layers: one setting"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print the list, and return 0."""
    import json

    from ocd_bench.errors import UsageError
    from ocd_bench.plugin.manager import load_plugins

    if args.section is not None and args.kind != "settings":
        raise UsageError(f"list: unknown argument {args.section!r} (see ocd-bench list --help)")
    if args.preset is not None and args.kind not in ("settings", "layers"):
        raise UsageError("list: --preset is only for settings and layers (see ocd-bench list --help)")
    for name, option in (("task", "--task"), ("dataset", "--dataset"), ("data_dir", "--data-dir"), ("assignments", "--set")):
        if args.kind != "layers" and getattr(args, name):
            raise UsageError(f"list: {option} is only for layers (see ocd-bench list --help)")
    if args.kind == "layers":
        return _layers(args)
    manager = load_plugins(args.plugin, declared=True)
    if args.kind == "settings":
        return _settings(manager, args.section, args.preset or "default", args.json)
    kinds = (args.kind,) if args.kind else KINDS
    found = {kind: rows(manager, kind) for kind in kinds}
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for number, (kind, entries) in enumerate(found.items()):
        if number:
            print()
        _print(kind, entries)
    return 0


def rows(manager: Manager, kind: str) -> list[Row]:
    """The entries of one kind, with the keys that ``--json`` shows.

    tasks: name, description, primary_metric (a list), datasets (names, the default first), available, reason (how to make it
    available, or null), plugin. datasets: name, task, description, embedded, default. methods: name, description, default,
    uses_test_labels, leads and follows (whether it can be A or B of A+B), chosen (how its hyper-parameters are chosen), section
    (or null), plugin. plugins: name, version, origin, hooks.
    """
    from ocd_bench.runner.cells import default_datasets

    if kind == "plugins":
        return manager.describe()
    if kind == "methods":
        return [
            {
                "name": method.name,
                "description": method.description,
                "default": method.default,
                "uses_test_labels": method.uses_test_labels,
                "leads": method.leads,
                "follows": method.follows,
                "chosen": method.chosen,
                "section": method.section,
                "plugin": manager.owner(method),
            }
            for method in manager.methods.values()
        ]
    entries: list[Row] = []
    for task in manager.tasks.values():
        datasets = _datasets(manager, task)
        if kind == "tasks":
            entries.append(_task(manager, task, datasets))
        else:
            defaults = default_datasets(datasets)
            entries += [
                {
                    "name": dataset.name,
                    "task": task.name,
                    "description": dataset.description,
                    "embedded": dataset.embedded,
                    "default": dataset.name in defaults,
                }
                for dataset in datasets
            ]
    return entries


def _task(manager: Manager, task: Task, datasets: Sequence[Dataset]) -> Row:
    reason = manager.availability(task, try_import=False)
    primary = task.primary_metric
    return {
        "name": task.name,
        "description": task.description,
        "primary_metric": [primary] if isinstance(primary, str) else list(primary),
        "datasets": [dataset.name for dataset in datasets],
        "available": reason is None,
        "reason": reason,
        "plugin": manager.owner(task),
    }


def _datasets(manager: Manager, task: Task) -> Sequence[Dataset]:
    try:
        return list(task.datasets())
    except Exception as error:  # an error in one task must not hide the others
        manager.warn(
            f"task {task.name!r} of plugin {manager.owner(task)!r}: datasets() failed: {type(error).__name__}: {error}"
        )
        return []


# -- settings -------------------------------------------------------------------------------------------------------------
def _settings(manager: Manager, section: str | None, preset: str, as_json: bool) -> int:
    """One JSON object, or for each setting a line ``key = value (what it accepts) [unit]`` with its meaning below."""
    import json
    import shutil
    import textwrap

    from ocd_bench.config import check_preset
    from ocd_bench.reference import as_text, rows

    check_preset(preset)
    found = rows(list(manager.tasks.values()), list(manager.methods.values()), section)
    if as_json:
        print(json.dumps({"preset": preset, "settings": [row.as_dict(preset) for row in found]}, indent=1))
        return 0
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    for row in found:
        value = as_text(row.values[preset])
        unit = f" [{row.known.unit}]" if row.known.unit else ""
        print(f"{row.key}={value}  ({row.expected}){unit}")
        chosen = ", ".join(f"{task} {as_text(other)}" for task, other in row.tasks[preset].items())
        for text in filter(None, [row.known.help, f"Chosen by tasks: {chosen}." if chosen else ""]):
            print(textwrap.fill(text, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False))
    return 0


# -- layers ---------------------------------------------------------------------------------------------------------------
def _layers(args: argparse.Namespace) -> int:
    """The layers of a task's base model: which can be adapted, and why the others cannot."""
    import contextlib
    import json

    from ocd_bench.config import check_overrides, known_sections, parse_assignment, resolve
    from ocd_bench.errors import UsageError
    from ocd_bench.folders import data_directories
    from ocd_bench.plugin.manager import load_plugins

    if not args.task:
        raise UsageError("list layers: give --task NAME ('ocd-bench list tasks')")
    folders = data_directories(args.data_dir)
    preset = args.preset or "quick"
    overrides = dict(parse_assignment(text) for text in args.assignments)
    manager = load_plugins(args.plugin, declared=True)
    task, methods = manager.task(args.task), list(manager.methods.values())
    check_overrides(overrides, known_sections(list(manager.tasks.values()), methods))
    resolve(task, methods, preset, overrides)

    from ocd_bench.runner.start import say_loading

    say_loading()
    manager.complete()

    from ocd_bench.layers import layers_of_task

    with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints must not get into the output of --json
        dataset, layers = layers_of_task(manager, args.task, args.dataset, preset, overrides, folders)
    if args.json:
        print(json.dumps({"task": args.task, "dataset": dataset, "layers": [layer.as_dict() for layer in layers]}, indent=1))
        return 0
    _print_rows(
        [
            {
                "layer": layer.name or "(the model itself)",
                "type": layer.kind,
                "weight": " x ".join(map(str, layer.shape)) or "–",
                "can be adapted": _adaptable(layer),
            }
            for layer in layers
        ]
    )
    print("--set select.layer=NAME chooses a layer.")
    return 0


def _adaptable(layer: Layer) -> str:
    if layer.reason:
        return f"no: {layer.reason}"
    return "yes" if layer.runs == 1 else f"yes; it runs {layer.runs} times"


# -- as text --------------------------------------------------------------------------------------------------------------
def _cells(kind: str, row: Mapping[str, Any]) -> Row:
    """The columns of a row, as text."""
    if kind == "tasks":
        what = row["description"] if row["available"] else row["reason"]
        return {"task": row["name"], "plugin": row["plugin"], "datasets": ", ".join(row["datasets"]), "description": what}
    if kind == "datasets":
        origin = "embedded" if row["embedded"] else "data folder"
        default = "default" if row["default"] else ""
        return {
            "dataset": row["name"],
            "task": row["task"],
            "from": origin,
            "default": default,
            "description": row["description"],
        }
    if kind == "methods":
        when = "default" if row["default"] else "on request"
        places = {(True, False): "A", (False, True): "B", (True, True): "A or B"}
        return {
            "method": row["name"],
            "plugin": row["plugin"],
            "runs": when,
            "in A+B": places.get((row["leads"], row["follows"]), ""),
            "description": row["description"],
        }
    hooks = ", ".join(hook.removeprefix("ocd_bench_") for hook in row["hooks"])
    return {"plugin": row["name"], "version": row["version"], "origin": row["origin"], "hooks": hooks}


def _print(kind: str, entries: Sequence[Row]) -> None:
    from ocd_bench.plugin.manager import NO_TASKS

    if not entries:
        print(NO_TASKS if kind in ("tasks", "datasets") else f"no {kind}")
        return
    _print_rows([_cells(kind, entry) for entry in entries])


def _print_rows(texts: Sequence[Row]) -> None:
    """A table: with lines on a terminal, plain and aligned elsewhere."""
    heads = list(texts[0])
    table = [[str(text[head]) for head in heads] for text in texts]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        pretty = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for head in heads:
            pretty.add_column(head, no_wrap=head == heads[0], overflow="fold")
        for cells in table:
            pretty.add_row(*map(Text, cells))
        Console().print(pretty)
        return
    widths = [max(map(len, column)) for column in zip(heads, *table, strict=True)]
    for cells in (heads, *table):
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
