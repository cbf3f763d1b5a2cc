"""Runs the command line once. The other scripts in this folder use it to compare several runs."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ocd_bench.results import read_run


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that the scripts share."""
    parser.add_argument("--task", default="images")
    parser.add_argument("--dataset", default="")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")


@contextmanager
def finished(
    args: argparse.Namespace,
    methods: str,
    settings: Sequence[str] = (),
    options: Sequence[str] = (),
    keep: Path | None = None,
) -> Iterator[tuple[Path, str]]:
    """The folder of ``ocd-bench run``, while the context lasts, and the output of ``--json``. If the run fails, the script ends
    with its message. A run in the folder ``keep`` stays there, and continues what is there."""
    command = [sys.executable, "-m", "ocd_bench", "run", "--json", "--quiet", "--methods", methods]
    command += ["--task", args.task, "--preset", args.preset, "--seeds", str(args.seeds)]
    for option in ("dataset", "data_dir"):
        if value := getattr(args, option):
            command += [f"--{option.replace('_', '-')}", value]
    command += options
    for setting in [*args.set, *settings]:
        command += ["--set", setting]
    with nullcontext(keep) if keep is not None else tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            said = [done.stderr.strip(), *failures(Path(folder))]
            sys.exit("\n".join(filter(None, said)) or f"ocd-bench ended with {done.returncode}")
        yield Path(folder), done.stdout


def failures(folder: Path) -> list[str]:
    """The failed cells of a run folder, each with its reason; none where there is no run."""
    if not (folder / "run.json").exists():
        return []
    cells = read_run(folder).cells.items()
    return [
        f"{key.method}, {key.dataset}, seed {key.seed}: {cell['reason']}" for key, cell in cells if cell["status"] == "failed"
    ]


def run(args: argparse.Namespace, methods: str, settings: Sequence[str] = (), options: Sequence[str] = ()) -> tuple[str, str]:
    """The output of ``ocd-bench run --json``, and the table in Markdown. If the run fails, the script ends with its message."""
    with finished(args, methods, settings, options) as (folder, output):
        return output, (folder / "table.md").read_text(encoding="utf-8")
