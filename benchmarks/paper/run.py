"""The experiments at the paper's size, one command per piece. They need a GPU; with ``--slice`` a minute or two of a CPU.

    python benchmarks/paper/run.py mnist --data-dir DATA
    python benchmarks/paper/run.py mnist --data-dir DATA --slice --out /tmp/slice
    python benchmarks/paper/run.py --list

A piece is one ``ocd-bench run`` into ``--out``. It ends after its minutes, with what is finished; the same command continues it
there. A base of unknown speed is timed first, and gets as many steps as fit (``NAME.steps``). At the end, cells, scores and
tables are packed into ``NAME.tar.gz``, and the training curve is printed. It runs from a checkout too, without an installation.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

from pack import join
from pieces import PIECES, Piece

ROOT = Path(__file__).parents[2]
PROBES = 40, 120
"""Steps of the two trainings whose difference is the time of a step."""
SHARE = 0.5
"""Share of a piece's time that its training may take; compilation, other rows and predictions take the rest."""


class Suite:
    """``ocd-bench`` of this checkout, with a cache below ``out``, whether it is installed or not."""

    def __init__(self, out: Path) -> None:
        plugins = sorted((ROOT / "plugins").iterdir())
        paths = [str(ROOT), *map(str, plugins)]
        known = os.environ.get("PYTHONPATH")
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*paths, known] if known else paths),
            "OCD_BENCH_CACHE": str((out / "cache").resolve()),
        }

    def run(self, arguments: Sequence[str], log: Path, seconds: float) -> int:
        """Run to the end, or end it after ``seconds``. Returns the exit code; the output is appended to ``log``."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "ocd_bench", *arguments], stdout=file, stderr=subprocess.STDOUT, env=self.environment
            )
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)  # it prints the table of what is finished
                return process.wait(30)

    def plugin(self, task: str) -> list[str]:
        """The options that load the plugin of a task where it is not installed."""
        found = subprocess.run(
            [sys.executable, "-c", "import ocd_bench.plugin.manager as m; print(*m.load_plugins(()).tasks)"],
            capture_output=True, text=True, check=True, env=self.environment,
        )  # fmt: skip
        return [] if task in found.stdout.split() else ["--plugin", f"ocd_bench_{task}"]


def fitted_seconds(folder: Path, method: str) -> float:
    """The time of a method's fit, from its cells; of the base, its training."""
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "cells").glob("*.json")]
    cost = "base_fit_s" if method == "base" else "fit_s"
    times = [cell["cost"][cost] for cell in cells if cell["method"] == method and cell["status"] == "ok"]
    if not times:
        reasons = [str(cell["reason"]) for cell in cells if cell["method"] == method]
        sys.exit(f"error: {folder}: {method} was not fitted: {reasons[0] if reasons else 'no cell'}")
    return times[0]


def steps_that_fit(piece: Piece, command: Sequence[str], suite: Suite, out: Path, seconds: float) -> int:
    """How many steps the training gets: measured once, and kept in ``NAME.steps`` so that a continued piece has the same."""
    kept = out / f"{piece.name}.steps"
    if kept.exists():
        return int(kept.read_text(encoding="utf-8"))
    times = []
    for steps in PROBES:
        folder = out / "probes" / f"{piece.name}-{steps}"
        methods = ",".join(dict.fromkeys(("base", piece.probe)))
        options = [*command, "--out", str(folder), "--methods", methods, "--set", f"{piece.stretch}={steps}"]
        options += shlex.split(piece.light)
        suite.run(options, out / f"{piece.name}.log", seconds)
        times.append(fitted_seconds(folder, piece.probe))
    each = max(1e-4, (times[1] - times[0]) / (PROBES[1] - PROBES[0]))
    steps = max(PROBES[0], int((SHARE * seconds - times[0]) / each))
    print(f"{piece.name}: {each * 1000:.1f} ms a step, {steps} steps fit")
    kept.write_text(f"{steps}\n", encoding="utf-8")
    return steps


def pack(out: Path, name: str) -> Path:
    """The run folder, without figures, as ``NAME.tar.gz``."""
    target = out / f"{name}.tar.gz"
    with tarfile.open(target, "w:gz") as archive:
        for path in sorted((out / name).rglob("*")):
            if path.is_file() and "figures" not in path.parts and not path.name.startswith("."):
                archive.add(path, path.relative_to(out))
    return target


def curves(folder: Path) -> None:
    """Print the training curve of each method that has one."""
    for path in sorted((folder / "cells").glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        for step, train, val in cell.get("detail", {}).get("history", []):
            print(f"{cell['method']} step {step}: training {train:.5f}, validation {val:.5f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one piece after the other. Returns the largest exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=", ".join(piece.name for piece in PIECES))
    parser.add_argument("--data-dir", type=Path, help="folder of data, or what pack.py has made")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "paper")
    parser.add_argument("--slice", action="store_true", help="a small form of everything, on a CPU")
    parser.add_argument("--minutes", type=float, help="instead of the piece's own limit")
    parser.add_argument("--device", help="default: cuda, and cpu with --slice")
    parser.add_argument("--more", default="", metavar="OPTIONS", help="further options of ocd-bench, as one word: --more='...'")
    parser.add_argument("--list", action="store_true", help="print the pieces and their commands, and stop")
    args = parser.parse_args(arguments)
    if unknown := set(args.pieces) - {piece.name for piece in PIECES}:
        parser.error(f"no such piece: {', '.join(sorted(unknown))}; known: {', '.join(piece.name for piece in PIECES)}")
    device = args.device or ("cpu" if args.slice else "cuda")
    chosen = [piece for piece in PIECES if not args.pieces or piece.name in args.pieces]
    more = shlex.split(args.more)
    if args.list:
        for piece in chosen:
            command = piece.command("DATA", f"results/paper/{piece.name}", small=args.slice, device=device) + more
            print(f"{piece.name}, {piece.minutes:g} minutes: {piece.shows}\n  ocd-bench {shlex.join(command)}")
        return 0
    if args.data_dir is None or not args.data_dir.is_dir():
        parser.error(f"--data-dir {args.data_dir}: no such folder")
    return max(run(piece, args.data_dir, args.out, args.minutes, device, more, small=args.slice) for piece in chosen)


def run(piece: Piece, packed: Path, out: Path, minutes: float | None, device: str, more: Sequence[str], *, small: bool) -> int:
    """Run one piece. Returns the exit code of ``ocd-bench``; 143: its time was over."""
    out.mkdir(parents=True, exist_ok=True)
    suite, begin, seconds = Suite(out), time.monotonic(), 60 * (minutes or piece.minutes)
    data = join(packed, out / "data")
    command = piece.command(str(data), str(out / piece.name), small=small, device=device)
    command += [*suite.plugin(shlex.split(piece.options)[1]), *more]
    if piece.stretch:
        steps = PROBES[0] if small else steps_that_fit(piece, command, suite, out, seconds)
        command += ["--set", f"{piece.stretch}={steps}"]
    code = suite.run(command, out / f"{piece.name}.log", max(30.0, seconds - (time.monotonic() - begin)))
    print(f"{piece.name}: exit code {code} after {time.monotonic() - begin:.0f} s; log: {out / piece.name}.log")
    if (out / piece.name / "run.json").exists():
        curves(out / piece.name)
        print(f"packed: {pack(out, piece.name)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
