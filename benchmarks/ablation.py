"""The contribution of each part of OCD: the row ``ocd`` of one task with one changed setting at a time, as a Markdown table.

python benchmarks/ablation.py
python benchmarks/ablation.py --task tabular --preset default --only auxiliary,conditions
"""

from __future__ import annotations

import argparse
import sys

from runs import add_options, run

LEVERS: dict[str, tuple[str, list[str]]] = {
    "default": ("none", []),
    "imitation": ("trained on overfitted ΔW only, as published", ["ocd.task_weight=0"]),
    "sampling": ("ten steps of sampling", ["ocd.sampling_steps=10"]),
    "guidance": ("ten steps, guidance scale 2", ["ocd.sampling_steps=10", "ocd.guidance=2"]),
    "auxiliary": ("no auxiliary output from the condition", ["ocd.auxiliary=0"]),
    "encoder": ("not conditioned on x itself", ["ocd.input_encoder=false"]),
    "conditions": ("conditioned on x only", ["ocd.conditions="]),
    "augment": ("no augmented copies", ["ocd.augment=false"]),
    "folds": ("cross-fitted targets, five folds", ["ocd.folds=5"]),
    "overfit": ("ten times as many steps of overfitting", ["ocd.overfit_steps=30"]),
    "prediction": ("predicts x0, not v", ["ocd.prediction=x0"]),
    "gate": ("an out-of-distribution gate at 99 %", ["ocd.gate=0.99"]),
    "caution": ("the smallest gain that keeps nine tenths", ["ocd.gain_share=0.9"]),
    "margin": ("a gain must improve the accuracy by one standard error", ["ocd.gain_margin=1"]),
    "gain": ("gain 1, not chosen on validation samples", ["ocd.gains=1"]),
}
"""Name to description and settings."""


def row(args: argparse.Namespace, settings: list[str]) -> tuple[str, list[str]]:
    """Head and cells of the row ``ocd`` in the table of the command line."""
    lines = [line for line in run(args, "base,ocd", settings)[1].splitlines() if line.startswith("|")]
    cells = next(line for line in lines if line.split("|")[1].strip(" *") == "ocd").split("|")[2:-1]
    return lines[0].partition("|")[2].partition("|")[2], [cell.strip() for cell in cells]


def main() -> None:
    """One line per lever."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser)
    parser.add_argument("--only", default=",".join(LEVERS), help=f"some of {', '.join(LEVERS)}")
    args = parser.parse_args()
    chosen = args.only.split(",")
    if unknown := [name for name in chosen if name not in LEVERS]:
        sys.exit(f"error: --only {unknown[0]}: expected {', '.join(LEVERS)}")
    for number, name in enumerate(chosen):
        label, settings = LEVERS[name]
        head, cells = row(args, settings)
        if number == 0:
            print(f"| lever | setting |{head}")
            print("| --- | --- |" + " ---: |" * len(cells))
        print(f"| {label} | {' '.join(f'`{setting}`' for setting in settings)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
