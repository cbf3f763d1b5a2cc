"""Speed as ratios: each line times two computations in turn in this process, after a check that both compute the same thing.

The sides of a line: what OCD-Bench does, and a plain loop, the base network alone, or the code of a method's authors. A ratio
is (samples per second of ours) / (of the other). The table has the median and the range over the rounds. Without a GPU and with
one thread (--threads 1, the default) the seconds are those of the CPU, so that other processes disturb less.

    python benchmarks/speed.py
    python benchmarks/speed.py --only adapted --rounds 9
    python benchmarks/speed.py --authors FOLDER      # clones of tent, EATA, SAR, T3A and memo in it, as their authors published
    python benchmarks/speed.py --compare benchmarks/speed.json
    python benchmarks/speed.py --out benchmarks/speed.json

``--compare`` prints the change of each ratio since a stored table. It is for information: another machine has other ratios.
Exit code 1: a check failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from speed_lines import authors, pictures, tasks
from speed_lines.timing import Line, Skipped, Wrong, measure

LINES: list[Line] = [*pictures.LINES, *tasks.LINES, *authors.LINES]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="lines whose name contains this text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="short rounds, to see that everything works")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--authors", type=Path, help="folder with the code of the methods' authors")
    parser.add_argument("--compare", type=Path, metavar="TABLE", help="a table that --out has stored")
    parser.add_argument("--out", type=Path, metavar="TABLE", help="store the table as JSON")
    options = parser.parse_args()
    if options.rounds < 1 or options.threads < 1:
        sys.exit("error: --rounds and --threads are at least 1")
    options.seconds = 0.05 if options.quick else 0.4
    options.few = 4 if options.quick else 16
    options.training_steps = 2 if options.quick else 10
    options.perturbations = 500 if options.quick else 10_000
    return options


def main() -> None:
    options = arguments()
    chosen = [line for line in LINES if options.only.lower() in line.name.lower()]
    if not chosen:
        sys.exit(f"error: --only {options.only}: no line has this in its name; lines: {'; '.join(line.name for line in LINES)}")
    known: dict[str, Any] = {}
    if options.compare is not None:
        try:
            known = json.loads(options.compare.read_text(encoding="utf-8"))["lines"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            sys.exit(f"error: --compare {options.compare}: no table that --out has stored ({error})")
    torch.set_num_threads(options.threads)
    start, wrong, found = time.perf_counter(), 0, {}
    print("| ours / other | ours, per s | other, per s | ratio (range) | aim | same |" + (" before |" if known else ""))
    print("| --- | --- | --- | --- | --- | --- |" + (" --- |" if known else ""))
    for line in chosen:
        try:
            row = found[line.name] = measure(line, options).record()
        except Skipped as reason:
            print(f"| {line.name} | – | – | – | {line.aim} | skipped: {reason} |", flush=True)
            continue
        except Wrong as reason:
            wrong += 1
            print(f"| {line.name} | – | – | – | {line.aim} | WRONG: {reason} |", flush=True)
            continue
        ratio = f"{row['ratio']:,g} ({row['ratio_low']:,g} to {row['ratio_high']:,g})"
        cells = [line.name, f"{row['ours_per_s']:,.4g}", f"{row['other_per_s']:,.4g}", ratio, line.aim, row["compared"]]
        if known:
            before = known.get(line.name)
            cells.append(f"{before['ratio']:,g}: × {row['ratio'] / before['ratio']:.2f}" if before else "–")
        print(f"| {' | '.join(cells)} |", flush=True)
        if options.out is not None:  # after each line, so that a run that is stopped keeps what it has
            environment = {"torch": torch.__version__, "machine": platform.machine(), "threads": options.threads}
            text = json.dumps({"environment": environment, "lines": found}, indent=1, ensure_ascii=False)
            options.out.write_text(text + "\n", encoding="utf-8")
    print(f"\n{time.perf_counter() - start:.0f} s, torch {torch.__version__}, {platform.machine()}, threads {options.threads}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
