"""Join the shards of a run, or runs of different tasks, into one run folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this command."""
    parser = subparsers.add_parser("merge", help="join run folders into one", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, such as the shards of one run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new run folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge and return 0."""
    from ocd_bench.results import merge_runs, read_run, write_merged

    merged = merge_runs([read_run(path) for path in args.runs])
    write_merged(merged, args.runs, args.out)
    from ocd_bench.report import build_table, render
    from ocd_bench.results import write_atomic

    write_atomic(args.out / "table.md", render(build_table(merged), "markdown").encode("utf-8"))
    print(f"{len(merged.cells)} cells of {len(args.runs)} runs: {args.out}", file=sys.stderr)
    return 0
