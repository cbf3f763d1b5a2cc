"""Write a new plugin, check one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocd_bench.plugin.manager import Manager

CHECK_FAILED = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``new`` and ``check``."""
    parser = subparsers.add_parser("plugin", help="write a new plugin, check one", description=__doc__)
    actions = parser.add_subparsers(dest="action", metavar="new|check", required=True)
    new = actions.add_parser("new", help="write an installable distribution with a small working task or method")
    new.add_argument("name", metavar="NAME", help="of the task or method: a-z, 0-9 and '-'")
    new.add_argument("--kind", default="task", choices=("task", "method"), metavar="task|method", help="default: task")
    new.add_argument("--out", type=Path, metavar="DIR", help="its folder, new or empty (default: ocd-bench-NAME)")
    check = actions.add_parser(
        "check",
        help="run the conformance kit on a plugin's tasks and methods",
        description="One line per check. Exit code 0: all passed, 2: the plugin cannot be loaded, 3: some check failed.",
    )
    check.add_argument("name", metavar="NAME|FILE.py", help="an installed plugin or its distribution, a file or a module")
    check.add_argument("--dataset", metavar="D", help="check tasks on this dataset (default: each task's first)")
    check.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of the datasets, each in a folder of its name")


def run(args: argparse.Namespace) -> int:
    """Run the action, and return the exit code."""
    return _new(args) if args.action == "new" else _check(args)


def _new(args: argparse.Namespace) -> int:
    from ocd_bench.plugin.scaffold import write_plugin

    files = write_plugin(args.name, args.kind, args.out)
    for path in files:
        print(path)
    folder = args.out or files[0].parent
    print(f"next: pip install -e {folder} && ocd-bench plugin check {args.name}", file=sys.stderr)
    return 0


def _load(name: str, warn: Callable[[str], None]) -> tuple[Manager, str]:
    """A manager with the core and this plugin only, and the plugin's name in it."""
    from ocd_bench.plugin.manager import load_plugins
    from ocd_bench.plugin.sources import CORE, installed, is_file, is_module

    if name == CORE.name:
        return load_plugins(only=(), warn=warn), name
    known = {text for source in installed() for text in (source.name, source.origin)}
    if name not in known and (is_file(name) or is_module(name)):
        manager = load_plugins([name], only=(), warn=warn)
    else:
        manager = load_plugins(only=[name], warn=warn)
    return manager, str(manager.describe()[-1]["name"])


def _check(args: argparse.Namespace) -> int:
    warnings: list[str] = []
    manager, name = _load(args.name, warnings.append)
    tasks = [task for task in manager.tasks.values() if manager.owner(task) == name]
    methods = [method for method in manager.methods.values() if manager.owner(method) == name]
    failed = 0
    for line in warnings:
        own = line.startswith(f"plugin {name!r}")
        failed += own
        print(f"FAIL  {line}" if own else f"ocd-bench: warning: {line}", file=sys.stdout if own else sys.stderr)
    if not tasks and not methods and not failed:
        hooks = ", ".join(manager.describe()[-1]["hooks"])
        print(f"plugin {name}: no task or method to check; hooks: {hooks or 'none'}")
        return 0

    from ocd_bench.folders import data_directories
    from ocd_bench.runner.start import say_loading

    say_loading()

    from ocd_bench.testing import check_method, check_task

    folders = data_directories(args.data_dir)
    for kind, items in (("task", tasks), ("method", methods)):
        for item in items:
            if kind == "task":
                results = check_task(item, dataset=args.dataset, data_dirs=folders)  # type: ignore[arg-type]
            else:
                results = check_method(item)  # type: ignore[arg-type]
            for result in results:
                print(f"{kind} {item.name}  {result}", flush=True)
            failed += sum(result.status == "failed" for result in results)
    print(f"{failed} check{'s' if failed > 1 else ''} failed" if failed else "all checks passed", file=sys.stderr)
    return CHECK_FAILED if failed else 0
