"""Which criterion finds the layer on which OCD helps most: a run per layer, and rank correlations.

For each seed, ``ocd`` adapts each layer that can be adapted, and its gain over the base on test samples is compared with what
each criterion says of the layer: the paper's entropy (section 3.3; in nats, on training samples) and those of
``layer_criteria.py``, which are taken on validation samples. The gain is that of cross entropy where the table has it, else of
the primary metric; once at the gain 1, where a layer that does harm shows it, and once with the gain that validation samples
choose.

Tables: the layers of each dataset, means over seeds; then for each criterion the rank correlation (Spearman), the mean over
seeds of those with a ranking, their number, and that of the means over seeds; and how much the layer gains that the criterion
puts first. ``task`` is the layer that the task names, ``best`` the layer that gained most on test samples, which nobody can
know.

    python benchmarks/layer_selection.py
    python benchmarks/layer_selection.py --task images,speech
    python benchmarks/layer_selection.py --task tabular --dataset california_housing --data-dir DATA
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from runs import add_options, run
from scipy.stats import spearmanr

CRITERIA = ("entropy", "gradient", "oracle", "neighbour", "trial", "fit")
GAINS = {"gain 1": "ocd-gain1", "chosen gain": "ocd"}
TASKS = "images,nlp,recon3d,speech,tabular"
PLUGIN = Path(__file__).with_name("layer_criteria.py")

Values = Mapping[str, float]
"""By layer."""


def cells(args: argparse.Namespace, methods: str, layer: str) -> list[dict[str, Any]]:
    """The cells of a run with this ``select.layer``."""
    found = run(args, methods, [f"select.layer={layer}"], ["--plugin", str(PLUGIN), "--corruption", "none"])[0]
    return json.loads(found)["cells"]  # type: ignore[no-any-return]


@dataclass
class Trials:
    """Every layer of one dataset, adapted in turn.

    Attributes:
        metric: that the gains are of.
        usual: the layer that the task names.
        criteria: by criterion and seed, values by layer.
        gains: by kind of gain and seed, gains by layer on test samples.
    """

    dataset: str
    metric: str
    usual: str
    criteria: dict[str, dict[int, dict[str, float]]]
    gains: dict[str, dict[int, dict[str, float]]]

    @classmethod
    def load(cls, file: Path) -> Trials:
        """What :func:`measure` has kept."""
        kept = json.loads(file.read_text(encoding="utf-8"))
        for part in ("criteria", "gains"):
            kept[part] = {name: {int(seed): value for seed, value in by.items()} for name, by in kept[part].items()}
        return cls(**{field.name: kept[field.name] for field in fields(cls)})

    @property
    def layers(self) -> list[str]:
        """Names, in the order of the first seed's entropies."""
        return list(next(iter(self.criteria["entropy"].values())))

    def each_seed(self, kind: str, found: Callable[[int, Values], float | None]) -> list[float]:
        """What a function finds in the gains of each seed, without the seeds where it finds nothing."""
        return [value for seed, gains in self.gains[kind].items() if (value := found(seed, gains)) is not None]

    def correlations(self, criterion: str, kind: str) -> list[float]:
        """Rank correlations by seed, of the seeds in which there is something to rank."""
        return self.each_seed(kind, lambda seed, gains: rank_correlation(self.criteria[criterion][seed], gains))

    def correlation_of_means(self, criterion: str, kind: str) -> float | None:
        """The rank correlation of the means over seeds; None where there is nothing to rank."""
        return rank_correlation(self.mean(self.criteria[criterion]), self.mean(self.gains[kind]))

    def mean(self, by_seed: Mapping[int, Values]) -> dict[str, float]:
        """Means over seeds."""
        return {layer: float(np.mean([values[layer] for values in by_seed.values()])) for layer in self.layers}

    def first(self, choice: str, kind: str) -> float:
        """Mean over seeds of the gain of the layer that a criterion puts first; or ``best``, or ``task``."""

        def one(seed: int, gains: Values) -> float:
            if choice == "best":
                return max(gains.values())
            values = self.criteria[choice][seed] if choice != "task" else {self.usual: 1.0}
            return gains[max(values, key=values.__getitem__)]

        return float(np.mean(self.each_seed(kind, one)))


def rank_correlation(values: Values, gains: Values) -> float | None:
    """Spearman's; None where all values or all gains are equal."""
    if len(set(gains.values())) < 2 or len(set(values.values())) < 2:
        return None
    return float(spearmanr([values[layer] for layer in gains], list(gains.values())).statistic)


def measure(args: argparse.Namespace, ranked: Sequence[Mapping[str, Any]], usual: str) -> Trials:
    """Adapt each layer of a dataset in turn.

    Args:
        ranked: cells of the base with the entropies of its layers.
    """
    entropies = {cell["seed"]: cell["detail"]["entropies"] for cell in ranked}
    names, seeds = ranked[0]["metrics"], list(entropies)
    metric = "cross_entropy" if "cross_entropy" in names else next(iter(names))
    measured: dict[str, Any] = {name: {seed: {} for seed in seeds} for name in (*CRITERIA, *GAINS)}
    measured["entropy"] = entropies
    for layer in next(iter(entropies.values())):
        found = {(cell["method"], cell["seed"]): cell for cell in cells(args, "base,ocd,ocd-gain1,layer-criteria", layer)}
        for seed in seeds:
            base = found["base", seed]["metrics"][metric]
            for kind, method in GAINS.items():
                value = found[method, seed]["metrics"][metric]["value"]
                measured[kind][seed][layer] = (value - base["value"]) * (1 if base["higher_is_better"] else -1)
            for name, value in found["layer-criteria", seed]["detail"]["criteria"].items():
                measured[name][seed][layer] = value
        print(".", end="", file=sys.stderr, flush=True)
    criteria, gains = ({name: measured[name] for name in names} for names in (CRITERIA, GAINS))
    return Trials(args.dataset, metric, usual, criteria, gains)


def print_layers(trials: Trials) -> None:
    """A line per layer: means over seeds."""
    columns = {**trials.criteria, **trials.gains}
    print(f"\n{trials.dataset}: criteria, and what was gained in {trials.metric}; means over {len(columns['entropy'])} seeds\n")
    print(f"| layer | {' | '.join(columns)} |\n| --- |" + " ---: |" * len(columns))
    for layer in trials.layers:
        means = [trials.mean(by_seed)[layer] for by_seed in columns.values()]
        print(f"| `{layer}` | " + " | ".join(f"{mean:.4g}" for mean in means) + " |")


def print_ranks(everything: Sequence[Trials], kind: str) -> None:
    """Rank correlations of each criterion, and what its first layer gains, by dataset."""
    names = [f"{trials.dataset} ({len(trials.layers)} layers)" for trials in everything]
    print(f"\nrank correlation with what was gained at the {kind}: mean over seeds (their number); of the means over seeds\n")
    print(f"| criterion | {' | '.join(names)} |\n| --- |" + " ---: |" * len(names))
    for criterion in CRITERIA:
        texts = []
        for trials in everything:
            seeds, means = trials.correlations(criterion, kind), trials.correlation_of_means(criterion, kind)
            texts.append(f"{np.mean(seeds):+.2f} ({len(seeds)}); {means:+.2f}" if seeds and means is not None else "–")
        print(f"| {criterion} | {' | '.join(texts)} |")
    print(f"\ngained at the {kind} by the layer that is put first, mean over seeds\n")
    print(f"| choice | {' | '.join(f'{trials.dataset}, {trials.metric}' for trials in everything)} |")
    print("| --- |" + " ---: |" * len(names))
    for choice in (*CRITERIA, "task", "best"):
        print(f"| {choice} | " + " | ".join(f"{trials.first(choice, kind):+.4f}" for trials in everything) + " |")


def trials_of(args: argparse.Namespace) -> Iterator[Trials]:
    """Those of every dataset of the tasks, one after the other."""
    for task in args.task.split(","):
        own = argparse.Namespace(**{**vars(args), "task": task})
        ranked = cells(own, "base", "entropy")
        usual = {cell["dataset"]: cell["layer"] for cell in cells(own, "base", "task")}
        for dataset in dict.fromkeys(cell["dataset"] for cell in ranked):
            chosen = [cell for cell in ranked if cell["dataset"] == dataset]
            if len(chosen[0]["detail"]["entropies"]) < 2:
                print(f"{task}, {dataset}: only one layer can be adapted, nothing to rank")
                continue
            own.dataset = dataset
            yield measure(own, chosen, usual[dataset])


def main() -> None:
    """Run every layer of every dataset, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser)
    parser.set_defaults(task=TASKS)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to keep what was measured, a file for each dataset")
    parser.add_argument("--kept", type=Path, nargs="+", metavar="FILE", help="files of --keep to print, instead of runs")
    args = parser.parse_args()
    everything = []
    for trials in map(Trials.load, args.kept) if args.kept else trials_of(args):
        print_layers(trials)
        everything.append(trials)
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            (args.keep / f"{trials.dataset}.json").write_text(json.dumps(asdict(trials)), encoding="utf-8")
    for kind in GAINS if everything else ():
        print_ranks(everything, kind)


if __name__ == "__main__":
    main()
