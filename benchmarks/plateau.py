"""Whether a base is trained to its plateau: its validation loss when its recipe has half, twice and four times the epochs.

A base is at its plateau if twice the epochs lower the validation loss by less than one standard error of the paired difference.
For tasks that the runner trains (``base.epochs``).

    python benchmarks/plateau.py --task images --dataset digits
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from ocd_bench import Request
from ocd_bench.config import parse_assignment, resolve
from ocd_bench.folders import data_directories
from ocd_bench.plugin.manager import load_plugins
from ocd_bench.progress import Progress
from ocd_bench.runner.training import passes, train

FACTORS = (0.5, 1.0, 2.0, 4.0)


def main() -> None:
    """A line for each length of the training."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="images")
    parser.add_argument("--dataset", default="")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    args = parser.parse_args()
    task = load_plugins().task(args.task)
    dataset = args.dataset or task.datasets()[0].name
    config = resolve(task, [], args.preset, dict(map(parse_assignment, args.set)))
    folders = tuple(data_directories(args.data_dir))
    request = Request(task.name, dataset, config.section(task.name), args.preset, args.seed, True, folders)
    splits, settings = task.load_data(request), config.section("base")
    losses: dict[float, torch.Tensor] = {}
    for factor in FACTORS:
        how = replace(settings, epochs=max(1, round(factor * passes(settings, len(splits.train)))), least_steps=0)
        torch.manual_seed(args.seed)
        model = task.base_model(splits, request)
        model = train(model, task, splits, request, how, torch.device("cpu"), Progress()).eval()
        with torch.no_grad():
            losses[factor] = task.loss(model(splits.val.inputs), splits.val.targets)
        print(f"{task.name}, {dataset}: {how.epochs:>5} epochs  validation loss {losses[factor].mean():.4f}", flush=True)
    gained = losses[1.0] - losses[2.0]
    error = gained.std() / len(gained) ** 0.5
    verdict = "at its plateau" if gained.mean() < error else "not at its plateau"
    print(f"twice the epochs lower it by {gained.mean():.4f}, standard error {error:.4f}: {verdict}")


if __name__ == "__main__":
    main()
