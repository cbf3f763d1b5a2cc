"""Show the comparison table of stored runs, in any format."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this command."""
    parser = subparsers.add_parser("report", help="show stored runs as a table or a page", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders; several are shown as one")
    parser.add_argument(
        "--format", default="table", choices=("table", "markdown", "csv", "latex", "html"), help="default: %(default)s"
    )
    parser.add_argument(
        "--leaderboard", action="store_true", help="methods by tasks and datasets, with ranks, in place of the tables"
    )
    parser.add_argument(
        "--against", default="base", metavar="METHOD", help="the row that all others are compared with; default: %(default)s"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="also write every plot of the page into a folder")
    parser.add_argument(
        "--plot-format", default="svg", choices=("svg", "png"), help="default: %(default)s; png needs ocd-bench[png]"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of to stdout")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="a plugin whose columns or sections to add"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print or write the report, and return the exit code: 4 if the runs have no numbers."""
    from ocd_bench.api import load

    stored = load(*args.runs, plugins=args.plugin, against=args.against)
    if args.plots is not None:
        written = stored.plots(args.plots, args.plot_format)
        print(f"{len(written)} plots: {args.plots}", file=sys.stderr)
    deliver(stored.table(args.format, leaderboard=args.leaderboard), args.out)
    return 0 if any(cell["status"] == "ok" for cell in stored.cells.values()) else 4


def deliver(text: str, out: Path | None) -> None:
    """``text`` to a file, atomically, or to stdout.

    Raises:
        UsageError: if the file cannot be written.
    """
    from ocd_bench.errors import UsageError
    from ocd_bench.results import write_atomic

    if out is None:
        sys.stdout.write(text)
        return
    try:
        write_atomic(out, text.encode("utf-8"))
    except OSError as error:
        raise UsageError(f"--out {out}: cannot write there: {error.strerror or error}") from error
