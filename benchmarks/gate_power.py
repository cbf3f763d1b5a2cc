"""What ``ocd-bench compare`` finds between two runs on the same base models, and how often it is wrong.

Synthetic runs of 14 rows with 3 seeds and 1,000 test samples. The second run repeats the first on another machine: of every row
a share of answers changes, as often for better as for worse. ``lean`` is the SD, in points, of a further shift by which all
changed answers of a row and seed lean one way. *Alarms*: share of comparisons with exit code 1 though nothing got worse.
*Found*: share in which a row is called a regression that lost 1 point, its changed answers included in the share; all other
rows change by the share too, or only that row does. *Smallest*: the smallest loss, on a grid, that is found 9 times in 10.

    python benchmarks/gate_power.py [--comparisons 1000] [--repeats 200] [--seeds 3] [--only CHANGED]
    python benchmarks/gate_power.py --runs A B       what changed between two real runs on the same bases
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ocd_bench.comparison import Comparison, compare_runs
from ocd_bench.comparison.lean import lean_of
from ocd_bench.comparison.pairing import pair_rows
from ocd_bench.comparison.sides import common_groups, numbers
from ocd_bench.results import Key, Run, primary_of, read_run
from ocd_bench.stats import Array

ROWS = [(task, method) for task in ("images", "speech") for method in ("base", "a", "b", "c", "d", "e", "f")]
LOSER = ("images", "a")
N = 1000
RIGHT = 0.9
GRID = (0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.03, 0.05)
MACHINES = ({"device": "cpu", "cpu": "one", "threads": 1}, {"device": "cpu", "cpu": "another", "threads": 2})


def changed(scores: Array, share: float, loss: float, lean: float, random: np.random.Generator) -> Array:
    """Scores of 0 and 1 of which ``share`` changed, with a mean loss of ``loss``."""
    net = float(np.clip(loss + lean * random.normal(), -share, share)) if share else 0.0
    result = scores.copy()
    for old, expected in ((1.0, (share + net) / 2), (0.0, (share - net) / 2)):
        places = np.flatnonzero(scores == old)
        count = min(len(places), random.binomial(len(scores), expected))
        result[random.choice(places, count, replace=False)] = 1.0 - old
    return result


def run_of(scores: dict[Key, Array], machine: dict[str, object]) -> Run:
    """A run with these scores, on one set of base models."""
    cells: dict[Key, dict] = {}
    for key, array in scores.items():
        info = {"value": float(array.mean()), "unit": "fraction", "higher_is_better": True, "primary": True, "reduce": "mean"}
        prints = {"config": "one", "data": key.task, "base": f"{key.task} {key.seed}"}
        cells[key] = {"status": "ok", "n_test": N, "metrics": {"accuracy": info}, "cost": {}, "fingerprint": prints}
    loaded = {key: {"accuracy": array} for key, array in scores.items()}
    return Run("run", {"environment": machine, "tasks": {}}, cells, {}, loaded)


def compared(
    share: float, loss: float, lean: float, seeds: int, random: np.random.Generator, others: bool = True
) -> Comparison:
    """A comparison of two runs; the row :data:`LOSER` lost ``loss``.

    Args:
        others: whether the other rows change too.
    """
    keys = [Key(task, "default", method, seed) for task, method in ROWS for seed in range(seeds)]
    before = {key: (random.random(N) < RIGHT).astype(float) for key in keys}
    after = dict(before)
    for key in keys:
        mine = (key.task, key.method) == LOSER
        if mine or others:
            after[key] = changed(before[key], share, loss if mine else 0.0, lean, random)
    return compare_runs(run_of(before, MACHINES[0]), run_of(after, MACHINES[1]))


def found(share: float, loss: float, lean: float, seeds: int, repeats: int, random: np.random.Generator, others: bool) -> float:
    """Share of comparisons that call the row a regression."""
    hits = 0
    for _ in range(repeats):
        rows = compared(max(share, loss), loss, lean, seeds, random, others).rows
        hits += next(row for row in rows if (row.name.task, row.name.method) == LOSER).verdict == "regression"
    return hits / repeats


def smallest(share: float, lean: float, seeds: int, repeats: int, random: np.random.Generator) -> float:
    """The smallest loss on the grid that is found 9 times in 10, where all rows change; infinite if none is."""
    low, high = 0, len(GRID)
    while low < high:
        middle = (low + high) // 2
        if found(share, GRID[middle], lean, seeds, repeats, random, others=True) >= 0.9:
            high = middle
        else:
            low = middle + 1
    return GRID[low] if low < len(GRID) else float("inf")


def real(first: Path, second: Path) -> None:
    """Per row of two real runs: the share of answers that changed, and the lean ratio."""
    one, two = read_run(first), read_run(second)
    print("| row | test samples | changed answers | change | lean |\n| --- | ---: | ---: | ---: | ---: |")
    for pair in pair_rows(one, two):
        if pair.problem or not pair.has_same_base(one, two):
            continue
        metric = primary_of(one.cells[pair.baseline.ok[0]])
        _, keys, others = pair.design(one, two)
        old, new = numbers(one, keys, metric), numbers(two, others, metric)
        differ = [float((a != b).mean()) for a, b in zip(old.scores or (), new.scores or (), strict=True)]
        pulls = [b - a for a, b in zip(old.pulls or (), new.pulls or (), strict=True)]
        lean = lean_of(new.values - old.values, pulls, common_groups(old, new)) if len(pulls) > 1 else None
        text = f"{lean.ratio:.2f}" if lean else "–"
        change = float((new.values - old.values).mean())
        print(f"| {' '.join(pair.name)} | {len(pulls[0])} | {100 * np.mean(differ):.2f} % | {change:+.4g} | {text} |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=float, metavar="CHANGED", help="only this share of changed answers, in per cent")
    parser.add_argument("--runs", nargs=2, type=Path, metavar=("A", "B"))
    args = parser.parse_args(arguments)
    if args.runs:
        real(*args.runs)
        return 0
    print("| changed answers | lean | alarms | found: 1 point, all rows change | only that row | smallest loss found |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for share in (0.002, 0.01, 0.015, 0.02):
        for lean in (0.0, 0.003):
            if args.only is not None and abs(100 * share - args.only) > 1e-9:
                continue
            random = np.random.default_rng([1, args.seeds, round(1e4 * share), round(1e4 * lean)])
            alarms = np.mean([compared(share, 0.0, lean, args.seeds, random).exit_code() == 1 for _ in range(args.comparisons)])
            all_rows, alone = (found(share, 0.01, lean, args.seeds, args.repeats, random, others) for others in (True, False))
            least = smallest(share, lean, args.seeds, args.repeats, random)
            shares = f"{100 * alarms:.1f} % | {100 * all_rows:.0f} % | {100 * alone:.0f} %"
            print(f"| {100 * share:.1f} % | {100 * lean:.1f} | {shares} | {100 * least:.2f} points |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
