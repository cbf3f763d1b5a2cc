"""Coverage of the intervals of a table, on simulated test sets and seeds with known distributions, as a Markdown table.

    python benchmarks/coverage.py [--draws 1000] [--only accuracy] [--quick]

A 95 % interval should cover the truth in 93 to 97 % of all simulations. With one seed the truth is the mean over new test
samples with that trained model; with three seeds or more, over new seeds as well. Cells in parentheses are never bold in a
table, because the coverage of the interval may be less (``Estimate.doubt``). If very few answers change, an interval for right
and wrong answers covers more: it is then as wide as the changes that n answers cannot exclude.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from ocd_bench.stats import Array, Paired

Random = np.random.Generator


@dataclass(frozen=True)
class Groups:
    """Groups of test samples: ``count`` groups, ``columns`` for each sample, of unequal or of about equal sizes."""

    count: int
    columns: int = 1
    unequal: bool = False

    def draw(self, n: int, random: Random) -> Array:
        """Ids ``(n, K)``."""
        weights = random.lognormal(0, 0.7, self.count) if self.unequal else np.ones(self.count)
        # The K largest of exponential arrivals: K different ids, each as likely as its weight says.
        return (random.exponential(size=(n, self.count)) / weights).argsort(axis=1)[:, : self.columns]

    @property
    def text(self) -> str:
        """``10 groups``, ``10 speakers, 2 of them in each sample``."""
        if self.columns > 1:
            return f"{self.count} speakers, {self.columns} in a sample"
        return f"{self.count} groups{' of unequal size' if self.unequal else ''}"


@dataclass(frozen=True)
class Effects:
    """The random effects of a simulated score, each with mean 0 and variance 1.

    Attributes:
        seed: ``(S, 1)``, of a seed.
        sample: ``(1, N)``, of a test sample; a third of its variance comes from its groups, where it has any.
        single: ``(S, N)``, of both together.
        label: ``(1, N)``, of a test sample, independent of the others.
    """

    seed: Array
    sample: Array
    single: Array
    label: Array


def effects(seeds: int, n: int, ids: Array | None, random: Random) -> Effects:
    """Normal effects."""
    sample = random.normal(size=n)
    if ids is not None:
        origin = random.normal(size=int(ids.max()) + 1)[ids].sum(axis=1) / np.sqrt(ids.shape[1])
        sample = np.sqrt(2 / 3) * sample + np.sqrt(1 / 3) * origin
    return Effects(random.normal(size=(seeds, 1)), sample[None], random.normal(size=(seeds, n)), random.normal(size=(1, n)))


@dataclass(frozen=True)
class Law:
    """A law of scores.

    Attributes:
        scores: of effects, and the size of a seed's effect, to the scores ``(S, N)`` of base and method.
        truth: of the seeds' effects and that size, to the true difference with these seeds; None for the seeds: over all seeds.
        error: SD of a sample's score; the size of a seed's effect is a multiple of this, divided by the root of n.
    """

    name: str
    reduce: str
    scores: Callable[[Effects, float], tuple[Array, Array]]
    truth: Callable[[Array | None, float], float]
    error: float = 1.0


def _differences(shape: Callable[[Array], Array]) -> tuple[Callable[..., tuple[Array, Array]], Callable[..., float]]:
    """Differences with mean 0. ``shape`` maps the normal effects of samples to another distribution."""

    def scores(e: Effects, sd: float) -> tuple[Array, Array]:
        return 0 * e.single, sd * e.seed + np.sqrt(0.7) * shape(e.sample) + np.sqrt(0.3) * shape(e.single)

    return scores, lambda seeds, sd: 0.0 if seeds is None else float(sd * seeds.mean())


def _lognormal(x: Array) -> Array:
    """Of log-SD 0.8: skewness 3.7."""
    return (np.exp(0.8 * x) - np.exp(0.32)) / np.sqrt((np.exp(0.64) - 1) * np.exp(0.64))


def _t5(x: Array) -> Array:
    """Normal numbers to Student's with 5 degrees of freedom."""
    return stdtrit(5, np.clip(ndtr(x), 1e-9, 1 - 1e-9))


def _errors(value: Callable[[Array], Array]) -> tuple[Callable[..., tuple[Array, Array]], Callable[..., float]]:
    """Squared errors: the method's are nine tenths of the base's, with an error of its own; seeds differ in that factor.

    Args:
        value: of the mean squared error.
    """

    def scores(e: Effects, sd: float) -> tuple[Array, Array]:
        base = _t5(e.sample)
        return base**2, ((0.9 + sd * e.seed) * base + 0.3 * e.single) ** 2

    def truth(seeds: Array | None, sd: float) -> float:
        mean = _over_seeds(lambda effect: value((0.9 + sd * effect) ** 2 * 5 / 3 + 0.09), seeds)
        return mean - float(value(np.array(5 / 3)))

    return scores, truth


def _answers(better: float, worse: float) -> tuple[Callable[..., tuple[Array, Array]], Callable[..., float]]:
    """A method that corrects the base in the share ``better`` of all samples, and spoils right answers in the share ``worse``.
    A part of these samples is the same under all seeds."""

    def scores(e: Effects, sd: float) -> tuple[Array, Array]:
        rank = ndtr(np.sqrt(0.6) * e.sample + np.sqrt(0.4) * e.single)
        change = (rank < np.clip(better + sd * e.seed, 0, 0.5)).astype(float) - (rank > 1 - worse)
        base = (change <= 0).astype(float)
        return base, base + change

    def truth(seeds: Array | None, sd: float) -> float:
        return _over_seeds(lambda effect: np.clip(better + sd * effect, 0, 0.5), seeds) - worse

    return scores, truth


def _classes(share: float, gain: float) -> tuple[Callable[..., tuple[Array, Array]], Callable[..., float]]:
    """Codes of two classes, one of the given share; a base that is right in 80 %, a method that is in 80 % and ``gain``."""

    def scores(e: Effects, sd: float) -> tuple[Array, Array]:
        label = (ndtr(e.label) < share).astype(float)
        base = ndtr(e.sample) < 0.8
        method = ndtr(np.sqrt(0.7) * e.sample + np.sqrt(0.3) * e.single) < np.clip(0.8 + gain + sd * e.seed, 0.5, 1)
        return tuple(2 * label + np.where(right, label, 1 - label) for right in (base, method))  # type: ignore[return-value]

    def correlation(right: Array) -> Array:
        tn, fp, fn, tp = (1 - share) * right, (1 - share) * (1 - right), share * (1 - right), share * right
        return (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))

    def truth(seeds: Array | None, sd: float) -> float:
        mean = _over_seeds(lambda effect: correlation(np.clip(0.8 + gain + sd * effect, 0.5, 1)), seeds)
        return mean - float(correlation(np.array(0.8)))

    return scores, truth


def _over_seeds(value: Callable[[Array], Array], seeds: Array | None) -> float:
    """Mean of ``value`` over these effects of seeds, or over a standard normal one."""
    if seeds is not None:
        return float(value(seeds).mean())
    nodes = ndtri((np.arange(4001) + 0.5) / 4001)
    return float(value(nodes).mean())


LAWS = (
    Law("normal differences", "mean", *_differences(lambda x: x)),
    Law("heavy tails (t, 5)", "mean", *_differences(lambda x: _t5(x) / np.sqrt(5 / 3))),
    Law("skewed (lognormal)", "mean", *_differences(_lognormal)),
    Law("squared error (t, 5)", "mean", *_errors(lambda mean: mean), error=0.5),
    Law("RMSE (t, 5)", "root_mean", *_errors(np.sqrt), error=0.5),
    Law("accuracy, 1.4 % better, 0.7 % worse", "mean", *_answers(0.014, 0.007), error=0.15),
    Law("accuracy, 10 % better, 5 % worse", "mean", *_answers(0.10, 0.05), error=0.4),
    Law("Matthews, half and half", "matthews", *_classes(0.5, 0.05), error=0.5),
    Law("Matthews, one in ten", "matthews", *_classes(0.1, 0.05), error=0.5),
)
SINGLE = (50, 100, 1000)
GROUPS = (
    (Groups(10), 300),
    (Groups(20), 300),
    (Groups(150, unequal=True), 1500),
    (Groups(10, columns=2), 300),
    (Groups(20, columns=3), 300),
)
COLUMNS = ((1, 0.0), (3, 0.0), (3, 1.5), (5, 1.5))
"""Seeds, and the SD of a seed's effect in units of the standard error over samples."""


@dataclass(frozen=True)
class Share:
    """The simulations of one cell: how many intervals covered the truth, and how many could be bold."""

    covered: float
    open: float

    @property
    def text(self) -> str:
        """``94.8``; in parentheses if almost none can be bold."""
        return f"{100 * self.covered:.1f}" if self.open > 0.05 else f"({100 * self.covered:.1f})"


def coverage(law: Law, n: int, groups: Groups | None, seeds: int, ratio: float, draws: int, random: Random) -> Share:
    """Share of ``draws`` simulated test sets and seeds whose interval covers the truth."""
    covered = bold = 0
    for _ in range(draws):
        ids = groups.draw(n, random) if groups else None
        e = effects(seeds, n, ids, random)
        sd = ratio * law.error / np.sqrt(n)
        base, method = law.scores(e, sd)
        base = np.broadcast_to(base, method.shape)
        scores = {(name, s): rows[s] for name, rows in (("base", base), ("method", method)) for s in range(seeds)}
        found = Paired(scores, law.reduce, dict.fromkeys(range(seeds), ids)).difference("method", "base")
        assert found is not None
        ends = (found.low, found.high) if seeds == 1 else found.wide
        truth = law.truth(e.seed if seeds == 1 else None, sd)
        covered += ends is None or ends[0] is None or ends[0] <= truth <= ends[1]  # type: ignore[operator]
        bold += not found.doubt
    return Share(covered / draws, bold / draws)


def rows(
    laws: Sequence[Law], draws: int, columns: Sequence[tuple[int, float]] = COLUMNS, quick: bool = False
) -> Iterator[list[str]]:
    """Lines of the table, as texts."""
    designs: list[tuple[Groups | None, int]] = [(None, n) for n in SINGLE[:: 2 if quick else 1]]
    designs += GROUPS[:: 3 if quick else 1]
    for law in laws:
        for groups, n in designs:
            random = np.random.default_rng([len(law.name), n, groups.count if groups else 0, groups.columns if groups else 0])
            shares = [coverage(law, n, groups, seeds, ratio, draws, random) for seeds, ratio in columns]
            yield [law.name, groups.text if groups else "none", f"{n:,}", *(share.text for share in shares)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="simulations of each cell (default 1000: error 0.7 points)")
    parser.add_argument("--only", default="", help="laws whose name holds this text")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and groups")
    options = parser.parse_args(arguments)
    laws = [law for law in LAWS if options.only.lower() in law.name.lower()]
    if not laws:
        parser.error(f"--only {options.only!r} is in none of: {'; '.join(law.name for law in LAWS)}")
    headings = [f"{seeds} seed{'s' * (seeds > 1)}{', differing' * (ratio > 0)}" for seeds, ratio in COLUMNS]
    print("| law | groups | n |", " | ".join(headings), "|")
    print("| --- | --- | ---: |" + " ---: |" * len(COLUMNS))
    for line in rows(laws, options.draws, quick=options.quick):
        print("|", " | ".join(line), "|", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
