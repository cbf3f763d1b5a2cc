"""Tests whether the entropy criterion (paper, section 3.3) finds the layer on which OCD helps most: a run per layer, and a rank
correlation.

For each seed, ``ocd`` adapts each layer that the criterion ranks. Its gain over the base, in one metric of the table, is
compared with the layer's entropy, in nats.

    python benchmarks/layer_selection.py
    python benchmarks/layer_selection.py --metric accuracy
    python benchmarks/layer_selection.py --task tabular --dataset california_housing --data-dir DATA --preset default --seeds 1
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from typing import Any

from runs import add_options, run
from scipy.stats import spearmanr


def cells(args: argparse.Namespace, methods: str, layer: str) -> list[dict[str, Any]]:
    """The cells of a run with this ``select.layer``."""
    found: list[dict[str, Any]] = json.loads(run(args, methods, [f"select.layer={layer}"])[0])["cells"]
    return found


def main() -> None:
    """Print a line per layer, then the correlation for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser)
    parser.add_argument("--metric", default="cross_entropy", help="a metric of the task's table")
    args = parser.parse_args()
    ranked = cells(args, "base", "entropy")
    if args.metric not in ranked[0]["metrics"]:
        sys.exit(f"error: --metric {args.metric}: the table has {', '.join(ranked[0]['metrics'])}")
    entropies = {cell["seed"]: cell["detail"]["entropies"] for cell in ranked}
    layers = sorted(next(iter(entropies.values())), key=lambda layer: -sum(known[layer] for known in entropies.values()))
    gains: dict[int, dict[str, float]] = defaultdict(dict)
    print(f"{'layer':12} {'entropy':>9} {'base':>9} {'ocd':>9} {'gained':>9}   (means over {args.seeds} seeds, {args.metric})")
    for layer in layers:
        values: dict[str, dict[int, float]] = defaultdict(dict)
        for cell in cells(args, "base,ocd", layer):
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
