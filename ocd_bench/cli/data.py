"""List the datasets of all tasks, download them from their official addresses, verify the files that are present."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocd_bench.data.catalogue import Entry


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``data list|fetch|verify [NAME ...]``."""
    parser = subparsers.add_parser("data", help="list, fetch and verify datasets", description=__doc__)
    parser.add_argument("action", choices=("list", "fetch", "verify"), help="what to do")
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets; default: all that can be downloaded")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder of the datasets; default: $OCD_BENCH_DATA or the cache folder"
    )
    parser.add_argument("--offline", action="store_true", help="do not use the network; list the missing files")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="a plugin not installed")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the action and return the exit code."""
    import json

    from ocd_bench.data.catalogue import catalogue, choose
    from ocd_bench.folders import data_directories
    from ocd_bench.plugin.manager import load_plugins

    if args.action == "fetch" and args.data_dir:
        args.data_dir.mkdir(parents=True, exist_ok=True)
    manager = load_plugins(args.plugin)
    entries = catalogue(manager.tasks)
    directories = data_directories(args.data_dir)
    if args.action == "list":
        rows = [_row(entry, directories) for entry in (choose(entries, args.names) if args.names else entries)]
        if args.json:
            print(json.dumps({"datasets": rows}, indent=1))
        else:
            for row in rows:
                size = f"{row['bytes'] / 1e6:,.1f} MB" if row["bytes"] else ""
                print(
                    f"{row['task']:<10} {row['name']:<26} {row['where']:<12} {size:>12}  {row['licence'] or row['description']}"
                )
        return 0
    chosen = choose(entries, args.names)
    if args.action == "fetch":
        return _fetch(chosen, directories[0], args.offline)
    return _verify(chosen, directories, args.json)


def _row(entry: Entry, directories: tuple[Path, ...]) -> dict[str, Any]:
    dataset = entry.dataset
    folder = next((d / entry.folder for d in directories if (d / entry.folder).exists()), None)
    where = "embedded" if dataset.embedded else "here" if folder else "downloadable" if dataset.sources else "by hand"
    return {
        "task": entry.task,
        "name": dataset.name,
        "description": dataset.description,
        "where": where,
        "folder": str(folder) if folder and not dataset.embedded else None,
        "bytes": sum(source.size for source in dataset.sources),
        "licence": dataset.licence,
        "citation": dataset.citation,
        "homepage": dataset.homepage,
    }


def _fetch(chosen: list[Entry], directory: Path, offline: bool) -> int:
    """Download missing files into the first data directory."""
    from ocd_bench.data.fetch import fetch, state
    from ocd_bench.errors import UsageError

    missing: list[str] = []
    by_hand: list[str] = []
    for entry in chosen:
        dataset, folder = entry.dataset, directory / entry.folder
        if dataset.embedded:
            print(f"{dataset.name}: embedded, nothing to fetch")
            continue
        if not dataset.sources:
            place = dataset.homepage or "its documentation"
            by_hand.append(f"{dataset.name} cannot be downloaded automatically; see {place} and put it into {folder}")
            continue
        for source in dataset.sources:
            if offline:
                if state(folder, source) != "ok":
                    missing.append(f"{dataset.name}/{source.path}")
            elif fetch(folder, source, _tell):
                print(f"{dataset.name}: fetched {folder / source.path}")
            else:
                print(f"{dataset.name}: {folder / source.path} exists already")
    if by_hand:
        raise UsageError("; ".join(by_hand))
    if missing:
        raise UsageError(f"--offline: missing or corrupted: {', '.join(missing)}")
    return 0


def _tell(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB", end="\n" if done >= total else "", file=sys.stderr)


OTHER = "other form"
"""The state of a recorded file whose dataset is there in another form, which cannot be verified."""


def _verify(chosen: list[Entry], directories: tuple[Path, ...], as_json: bool) -> int:
    """0 if every present file matches its recorded sha256, 2 if one is corrupted, 4 if no file is present."""
    import json

    from ocd_bench.data.fetch import state

    rows = []
    for entry in chosen:
        folders = [directory / entry.folder for directory in directories]
        recorded = any((folder / source.path).exists() for folder in folders for source in entry.dataset.sources)
        other = None if recorded else next((folder for folder in folders if folder.exists()), None)
        for source in entry.dataset.sources:
            folder = next((folder for folder in folders if (folder / source.path).exists()), other)
            found = OTHER if other else state(folder, source) if folder else "absent"
            rows.append(
                {"dataset": entry.dataset.name, "file": source.path, "folder": str(folder) if folder else None, "state": found}
            )
    if as_json:
        print(json.dumps({"files": rows}, indent=1))
    else:
        for row in rows:
            print(f"{row['state']:<10} {row['dataset']}/{row['file']}")
        if any(row["state"] == OTHER for row in rows):
            print(f"{OTHER}: the dataset's folder is there with other files, for which no sha256 is recorded", file=sys.stderr)
    states = {row["state"] for row in rows}
    if "corrupted" in states:
        bad = next(row for row in rows if row["state"] == "corrupted")
        print(
            f"ocd-bench: error: {bad['folder']}/{bad['file']} is not the recorded file; delete it and fetch it again",
            file=sys.stderr,
        )
        return 2
    return 0 if "ok" in states else 4
