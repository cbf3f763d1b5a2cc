"""Train base models, adapt them, measure, and print the comparison table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocd_bench.plugin.manager import Manager
    from ocd_bench.runner.order import Outcome, RunRequest
    from ocd_bench.runner.start import Planned


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this command."""
    parser = subparsers.add_parser("run", help="train, adapt, measure and print a comparison table", description=__doc__)
    parser.add_argument("--task", metavar="NAME[,NAME]|all", help="tasks to run ('ocd-bench list tasks')")
    parser.add_argument("--dataset", metavar="D[,D]", help="datasets; default: each task's first, which needs no download")
    parser.add_argument(
        "--corruption",
        metavar="KIND:SEVERITY|SET:SEVERITY[,...]",
        help="measure on corrupted test samples: a kind (gaussian_noise:3) or a set of the task's (cifar10-c:5, all:3); "
        "'none' adds the clean test set",
    )
    parser.add_argument(
        "--stream",
        metavar="S[,S]",
        help="order of the test samples: iid (default: that of the data), sorted (by class), dirichlet:A (label shift), mixed "
        "(corruptions within a batch), continual (one corruption after the other, no reset)",
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of the datasets, each in a folder of its name")
    parser.add_argument("--preset", metavar="quick|default|paper", help="sizes and training lengths (default: default)")
    parser.add_argument(
        "--methods", metavar="M[,M]|all", help="methods to measure, one row of the table each ('ocd-bench list methods')"
    )
    parser.add_argument("--seeds", metavar="N|S,S", help="how many seeds, or which (default: 3; 1 with --preset quick)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder; an unfinished one is continued")
    parser.add_argument(
        "--config", type=Path, metavar="FILE.toml|run.json", help="settings by section; the run.json of a run folder repeats it"
    )
    parser.add_argument("--set", action="append", default=[], dest="assignments", metavar="a.b=value", help="one setting")
    parser.add_argument("--device", metavar="auto|cpu|cuda[:i]", help="where to compute (default: auto)")
    parser.add_argument("--offline", action="store_true", help="never use the network")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="a plugin that is not installed"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="worker processes, one (task, dataset, seed) each")
    parser.add_argument(
        "--executor", default="local", choices=("local", "ray"), help="where workers run: this machine, or a ray cluster"
    )
    parser.add_argument(
        "--cell-timeout",
        type=float,
        metavar="SECONDS",
        help="time limit of a step (data, base model, fit and test of one method); a step that exceeds it is a failed cell",
    )
    parser.add_argument(
        "--bases", type=Path, metavar="DIR", help="use the base models stored there; the row base-anew shows those trained here"
    )
    parser.add_argument("--keep-bases", action="store_true", help="store the base models in the run folder, for --bases")
    parser.add_argument("--shard", metavar="I/N", help="only the I-th of N parts; join them with 'ocd-bench merge'")
    parser.add_argument(
        "--dry-run", action="store_true", help="say which cells would be measured, what is cached and how long it takes"
    )
    parser.add_argument("--json", action="store_true", help="print cells as JSON instead of the table")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run, print the table, and return the exit code."""
    from ocd_bench.config import check_overrides, known_sections

    request, from_file = _request(args)

    from ocd_bench.heap import keep_freed_memory
    from ocd_bench.runner.start import measure, prepare

    def check(manager: Manager) -> None:
        sections = known_sections(list(manager.tasks.values()), list(manager.methods.values()))
        check_overrides(from_file, sections, f"--config {args.config}")

    planned = prepare(request, args.out, check, quiet=args.quiet)
    repeated = args.config if args.config is not None and args.config.suffix == ".json" else None
    if args.dry_run:
        return _dry_run(planned, repeated, args.json, args.quiet)
    keep_freed_memory()
    outcome, path = measure(planned, args.quiet, repeated)
    _print(outcome, path, planned.manager, args)
    return outcome.exit_code


def _dry_run(planned: Planned, repeated: Path | None, as_json: bool, quiet: bool) -> int:
    """Print what a run would do."""
    import json

    from ocd_bench.runner import forecast
    from ocd_bench.runner.start import check_defaults

    if repeated is not None:
        check_defaults(planned, repeated, quiet)
    work = list(forecast.forecast(planned))
    print(json.dumps(forecast.as_json(planned, work), indent=1) if as_json else forecast.as_text(planned, work))
    return 0


def _request(args: argparse.Namespace) -> tuple[RunRequest, dict[str, Any]]:
    """The request from the options, and the settings from a TOML file. Options that are not given come from a run.json given
    with ``--config``."""
    from ocd_bench.config import PRESETS, nearest, parse_assignment, read_toml
    from ocd_bench.errors import UsageError
    from ocd_bench.folders import data_directories
    from ocd_bench.runner.cells import parse_seeds, parse_shard
    from ocd_bench.runner.order import RunRequest, read_request
    from ocd_bench.runner.stored import check_folder

    earlier: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    from_file: dict[str, Any] = {}
    if args.config is not None and args.config.suffix == ".json":
        earlier = read_request(args.config)
        overrides = dict(earlier["overrides"])
    elif args.config is not None:
        overrides = from_file = read_toml(args.config)
    overrides = {**overrides, **dict(parse_assignment(text) for text in args.assignments)}
    preset = args.preset if args.preset is not None else earlier.get("preset", "default")
    if args.task is None and not earlier:
        raise UsageError("run: give --task NAME, or --config RUN/run.json to repeat a run (see ocd-bench run --help)")
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset!r}: unknown{nearest(preset, PRESETS)}; presets: {', '.join(PRESETS)}")
    if not 1 <= args.jobs <= 1024:
        raise UsageError(f"--jobs {args.jobs}: expected 1 to 1024")
    if args.cell_timeout is not None and not 0 < args.cell_timeout < 1e9:
        raise UsageError(f"--cell-timeout {args.cell_timeout}: expected a number of seconds above 0")
    seeds = (
        parse_seeds(args.seeds) if args.seeds is not None else earlier.get("seeds", tuple(range(1 if preset == "quick" else 3)))
    )
    request = RunRequest(
        tasks=_names(args.task, "--task") if args.task is not None else earlier["tasks"],
        dataset=args.dataset if args.dataset is not None else earlier.get("dataset"),
        corruption=args.corruption if args.corruption is not None else earlier.get("corruption"),
        stream=args.stream if args.stream is not None else earlier.get("stream"),
        methods=_names(args.methods, "--methods") if args.methods is not None else earlier.get("methods", ()),
        preset=preset,
        seeds=seeds,
        overrides=overrides,
        data_dirs=data_directories(args.data_dir),
        offline=args.offline,
        device=_device(args.device if args.device is not None else earlier.get("device", "auto"), args.executor, overrides),
        plugins=tuple(args.plugin) or earlier.get("plugins", ()),
        shard=parse_shard(args.shard),
        jobs=args.jobs,
        executor=args.executor,
        cell_timeout=args.cell_timeout,
        bases=None if args.bases is None else check_folder(args.bases),
        keep_bases=args.keep_bases,
    )
    return request, from_file


def _device(text: str, executor: str, overrides: Mapping[str, Any]) -> str:
    """The device. On a ray cluster all machines must use the same kind, whatever they have: a GPU if GPUs are reserved."""
    from ocd_bench.config import RaySettings

    if executor != "ray" or text != "auto":
        return text
    return "cuda" if RaySettings.of(overrides).gpus > 0 else "cpu"


def _names(text: str, option: str) -> tuple[str, ...]:
    from ocd_bench.errors import UsageError

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError(f"{option}: expected at least one name, or all")
    return names


def _print(outcome: Outcome, path: Path, manager: Manager, args: argparse.Namespace) -> None:
    """Print the table (or the cells as JSON) on stdout, write table.md into the run folder, and print its path on stderr."""
    import contextlib
    import json

    from ocd_bench.api import Run
    from ocd_bench.errors import OCDBenchError
    from ocd_bench.results import read_run

    stored = None
    if outcome.cells or outcome.stopped:  # for an interrupted run, all cells in the folder, also those of earlier runs
        try:
            stored = read_run(path)
        except OCDBenchError as error:  # the disk was full, or another program writes to this folder
            outcome.problems.append(str(error))
            print(f"ocd-bench: error: {error}", file=sys.stderr)
    if stored is not None and stored.cells:
        run = Run(stored, _given=manager)
        with contextlib.redirect_stdout(sys.stderr):  # a plugin's column may print
            text = run.table() if not args.json else ""
            try:
                run.write_table()
            except OSError as error:
                outcome.problems.append(f"{path / 'table.md'}: {error.strerror or error}")
                print(f"ocd-bench: error: cannot write {outcome.problems[-1]}", file=sys.stderr)
        if not args.json:
            print(text)
    if args.json:
        cells = list(stored.cells.values()) if outcome.stopped and stored is not None else outcome.cells
        print(json.dumps({"run": str(path), "exit_code": outcome.exit_code, "cells": cells}, indent=1))
    if path.is_dir() and (not args.quiet or outcome.stopped):
        state = "interrupted; the same command continues" if outcome.stopped else "run folder"
        print(f"{state}: {path}", file=sys.stderr)
