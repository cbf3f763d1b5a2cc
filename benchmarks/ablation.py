"""The contribution of each part of OCD: one change at a time, as Markdown tables, one for each dataset.

A line is a row of the command line's table (``ocd``, or the method that is the change) with one changed setting. For the
primary metric, and beside it for cross entropy, it has the value and the difference from the base with its 95 % interval over
new seeds and new samples (with fewer than three seeds: over new samples), bold where it excludes zero; and the gain that
was chosen for each seed.

python benchmarks/ablation.py
python benchmarks/ablation.py --task tabular --preset default --only auxiliary,conditions
python benchmarks/ablation.py --preset default --work FOLDER

With ``--work`` the runs stay in a folder, one for each setting, and the same command continues what was stopped there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runs import add_options, finished

from ocd_bench.report.numbers import Style, style_for
from ocd_bench.results import Key, Run, primary_of, read_run
from ocd_bench.stats import Paired

ALSO = ("cross_entropy",)
"""Metrics shown beside the primary one: with few test samples, right and wrong answers tell little."""

LEVERS: dict[str, tuple[str, str, list[str]]] = {
    "base": ("the base", "base", []),
    "default": ("none", "ocd", []),
    "imitation": ("trained on overfitted ΔW only, as published", "ocd", ["ocd.task_weight=0"]),
    "task": ("trained on the task's loss only, but for a thousandth", "ocd", ["ocd.task_weight=10000"]),
    "regression": ("regression, no diffusion", "ocd-regress", []),
    "regress-imitation": ("regression, trained on overfitted ΔW only", "ocd-regress", ["ocd.task_weight=0"]),
    "five": ("mean of five draws", "ocd-x5", []),
    "sampling": ("ten steps of sampling", "ocd", ["ocd.sampling_steps=10"]),
    "sampling-five": ("ten steps, mean of five draws", "ocd-x5", ["ocd.sampling_steps=10"]),
    "published": ("trained on overfitted ΔW only, ten steps", "ocd", ["ocd.task_weight=0", "ocd.sampling_steps=10"]),
    "published-five": (
        "the same, mean of five draws", "ocd-x5", ["ocd.task_weight=0", "ocd.sampling_steps=10"],
    ),
    "unscaled": ("no scale network", "ocd-noscale", []),
    "guidance": ("ten steps, guidance scale 2", "ocd", ["ocd.sampling_steps=10", "ocd.guidance=2"]),
    "auxiliary": ("no auxiliary output from the condition", "ocd", ["ocd.auxiliary=0"]),
    "encoder": ("not conditioned on x itself", "ocd", ["ocd.input_encoder=false"]),
    "conditions": ("conditioned on x only", "ocd", ["ocd.conditions="]),
    "augment": ("no augmented copies", "ocd", ["ocd.augment=false"]),
    "folds": ("cross-fitted targets, five folds", "ocd", ["ocd.folds=5"]),
    "overfit": ("ten times as many steps of overfitting", "ocd", ["ocd.overfit_steps=30"]),
    "prediction": ("predicts x0, not v", "ocd", ["ocd.prediction=x0"]),
    "gate": ("an out-of-distribution gate at 99 %", "ocd", ["ocd.gate=0.99"]),
    "caution": ("the smallest gain that keeps nine tenths", "ocd", ["ocd.gain_share=0.9"]),
    "margin": ("a gain must improve the accuracy by one standard error", "ocd", ["ocd.gain_margin=1"]),
    "gain": ("gain 1, not chosen on validation samples", "ocd", ["ocd.gains=1"]),
    "layer2": ("the layer of second highest entropy", "ocd-layer2", []),
    "best-layer": ("the best layer on validation samples, of all that were fitted", "ocd-best-layer", []),
    "capacity": ("no weights: corrects the output", "capacity", []),
    "oracle": ("upper bound: overfitted to the test label", "oracle", []),
}  # fmt: skip
"""Name to description, method and settings."""


class Comparison:
    """The cells of one dataset of a run, to be compared with its base."""

    def __init__(self, run: Run, dataset: str) -> None:
        self.run = run
        self.cells = {key: cell for key, cell in run.cells.items() if key.dataset == dataset and cell["status"] == "ok"}
        first = next(iter(self.cells.values()))
        self.metrics = dict.fromkeys([primary_of(first), *(name for name in ALSO if name in first["metrics"])])

    def head(self) -> list[str]:
        """Names of the columns, with units."""
        how, names = next(iter(self.cells.values()))["metrics"], []
        for name in self.metrics:
            style = self.style(name)
            names.append(f"{name}{in_brackets(style.unit)} {'↑' if how[name]['higher_is_better'] else '↓'}")
            names.append(f"Δ base{in_brackets(style.difference_unit)}")
        return [*names, "gain"]

    def style(self, metric: str) -> Style:
        """How a metric is printed."""
        found = [cell["metrics"][metric] for cell in self.cells.values()]
        return style_for(found[0]["unit"], [each["value"] for each in found])

    def columns(self, method: str) -> list[str]:
        """Those of one method."""
        own = {key: cell for key, cell in self.cells.items() if key.method == method}
        if not own:
            return ["n/a"] * len(self.head())
        gains = [f"{cell['detail']['gain']:g}" for cell in own.values() if "gain" in cell["detail"]]
        return [*(text for metric in self.metrics for text in self.compared(own, method, metric)), " ".join(gains) or "–"]

    def compared(self, own: Mapping[Key, Mapping[str, Any]], method: str, metric: str) -> tuple[str, str]:
        """The value of one metric, and its difference from the base."""
        both = {key: cell for key, cell in self.cells.items() if key.method in (method, "base")}
        how = next(iter(own.values()))["metrics"][metric]
        pairs = Paired(
            {(key.method, key.seed): self.scores(key, metric) for key in both},
            how.get("reduce", "mean"),
            {key.seed: self.run.groups(key) for key in both},
        )
        style = self.style(metric)
        value, change = pairs.value(method), pairs.difference(method, "base")
        assert value is not None
        assert change is not None
        text = "–" if method == "base" else style.difference(change.widest)
        return style.value(value.value), f"**{text}**" if change.sign else text

    def scores(self, key: Key, metric: str) -> Any:
        """Of every test sample."""
        found = self.run.scores(key, metric)
        assert found is not None, f"{key} has no scores"
        return found


def in_brackets(unit: str) -> str:
    """``" [%]"``; nothing without a unit."""
    return f" [{unit}]" if unit else ""


def name_of(args: argparse.Namespace, settings: Sequence[str]) -> str:
    """The folder of a run: its task, dataset, preset and seeds, and what is set."""
    words = [args.task, args.dataset, args.preset, f"{args.seeds} seeds", *args.set, *settings]
    return re.sub(r"[^\w.]+", "-", " ".join(filter(None, words)))


def tables(args: argparse.Namespace, chosen: Sequence[str]) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Dataset, name of the lever, head and columns. Levers of the same settings share a run."""
    by_settings: dict[tuple[str, ...], list[str]] = {}
    for name in chosen:
        by_settings.setdefault(tuple(LEVERS[name][2]), []).append(name)
    for settings, names in by_settings.items():
        methods = dict.fromkeys(["base", *(LEVERS[name][1] for name in names)])
        keep = args.work / name_of(args, settings) if args.work is not None else None
        with finished(args, ",".join(methods), settings, ["--corruption", "none"], keep) as (folder, _):
            run = read_run(folder)
            for dataset in dict.fromkeys(key.dataset for key in run.cells):
                compared = Comparison(run, dataset)
                for name in names:
                    yield dataset, name, compared.head(), compared.columns(LEVERS[name][1])
        print(".", end="", file=sys.stderr, flush=True)


def main() -> None:
    """A table for each dataset, with one line per lever."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser)
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keeps the runs, and continues them")
    parser.add_argument("--only", default=",".join(LEVERS), help=f"some of {', '.join(LEVERS)}")
    args = parser.parse_args()
    chosen = args.only.split(",")
    if unknown := [name for name in chosen if name not in LEVERS]:
        sys.exit(f"error: --only {unknown[0]}: expected {', '.join(LEVERS)}")
    found = list(tables(args, chosen))
    print(file=sys.stderr)
    for dataset in dict.fromkeys(row[0] for row in found):
        own = {name: (head, columns) for other, name, head, columns in found if other == dataset}
        print(f"\n{args.task}, {dataset}, preset {args.preset}, {args.seeds} seeds\n")
        print(f"| change | row and setting | {' | '.join(own[chosen[0]][0])} |".replace("[", "\\[").replace("]", "\\]"))
        print("| --- | --- |" + " ---: |" * len(own[chosen[0]][0]))
        for name in chosen:
            label, method, settings = LEVERS[name]
            what = " ".join(f"`{part}`" for part in (method, *settings))
            print(f"| {label} | {what} | {' | '.join(own[name][1])} |".replace("[", "\\[").replace("]", "\\]"))


if __name__ == "__main__":
    main()
