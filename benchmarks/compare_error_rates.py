"""Error rates and power of ``ocd-bench compare`` between runs whose base models differ, on synthetic runs with known effects of
seeds and samples. ``gate_power.py`` is for runs on the same base models.

The latent score of sample i in method m under seed s is advantage(m) + difficulty(i) + shift(s) + shift(m, s) + noise(s, i)
+ noise(m, s, i): methods adapt one base, so they share terms. Accuracy is whether it is above zero; "dB" is the latent
score itself. A null comparison is that of two runs of the same law, whose seeds have the same numbers or others; their base
models always differ. A false alarm is one in which a row is called a regression. Power is the smallest true loss of one method
that is found 9 times in 10.

    python benchmarks/compare_error_rates.py [--comparisons 1000] [--repeats 30] [--seeds 3,5] [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ocd_bench.comparison import compare_runs
from ocd_bench.results import Key, Run
from ocd_bench.stats import Array, holm, swap_test

METHODS = ("base", "ocd", "ocd-x5", "ocd-noscale", "tent-layer", "capacity", "oracle")
ADVANTAGE = (0.0, 0.3, 0.35, 0.1, -0.05, 0.2, 1.5)
TASKS = ("images", "speech")
MACHINE = {"device": "cpu", "cpu": "one", "threads": 1, "torch": "2"}


@dataclass(frozen=True)
class Law:
    """The variation of scores. ``shared`` and ``own`` are SDs of a seed's shift, common to all methods and separate for each
    method; 0.1 is about two points of accuracy. ``noise`` and ``own_noise`` are the same SDs for a single sample."""

    name: str
    n: int = 1000
    shared: float = 0.0
    own: float = 0.0
    noise: float = 0.4
    own_noise: float = 0.2
    binary: bool = True


LAWS = (
    Law("samples only"),
    Law("small seed effects", shared=0.03, own=0.01),
    Law("large seed effects", shared=0.1, own=0.05),
    Law("very large, shared", shared=0.3, own=0.03),
    Law("small test set", n=150, shared=0.05, own=0.02),
    Law("dB, small effects", shared=0.1, own=0.03, binary=False),
    Law("dB, large effects", shared=0.5, own=0.2, binary=False),
)


def make_run(
    law: Law, seeds: Sequence[int], random: np.random.Generator, loss: float = 0.0, twin: Run | None = None, refit: float = 0.0
) -> Run:
    """A run of two tasks by ``law``.

    Args:
        loss: true mean loss of ``ocd`` in the first task.
        twin: take this run's latent scores in place of new draws: the same seeds on the same machine.
        refit: SD of a further shift per (method, seed) and of further noise per sample, drawn again also for ``twin``: it
            simulates fits with other random numbers than those of the twin.
    """
    cells: dict[Key, dict] = {}
    loaded: dict[Key, dict[str, Array]] = {}
    metric, unit = ("accuracy", "fraction") if law.binary else ("si_sdr", "dB")
    for number, task in enumerate(TASKS):
        difficulty = 1.5 * np.random.default_rng([7, number]).normal(size=law.n)
        for seed in seeds:
            together = law.shared * random.normal() + law.noise * random.normal(size=law.n)
            base = (task, seed) if twin is not None else (task, seed, float(random.random()))
            for name, advantage in zip(METHODS, ADVANTAGE, strict=True):
                key = Key(task, "default", name, seed)
                latent = 1 + advantage + difficulty + together
                latent += law.own * random.normal() + law.own_noise * random.normal(size=law.n)
                if twin is not None:
                    latent = twin._loaded[key]["latent"]
                scores = latent
                if refit and name != "base":
                    scores = latent + refit * random.normal() + law.own_noise * random.normal(size=law.n)
                scores = (scores > 0).astype(float) if law.binary else scores
                if loss and (number, name) == (0, "ocd"):
                    scores = _worse(scores, loss, law.binary, random)
                value = float(scores.mean())
                info = {"value": value, "unit": unit, "higher_is_better": True, "primary": True, "reduce": "mean"}
                prints = {"config": "one", "data": task, "base": hashlib.sha256(repr(base).encode()).hexdigest()}
                cells[key] = {"status": "ok", "n_test": law.n, "metrics": {metric: info}, "cost": {}, "fingerprint": prints}
                loaded[key] = {metric: scores, "latent": latent}
    return Run("run", {"environment": MACHINE, "tasks": {}}, cells, {}, loaded)


def _worse(scores: Array, loss: float, binary: bool, random: np.random.Generator) -> Array:
    if not binary:
        return scores - loss * random.normal(1.0, 1.0, size=len(scores))
    return np.where(random.random(len(scores)) < loss / scores.mean(), 0.0, scores)


def false_alarms(law: Law, seeds: int, comparisons: int, random: np.random.Generator, first: int) -> tuple[float, float]:
    """Shares of null comparisons in which a row is called a regression: of our test, and of a test that only pairs samples
    (with the same level, Holm's adjustment, and the same smallest loss that matters).

    Args:
        first: the second run's first seed; 0: both have the same seeds.
    """
    ours = naive = 0
    for _ in range(comparisons):
        one = make_run(law, range(seeds), random)
        two = make_run(law, range(first, first + seeds), random)
        result = compare_runs(one, two)
        ours += result.counts.get("regression", 0) > 0
        naive += _naive(one, two, result)
    return ours / comparisons, naive / comparisons


def _naive(one: Run, two: Run, result: object) -> bool:
    p, losses = [], []
    for row in result.rows:  # type: ignore[attr-defined]
        sides = [
            np.stack([run._loaded[key][row.metric] for key in run.cells if key[:3] == tuple(row.name)]) for run in (one, two)
        ]
        p.append(swap_test(*sides, "mean", draws=199))
        losses.append(sides[0].mean() - sides[1].mean() > row.minimal_effect)
    return any(adjusted < 0.01 and lost for adjusted, lost in zip(holm(p), losses, strict=True))


def found(law: Law, seeds: int, loss: float, repeats: int, random: np.random.Generator, design: str) -> float:
    """Share of comparisons that find a true loss of one method.

    Args:
        design: ``same seeds`` or ``other seeds``; base models differ in both.
    """
    hits, first = 0, 0 if design == "same seeds" else seeds
    for _ in range(repeats):
        one, two = make_run(law, range(seeds), random), make_run(law, range(first, first + seeds), random, loss)
        row = next(row for row in compare_runs(one, two).rows if tuple(row.name) == ("images", "default", "ocd"))
        hits += row.verdict == "regression"
    return hits / repeats


def smallest_found(law: Law, seeds: int, repeats: int, random: np.random.Generator, design: str) -> float | None:
    """The smallest loss on a grid that is found 9 times in 10; None if the largest is not."""
    grid = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5)
    losses = grid if law.binary else [10 * loss for loss in grid]
    low, high = 0, len(losses)  # halving: larger losses are found more often
    while low < high:
        middle = (low + high) // 2
        if found(law, seeds, losses[middle], repeats, random, design) >= 0.9:
            high = middle
        else:
            low = middle + 1
    return losses[low] if low < len(losses) else None


def redrawn(law: Law, seeds: int, comparisons: int, refit: float, random: np.random.Generator) -> float:
    """Share of alarms between runs with the same seeds and bases, but other random numbers in fits: a harmless code change."""
    alarms = 0
    for _ in range(comparisons):
        one = make_run(law, range(seeds), random)
        one, two = (make_run(law, range(seeds), random, twin=one, refit=refit) for _ in range(2))
        alarms += compare_runs(one, two).exit_code() == 1
    return alarms / comparisons


def show(loss: float | None, law: Law) -> str:
    """``1.0 points``"""
    if loss is None:
        return "none"
    return f"{100 * loss:.1f} points" if law.binary else f"{loss:.2f} dB"


def main() -> None:
    """Print one line per law and number of seeds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--seeds", default="3,5")
    parser.add_argument("--quick", action="store_true", help="the first two laws with small test sets")
    args = parser.parse_args()
    seed_counts = [int(part) for part in args.seeds.split(",")]
    laws = [replace(law, n=200) for law in LAWS[:2]] if args.quick else LAWS
    print(f"{len(METHODS) * len(TASKS)} rows, {args.comparisons} null comparisons each; base models differ")
    print("| law | seeds | alarms, same seeds | other seeds | pairing only | found, same seeds | other seeds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for law in laws:
        for seeds in seed_counts:
            random = np.random.default_rng([1, seeds, law.n])
            same, naive = false_alarms(law, seeds, args.comparisons, random, 0)
            other, _ = false_alarms(law, seeds, args.comparisons, random, seeds)
            losses = [
                show(smallest_found(law, seeds, args.repeats, random, design), law) for design in ("same seeds", "other seeds")
            ]
            shares = " | ".join(f"{100 * share:.1f} %" for share in (same, other, naive))
            print(f"| {law.name} | {seeds} | {shares} | {losses[0]} | {losses[1]} |", flush=True)
    for seeds in seed_counts:
        for refit in (0.01, 0.03, 0.1):
            alarms = redrawn(LAWS[1], seeds, args.comparisons, refit, np.random.default_rng([2, seeds]))
            print(f"same base, {seeds} seeds, fits redrawn (shift SD {refit}): alarms {100 * alarms:.1f} %", flush=True)


if __name__ == "__main__":
    main()
