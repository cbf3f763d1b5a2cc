"""Does the entropy criterion (paper section 3.3) pick the layer that OCD helps most? A run per layer, and the rank correlation.

Per seed, every layer that the criterion ranks is adapted in turn by ``ocd``; what it gains over the base, in one metric of the
table, is set beside the layer's entropy, in nats.

    python benchmarks/layer_selection.py
    python benchmarks/layer_selection.py --metric accuracy
    python benchmarks/layer_selection.py --task tabular --dataset california_housing --data-dir DATA --preset default --seeds 1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from typing import Any

from scipy.stats import spearmanr

Cell = dict[str, Any]


def run(args: argparse.Namespace, *more: str) -> list[Cell]:
    """The cells of one run of the command line."""
    command = [
        sys.executable,
        "-m",
        "ocd_bench",
        "run",
        "--task",
        args.task,
        "--preset",
        args.preset,
        "--seeds",
        str(args.seeds),
    ]
    for option in ("dataset", "data_dir"):
        if value := getattr(args, option):
            command += [f"--{option.replace('_', '-')}", value]
    for setting in args.set:
        command += ["--set", setting]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--json", "--quiet", "--out", folder, *more], capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(done.stderr.strip() or f"ocd-bench ended with {done.returncode}")
    found: list[Cell] = json.loads(done.stdout)["cells"]
    return found


def main() -> None:
    """One line per layer, then the correlation of each seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="images")
    parser.add_argument("--dataset", default="")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--metric", default="cross_entropy", help="a metric of the task's table")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    args = parser.parse_args()
    ranked = run(args, "--methods", "base", "--set", "select.layer=entropy")
    if args.metric not in ranked[0]["metrics"]:
        sys.exit(f"error: --metric {args.metric}: the table has {', '.join(ranked[0]['metrics'])}")
    entropies = {cell["seed"]: cell["detail"]["entropies"] for cell in ranked}
    layers = sorted(next(iter(entropies.values())), key=lambda layer: -sum(known[layer] for known in entropies.values()))
    gains: dict[int, dict[str, float]] = defaultdict(dict)
    print(f"{'layer':12} {'entropy':>9} {'base':>9} {'ocd':>9} {'gained':>9}   (means over {args.seeds} seeds, {args.metric})")
    for layer in layers:
        values: dict[str, dict[int, float]] = defaultdict(dict)
        for cell in run(args, "--methods", "base,ocd", "--set", f"select.layer={layer}"):
            score = cell["metrics"][args.metric]
            values[cell["method"]][cell["seed"]] = score["value"]
            sign = 1 if score["higher_is_better"] else -1
        for seed, value in values["ocd"].items():
            gains[seed][layer] = sign * (value - values["base"][seed])
        means = [sum(known[layer] for known in entropies.values()), sum(values["base"].values()), sum(values["ocd"].values())]
        means.append(sum(known[layer] for known in gains.values()))
        print(f"{layer:12} " + " ".join(f"{mean / len(entropies):9.4f}" for mean in means), flush=True)
    for seed, known in entropies.items():
        rank = spearmanr([known[layer] for layer in layers], [gains[seed][layer] for layer in layers]).statistic
        print(f"seed {seed}: rank correlation of entropy and what was gained {rank:+.2f}")


if __name__ == "__main__":
    main()
