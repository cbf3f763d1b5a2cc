"""Write a commented TOML file of all settings, for 'ocd-bench run --config'."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocd_bench.reference import Row

WIDTH = 100
DEFAULT = Path("ocd-bench.toml")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``config new [FILE]``."""
    from ocd_bench.cli import add_plugin_option

    parser = subparsers.add_parser("config", help="write a commented file of all settings", description=__doc__)
    actions = parser.add_subparsers(dest="action", metavar="new", required=True)
    new = actions.add_parser("new", help="write a TOML file of all settings, commented out", description=__doc__)
    new.add_argument(
        "file", nargs="?", type=Path, default=DEFAULT, metavar="FILE", help=f"path of the new file (default: {DEFAULT})"
    )
    new.add_argument(
        "--preset", default="default", metavar="quick|default|paper", help="preset whose values are written (default: default)"
    )
    new.add_argument(
        "--task", metavar="NAME", help="of the tasks' sections, write only this one; use the values that this task chooses"
    )
    add_plugin_option(new)


def run(args: argparse.Namespace) -> int:
    """Write the file, and return 0."""
    from ocd_bench.config import check_preset
    from ocd_bench.errors import UsageError
    from ocd_bench.plugin.manager import load_plugins
    from ocd_bench.reference import rows

    check_preset(args.preset)
    manager = load_plugins(args.plugin, declared=True)
    tasks = [manager.task(args.task)] if args.task else list(manager.tasks.values())
    text = document(rows(tasks, list(manager.methods.values())), args.preset, args.task)
    try:
        with args.file.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{args.file} exists already and was not changed; give another name") from None
    except OSError as error:
        raise UsageError(f"cannot write {args.file}: {error.strerror or error}") from error
    print(
        f"{args.file}: remove the # before a value and change it; then: ocd-bench run --config {args.file}",
        file=sys.stderr,
    )
    return 0


def document(found: Sequence[Row], preset: str, task: str | None) -> str:
    """The TOML text: one table per section, every setting commented out with its value under ``preset``."""
    import textwrap

    from ocd_bench.reference import as_toml, by_section

    def comment(text: str) -> list[str]:
        return textwrap.wrap(text, WIDTH, initial_indent="## ", subsequent_indent="## ", break_on_hyphens=False)

    which = f"--task {task} --preset {preset}" if task else f"--preset {preset}"
    lines = [
        *comment(f"Settings of OCD-Bench, with the values of {which}. Remove the single # in front of what you change."),
        "",
    ]
    for section, own in by_section(found).items():
        lines += [f"[{section}]", ""]
        for row in own:
            value = row.tasks[preset].get(task, row.values[preset]) if task else row.values[preset]
            unit = f" [{row.known.unit}]" if row.known.unit else ""
            others = "" if task else "; ".join(f"{name}: {as_toml(other)}" for name, other in row.tasks[preset].items())
            lines += comment(" ".join(filter(None, [row.known.help, f"Accepted: {row.expected}{unit}."])))
            lines += comment(f"Chosen by tasks: {others}.") if others else []
            lines += [f"# {row.name} = {as_toml(value)}", ""]
    return "\n".join(lines)
