"""``ocd-bench cache``: list, verify and remove what is stored between runs (trained base models, embeddings)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

KINDS_HELP = "bases, embeddings, stages, finished, times (default: all; for list the first three)"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``cache list``, ``cache verify``, ``cache clear``."""
    parser = subparsers.add_parser(
        "cache",
        help="list, verify or clear what is stored between runs",
        description="List, verify or clear trained base models and other results that are stored between runs. Downloaded "
        "datasets are not touched: see 'ocd-bench data'.",
    )
    commands = parser.add_subparsers(dest="action", metavar="list|verify|clear", required=True)
    for name, text in (
        ("list", "show every entry with its size and age"),
        ("verify", "read every file and compare it with its sha256; exit code 2 if one is damaged"),
        ("clear", "remove entries; they are computed again when they are needed"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "kinds",
            nargs="*",
            metavar="KIND",
            help=KINDS_HELP,
        )
        if name == "clear":
            command.add_argument(
                "--older-than",
                type=float,
                default=0.0,
                metavar="DAYS",
                help="only entries that are at least this many days old",
            )
        else:
            command.add_argument("--json", action="store_true", help="JSON on stdout")
        command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the action and return the exit code."""
    from ocd_bench.cache import KINDS, NOTES, clear, listed
    from ocd_bench.config import nearest
    from ocd_bench.errors import UsageError
    from ocd_bench.folders import cache_folder

    for kind in args.kinds:
        if kind not in KINDS:
            raise UsageError(f"cache {args.action} {kind!r}: unknown{nearest(kind, KINDS)}; kinds: {', '.join(KINDS)}")
    if cache_folder().exists() and not cache_folder().is_dir():
        raise UsageError(f"cache {args.action}: {cache_folder()}: not a folder (set OCD_BENCH_CACHE)")
    kinds = tuple(dict.fromkeys(args.kinds)) or KINDS
    if args.action == "clear":
        try:
            count, size = clear(kinds, args.older_than * 86_400)
        except OSError as error:
            raise UsageError(f"cache clear: {error.filename or cache_folder()}: {error.strerror or error}") from error
        print(f"removed {_files(count)}, {_size(size)}: {cache_folder()}", file=sys.stderr)
        return 0
    if args.action == "list" and not args.kinds:
        kinds = tuple(kind for kind in KINDS if kind not in NOTES)
    found = list(listed(kinds, verify=args.action == "verify"))
    if args.json:
        rows = [{"kind": e.kind, "file": str(e.path), "bytes": e.size, "problem": e.problem or None} for e in found]
        print(json.dumps(rows, indent=1))
    else:
        _print(found)
    damaged = [entry for entry in found if entry.problem and args.action == "verify"]
    if not args.json:
        print(f"{_files(len(found))}, {_size(sum(entry.size for entry in found))}: {cache_folder()}", file=sys.stderr)
    if damaged:
        print(
            f"{_files(len(damaged))} unusable: run again (computed again when needed), or 'ocd-bench cache clear'",
            file=sys.stderr,
        )
        return 2
    return 0


def _print(found: Sequence[Any]) -> None:
    for entry in found:
        age = f"{entry.age_s / 86_400:.0f} d" if entry.age_s >= 86_400 else f"{entry.age_s / 3600:.1f} h"
        tail = f"  {entry.problem}" if entry.problem else ""
        print(f"{entry.kind:<11}{_size(entry.size):>10}  {age:>7}  {entry.path.name}{tail}")


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
