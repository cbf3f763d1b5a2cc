"""List the tasks, datasets, methods, plugins and settings that are there, as text or JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocd_bench.plugin.manager import Manager
    from ocd_bench.task import Dataset, Task

KINDS = ("tasks", "datasets", "methods", "plugins")
"""What is listed without an argument."""

Row = dict[str, Any]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``list [KIND]`` and ``list settings [SECTION]``."""
    from ocd_bench.cli import add_plugin_option

    parser = subparsers.add_parser("list", help="list tasks, datasets, methods, plugins and settings", description=__doc__)
    words = (*KINDS, "settings")
    parser.add_argument("kind", nargs="?", choices=words, metavar="|".join(words), help="default: all but settings")
    parser.add_argument("section", nargs="?", metavar="SECTION", help="with settings: one section, or one key 'section.name'")
    parser.add_argument("--preset", metavar="quick|default|paper", help="with settings: whose values to show")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print the list, and return 0."""
    import json

    from ocd_bench.errors import UsageError
    from ocd_bench.plugin.manager import load_plugins

    for name in ("section", "preset"):
        if args.kind != "settings" and getattr(args, name) is not None:
            what = f"unknown argument {args.section!r}" if name == "section" else "--preset is only for settings"
            raise UsageError(f"list: {what} (see ocd-bench list --help)")
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
    uses_test_labels, section (or null), plugin. plugins: name, version, origin, hooks.
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
        when = "default" if row["default"] else "when named"
        return {"method": row["name"], "plugin": row["plugin"], "runs": when, "description": row["description"]}
    hooks = ", ".join(hook.removeprefix("ocd_bench_") for hook in row["hooks"])
    return {"plugin": row["name"], "version": row["version"], "origin": row["origin"], "hooks": hooks}


def _print(kind: str, entries: Sequence[Row]) -> None:
    from ocd_bench.plugin.manager import NO_TASKS

    if not entries:
        print(NO_TASKS if kind in ("tasks", "datasets") else f"no {kind}")
        return
    texts = [_cells(kind, entry) for entry in entries]
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
