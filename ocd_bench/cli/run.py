"""Train base models, adapt them, measure, and print the comparison table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocd_bench.runner.run import Outcome
    from ocd_bench.runner.store import RunFolder


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this command."""
    parser = subparsers.add_parser("run", help="train, adapt, measure and print a comparison table", description=__doc__)
    parser.add_argument("--task", required=True, metavar="NAME[,NAME]|all", help="tasks to run ('ocd-bench list tasks')")
    parser.add_argument("--dataset", metavar="D[,D]", help="datasets; default: each task's first, which needs no download")
    parser.add_argument(
        "--corruption",
        metavar="KIND:SEVERITY[,...]",
        help="measure on corrupted test samples: gaussian_noise:3, all:3; 'none' adds the clean test set",
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where datasets lie, each in a folder of its name")
    parser.add_argument("--preset", default="default", metavar="quick|default|paper", help="sizes and training lengths")
    parser.add_argument("--methods", metavar="M[,M]|all", help="rows of the table ('ocd-bench list methods')")
    parser.add_argument("--seeds", metavar="N|S,S", help="how many seeds, or which (default: 3; 1 with --preset quick)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder; an unfinished one is continued")
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings by section")
    parser.add_argument("--set", action="append", default=[], dest="assignments", metavar="a.b=value", help="one setting")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:i]", help="where to compute")
    parser.add_argument("--offline", action="store_true", help="never use the network")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="a plugin that is not installed"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="worker processes, one (task, dataset, seed) each")
    parser.add_argument("--executor", default="local", choices=("local", "ray"), help="where workers run")
    parser.add_argument("--shard", metavar="I/N", help="only the I-th of N parts; join them with 'ocd-bench merge'")
    parser.add_argument("--json", action="store_true", help="cells as JSON on stdout in place of the table")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run, print, and return the exit code."""
    from ocd_bench.config import PRESETS, check_overrides, known_sections, nearest, parse_assignment, read_toml
    from ocd_bench.errors import UsageError
    from ocd_bench.folders import data_directories
    from ocd_bench.plugin.manager import load_plugins
    from ocd_bench.runner.cells import parse_seeds, parse_shard

    if args.preset not in PRESETS:
        raise UsageError(f"--preset {args.preset!r}: unknown{nearest(args.preset, PRESETS)}; presets: {', '.join(PRESETS)}")
    if args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs}: expected 1 or more")
    from_file = read_toml(args.config) if args.config else {}
    assigned = dict(parse_assignment(text) for text in args.assignments)

    from ocd_bench.runner.run import Order, default_folder, execute, plan
    from ocd_bench.runner.store import RunFolder

    order = Order(
        tasks=_names(args.task, "--task"),
        dataset=args.dataset,
        corruption=args.corruption,
        methods=_names(args.methods, "--methods") if args.methods is not None else (),
        preset=args.preset,
        seeds=parse_seeds(args.seeds or ("1" if args.preset == "quick" else "3")),
        overrides={**from_file, **assigned},
        data_dirs=data_directories(args.data_dir),
        offline=args.offline,
        device=args.device,
        plugins=tuple(args.plugin),
        shard=parse_shard(args.shard),
        jobs=args.jobs,
        executor=args.executor,
    )
    manager = load_plugins(order.plugins)
    if from_file:
        sections = known_sections(list(manager.tasks.values()), list(manager.methods.values()))
        check_overrides(from_file, sections, f"--config {args.config}")
    groups, left_out = plan(order, manager)

    from ocd_bench.runner.machine import choose_device
    from ocd_bench.runner.progress import ConsoleReporter

    choose_device(order.device)
    folder = RunFolder(args.out or default_folder(order, groups))
    total = sum(len(group.methods) * len(group.variants) for group in groups)
    with ConsoleReporter(total, args.quiet) as reporter:
        for line in left_out:
            reporter.note(line)
        outcome = execute(order, groups, folder, manager, reporter)
    _print(outcome, folder, manager, args)
    return outcome.exit_code


def _names(text: str, option: str) -> tuple[str, ...]:
    from ocd_bench.errors import UsageError

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError(f"{option}: expected at least one name, or all")
    return names


def _print(outcome: Outcome, folder: RunFolder, manager: Any, args: argparse.Namespace) -> None:
    """The table (or the cells as JSON) on stdout, table.md in the run folder, where it all lies on stderr."""
    import json

    from ocd_bench.report import build_table, render
    from ocd_bench.results import read_run

    cells = outcome.cells
    path = folder.path
    if cells:
        table = build_table(read_run(path), columns=manager.hook.ocd_bench_report_columns)
        folder.write_table(render(table, "markdown"))
        if not args.json:
            print(render(table, "table"))
    if args.json:
        print(json.dumps({"run": str(path), "exit_code": outcome.exit_code, "cells": cells}, indent=1))
    if not args.quiet:
        state = "interrupted; the same command continues" if outcome.interrupted else "run folder"
        print(f"{state}: {path}", file=sys.stderr)
