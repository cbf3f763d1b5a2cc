"""Settings of Tent, EATA and SAR, chosen for one network and data set on corruptions that no table reports.

The pictures are validation pictures, and the kinds the four extra ones of CIFAR-10-C: neither is in a test table. The kinds
come one after the other, without a reset between them: four times 2,000 pictures are a stream as long as that of a kind in the
test table. A rate that is chosen on a shorter stream is too large for a longer one. Each setting is searched in turn, the
others as chosen so far. The best mean accuracy over the kinds wins, among equals the least mean cross entropy. The last line is
the choice, as ``--set`` options.

    python benchmarks/choose_rates.py --dataset cifar10 --data-dir ../shared/data --set images.model=resnet20 --log scores.csv
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runs import add_options, run

STREAM = "continual"
CORRUPTIONS = "cifar10-c-extra:5"
ROUNDS: tuple[Mapping[str, tuple[float, ...]], ...] = (
    {
        "tent.lr": (2.5e-4, 1e-3, 5e-3, 2e-2),
        "eata.lr": (2.5e-4, 1e-3, 5e-3, 2e-2),
        "sar.lr": (1e-3, 5e-3, 2e-2, 1e-1),
    },
    {"eata.margin": (0.2, 0.4, 0.8)},
    {"eata.distance": (0.05, 0.4, 0.6)},
    {"eata.alpha": (0.0, 1.0, 2000.0)},
)
"""Settings with their candidates. Those of one round belong to different methods, and are measured in the same runs."""

Score = tuple[float, float]
"""Mean accuracy in per cent, and minus the mean cross entropy in nats: the larger tuple is better."""


def trials(candidates: Mapping[str, tuple[float, ...]]) -> Iterator[dict[str, float]]:
    """The k-th candidate of every setting, for every k. A setting with fewer candidates is left out of the last ones."""
    for k in range(max(map(len, candidates.values()))):
        yield {name: values[k] for name, values in candidates.items() if k < len(values)}


def scores_of(cells: list[Mapping[str, Any]]) -> dict[str, Score]:
    """The score of each method, from the cells of all kinds."""
    found: dict[str, Score] = {}
    for method in dict.fromkeys(cell["method"] for cell in cells):
        metrics = [cell["metrics"] for cell in cells if cell["method"] == method]
        accuracy, entropy = (sum(m[name]["value"] for m in metrics) / len(metrics) for name in ("accuracy", "cross_entropy"))
        found[method] = 100 * accuracy, -entropy
    return found


def best(scores: Mapping[float, Score]) -> float:
    """The candidate of the best score; the smallest of equal ones."""
    return max(scores, key=lambda value: (scores[value], -value))


def known(log: Path | None) -> dict[tuple[str, str], Score]:
    """The scores that an earlier call of this script has left in its log."""
    if log is None or not log.exists():
        return {}
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {(row["chosen"], row["trial"]): (float(row["accuracy"]), -float(row["cross_entropy"])) for row in rows}


def measured(args: argparse.Namespace, chosen: Mapping[str, float], tried: Mapping[str, float]) -> dict[str, Score]:
    """The scores of the methods of ``tried`` on validation samples. A cell without a number ends the script."""
    methods = dict.fromkeys(name.partition(".")[0] for name in tried)
    settings = ["images.report_on=validation", *options_of(chosen), *options_of(tried)]
    answer, _ = run(args, ",".join(methods), settings, ["--corruption", CORRUPTIONS, "--stream", STREAM])
    cells = json.loads(answer)["cells"]
    if bad := [cell for cell in cells if cell["status"] != "ok"]:
        sys.exit(f"{bad[0]['method']}: {bad[0]['status']}: {bad[0]['reason']}")
    return scores_of(cells)


def options_of(settings: Mapping[str, float]) -> list[str]:
    """As ``--set`` takes them."""
    return [f"{name}={value:g}" for name, value in settings.items()]


def main() -> None:
    """A line for each candidate, then the choice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser)
    parser.add_argument("--log", type=Path, help="a CSV file of the scores; what it holds is not measured again")
    parser.set_defaults(preset="default", seeds=1)
    args = parser.parse_args()
    scores, chosen = known(args.log), dict[str, float]()

    def score(name: str, value: float) -> Score:
        return scores[" ".join(options_of(chosen)), f"{name}={value:g}"]

    for candidates in ROUNDS:
        before = " ".join(options_of(chosen))
        for tried in trials(candidates):
            missing = {name: value for name, value in tried.items() if (before, f"{name}={value:g}") not in scores}
            if missing:
                found = measured(args, chosen, missing)
                scores |= {(before, f"{name}={value:g}"): found[name.partition(".")[0]] for name, value in missing.items()}
                write(args.log, scores)
            for name, value in tried.items():
                accuracy, entropy = score(name, value)
                print(f"{name:14} {value:>8g}  {accuracy:.2f} %  {-entropy:.4f} nats", flush=True)
        chosen |= {name: best({value: score(name, value) for value in values}) for name, values in candidates.items()}
    print(f"chosen on validation samples under {CORRUPTIONS}, {STREAM}:")
    print(" ".join(f"--set {option}" for option in options_of(chosen)))


def write(log: Path | None, scores: Mapping[tuple[str, str], Score]) -> None:
    """The log, anew."""
    if log is not None:
        with log.open("w", newline="", encoding="utf-8") as file:
            rows = [(*key, f"{accuracy:.2f}", f"{-entropy:.5f}") for key, (accuracy, entropy) in scores.items()]
            csv.writer(file).writerows([("chosen", "trial", "accuracy", "cross_entropy"), *rows])


if __name__ == "__main__":
    main()
