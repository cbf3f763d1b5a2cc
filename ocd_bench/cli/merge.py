"""Join the shards of a run, or runs of different tasks, into one run folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this command."""
    parser = subparsers.add_parser("merge", help="join run folders into one", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, such as the shards of one run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new run folder")
    parser.add_argument(
        "--allow-missing", action="store_true", help="also if cells or shards are missing; otherwise the exit code is 3"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge and return 0, or 3 if something is missing. Then nothing is written, unless ``--allow-missing`` is given."""
    from ocd_bench.merging import merge_runs, missing, write_merged
    from ocd_bench.results import read_run

    runs = [read_run(path) for path in args.runs]
    merged = merge_runs(runs)
    shards, cells = missing(runs)
    if shards or cells:
        print(f"ocd-bench: {_described(shards, [key.stem for key in cells])}", file=sys.stderr)
        if not args.allow_missing:
            print("ocd-bench: nothing is written; measure them first, or give --allow-missing", file=sys.stderr)
            return 3
    write_merged(merged, args.runs, args.out)
    from ocd_bench.report import build_table, render
    from ocd_bench.results import write_atomic

    write_atomic(args.out / "table.md", render(build_table(merged), "markdown").encode("utf-8"))
    counts = ((len(merged.cells), "cell"), (len(args.runs), "run"))
    said = " of ".join(f"{count} {what}{'s' * (count != 1)}" for count, what in counts)
    print(f"{said}: {args.out}", file=sys.stderr)
    return 0


def _described(shards: Sequence[str], cells: Sequence[str]) -> str:
    """What is missing, in one line."""
    parts = []
    if shards:
        parts.append(f"shard {', '.join(shards)}")
    if cells:
        more = f" and {len(cells) - 5} more" if len(cells) > 5 else ""
        parts.append(f"{len(cells)} cell{'s' if len(cells) > 1 else ''}: {', '.join(cells[:5])}{more}")
    return f"missing: {'; '.join(parts)}"
