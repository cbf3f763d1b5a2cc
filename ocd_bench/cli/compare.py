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
        epilog="exit codes: 0 fine; 1 a row is worse, lost its number, or lost 5 points or more and cannot be judged; 2 a row "
        "is missing, or is another experiment; 4 nothing could be told",
    )
    parser.add_argument("baseline", type=Path, metavar="BASELINE", help="run folder")
    parser.add_argument("candidate", type=Path, metavar="CANDIDATE", help="run folder")
    parser.add_argument(
        "--format", default="table", choices=("table", "markdown", "html", "json", "junit"), help="default: %(default)s"
    )
    parser.add_argument(
        "--fail-on",
        default="regression",
        choices=("regression", "cannot-tell", "never"),
        help="when to exit with 1: cannot-tell also for every row that cannot be judged; default: %(default)s",
    )
    parser.add_argument(
        "--metrics", default="primary", choices=("primary", "all"), help="which metrics to test; default: %(default)s"
    )
    parser.add_argument("--thresholds", type=Path, metavar="FILE.toml", help="smallest losses that matter, by row")
    parser.add_argument(
        "--allow-missing", action="store_true", help="rows and seeds of the baseline may be absent from the candidate"
    )
    parser.add_argument(
        "--across-settings", action="store_true", help="compare rows with other settings too, and name the settings"
    )
    parser.add_argument("--all-rows", action="store_true", help="show rows that did not change too")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of to stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare the two runs, print the result, and return the exit code."""
    from ocd_bench.api import compare
    from ocd_bench.cli.report import deliver
    from ocd_bench.comparison.machine import not_compared
    from ocd_bench.errors import UsageError

    try:
        comparison = compare(
            args.baseline,
            args.candidate,
            metrics=args.metrics,
            thresholds=args.thresholds,
            across_settings=args.across_settings,
        )
    except UsageError as error:
        if args.out is not None:
            deliver(not_compared(args.baseline, args.candidate, str(error), args.format), args.out)
        raise
    code = comparison.exit_code(args.fail_on, args.allow_missing)
    if args.format == "json":
        from ocd_bench.comparison.machine import render_json

        text = render_json(comparison, code)
    elif args.format == "junit":
        from ocd_bench.comparison.machine import render_junit

        text = render_junit(comparison, args.allow_missing, args.fail_on)
    else:
        text = comparison.table(args.format, all_rows=args.all_rows)
    deliver(text, args.out)
    return code
