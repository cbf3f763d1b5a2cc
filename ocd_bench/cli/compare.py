"""Test whether any row of a candidate run is worse than in a baseline run."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this command, and the thresholds."""
    parser = subparsers.add_parser(
        "compare",
        help="test a run against a baseline, for CI",
        description=__doc__,
        epilog="exit codes: 0 fine; 1 a row is worse or lost its number; 2 not comparable, or a row is missing; "
        "4 no row could be compared",
    )
    parser.add_argument("baseline", type=Path, metavar="BASELINE", help="run folder")
    parser.add_argument("candidate", type=Path, metavar="CANDIDATE", help="run folder")
    parser.add_argument(
        "--format", default="table", choices=("table", "markdown", "json", "junit"), help="default: %(default)s"
    )
    parser.add_argument(
        "--fail-on", default="regression", choices=("regression", "never"), help="when to exit with 1; default: %(default)s"
    )
    parser.add_argument(
        "--metrics", default="primary", choices=("primary", "all"), help="which metrics to test; default: %(default)s"
    )
    parser.add_argument("--thresholds", type=Path, metavar="FILE.toml", help="smallest losses that matter, by row")
    parser.add_argument("--allow-missing", action="store_true", help="rows of the baseline may be absent from the candidate")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of to stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare the two runs, print the result, and return the exit code."""
    from ocd_bench.api import compare
    from ocd_bench.cli.report import deliver

    comparison = compare(args.baseline, args.candidate, metrics=args.metrics, thresholds=args.thresholds)
    code = comparison.exit_code(args.fail_on, args.allow_missing)
    if args.format == "json":
        from ocd_bench.comparison.machine import render_json

        text = render_json(comparison, code)
    elif args.format == "junit":
        from ocd_bench.comparison.machine import render_junit

        text = render_junit(comparison, args.allow_missing)
    else:
        text = comparison.table(args.format)
    deliver(text, args.out)
    return code
