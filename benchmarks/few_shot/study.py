"""What is learnt when a set is left out: the choices among the other sets, and the scores of the one left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn

from few_shot.draws import SCORES, Samples, draws, whole
from few_shot.networks import Trial, corrected, in_draw, overfitted, weighted
from few_shot.texts import EXTRA, Sizes, Vectors

GAINS = 0.0, 0.25, 0.5, 1.0, 1.5, 2.0
PENALTIES = 0.01, 0.03, 0.1, 0.3, 1.0, 3.0
TRIALS = tuple(Trial(kind, wide) for wide in (False, True) for kind in ("linear", "gated", "deep"))
TRIALS += Trial("linear", True, imitate=True), Trial("deep", True, imitate=True)
OWN = tuple(Trial(kind, wide) for wide in (False, True) for kind in ("linear", "deep"))


def metric(x: Samples, logits: Tensor, matthews: bool) -> np.ndarray:
    """Accuracy, or the Matthews correlation, of each draw in per cent."""
    answer, draw = logits.argmax(1), x.draw
    if not matthews:
        return (100 * draw.bincount(weights=(answer == x.targets).double()) / draw.bincount()).numpy()
    table = (4 * draw + 2 * x.targets + answer).bincount(minlength=4 * (int(draw.max()) + 1)).double().view(-1, 2, 2)
    product = table.sum(1).prod(1) * table.sum(2).prod(1)
    found = (table[:, 0, 0] * table[:, 1, 1] - table[:, 0, 1] * table[:, 1, 0]) / product.sqrt()
    return (100 * found.nan_to_num(0.0)).numpy()


def nats(x: Samples, logits: Tensor) -> float:
    """Mean cross entropy."""
    return float(nn.functional.cross_entropy(logits, x.targets))


def half_width(values: Sequence[float] | np.ndarray) -> float:
    """Of the 95 % interval of a mean: Student's."""
    return float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


@dataclass(frozen=True)
class Outcome:
    """What was learnt without a set: what each factor gains on the other sets, on average, and u of the set's test texts."""

    inner: Mapping[tuple[str, float], float]
    u: Mapping[str, Tensor]

    def gain(self, name: str) -> float:
        """The factor for a set; the smallest among equals."""
        return max(GAINS, key=lambda gain: self.inner[name, gain])

    def expected(self, name: str) -> float:
        """What that factor gains on the other sets."""
        return self.inner[name, self.gain(name)]


Part = tuple[Samples, Samples]
"""Queries, and the own texts of their draws."""
Learner = Callable[[Sequence[str]], Callable[[Part], Tensor]]
"""From the names of the sets to learn from to a function that gives u of the queries of any set."""


class Study:
    """The draws of all sets, and what is learnt when one of them is left out."""

    def __init__(self, data: Mapping[str, Vectors], sizes: Sizes) -> None:
        self.data, self.sizes = data, sizes
        self.sets = [name for name in data if name != EXTRA]
        self.train: dict[str, Samples] = {}
        self.inner: dict[str, Part] = {}
        self.test: dict[str, Part] = {}
        for number, (name, each) in enumerate(data.items()):
            rng = np.random.default_rng((7, number))
            self.train[name], own = draws(each, sizes.train_draws, rng, sizes.queries)
            if name in self.sets:
                self.inner[name] = whole(self.train[name]), whole(own)
                self.test[name] = draws(each, sizes.test_draws, rng)

    def gained(self, name: str, x: Samples, u: Tensor) -> np.ndarray:
        """Points above the base of each draw."""
        after, before = (metric(x, corrected(x, each), self.data[name].matthews) for each in (u, torch.zeros_like(u)))
        return after - before

    def tried(self, learn: Learner) -> Outcome:
        """Each set is left out once, and with each of the others for the choice of a factor."""
        inner: dict[tuple[str, float], list[float]] = {}
        for pair in itertools.combinations(self.sets, 2):
            predict = learn([name for name in self.data if name not in pair])
            for name, left_out in (pair, pair[::-1]):
                u = predict(self.inner[name])
                for gain in GAINS:
                    gained = self.gained(name, self.inner[name][0], gain * u)
                    inner.setdefault((left_out, gain), []).append(float(gained.mean()))
        outer = {name: learn([each for each in self.data if each != name])(self.test[name]) for name in self.sets}
        return Outcome({key: float(np.mean(each)) for key, each in inner.items()}, outer)

    def chosen(self, outcomes: Sequence[Outcome]) -> dict[str, tuple[float, Tensor]]:
        """For each set, factor and u of the outcome that gains most on the other sets."""
        found = {}
        for name in self.sets:
            best = max(outcomes, key=lambda outcome: outcome.expected(name))
            found[name] = best.gain(name), best.u[name]
        return found

    def other_sets(self, trial: Trial) -> Outcome:
        """A hypernetwork that is meta-trained on other sets."""

        def learn(names: Sequence[str]) -> Callable[[Part], Tensor]:
            net = trial.fit([self.train[name] for name in names], self.sizes.steps)
            return lambda part: net(part[0])

        return self.tried(learn)

    def in_draw(self, trial: Trial, prior: bool) -> list[Outcome]:
        """Weights that each draw learns from its own texts, for each penalty; ``prior``: starting from those of other sets."""

        @cache
        def start(names: tuple[str, ...]) -> Tensor:
            parts = [self.train[name] for name in names]
            weights = trial.fit(parts, self.sizes.steps).weights if prior else trial.network(parts[0]).weights
            return weights.detach()

        def learner(penalty: float) -> Learner:
            def learn(names: Sequence[str]) -> Callable[[Part], Tensor]:
                weights = start(tuple(names))
                return lambda part: weighted(part[0], in_draw(part[1], weights, penalty, self.sizes.own_steps))

            return learn

        return [self.tried(learner(penalty)) for penalty in PENALTIES]

    def temperature(self, name: str) -> float:
        """The factor of the base's logits with the least cross entropy on draws of the other sets."""
        parts = [self.inner[each][0] for each in self.sets if each != name]

        def entropy(factor: float) -> float:
            return float(np.mean([nats(x, corrected(x, (factor - 1) * x.logits)) for x in parts]))

        return min(np.geomspace(0.5, 20, 40).tolist(), key=entropy)

    def row(self, name: str, parts: Mapping[str, tuple[float, Tensor]]) -> str:
        """A line of the table, from factor and u of each set."""
        queries = {each: self.test[each][0] for each in parts}
        gains = np.stack([self.gained(each, queries[each], gain * u) for each, (gain, u) in parts.items()])
        entropy = np.mean([nats(queries[each], corrected(queries[each], gain * u)) for each, (gain, u) in parts.items()])
        cells = [f"{row.mean():+.2f} ± {half_width(row):.2f}" for row in gains]
        mean = f"{gains.mean():+.2f} ± {half_width(gains.mean(0)):.2f} | ± {half_width(gains.mean(1)):.2f}"
        factors = ", ".join(f"{gain:g}" for gain, _ in parts.values())
        return f"| {name} | {' | '.join(cells)} | {mean} | {entropy:.3f} | {factors} |"

    def table(self) -> Iterator[str]:
        """The lines, one after the other."""
        queries = {name: part[0] for name, part in self.test.items()}
        yield f"| what | {' | '.join(self.sets)} | mean, over draws | over sets | cross entropy \\[nats\\] | gains |"
        yield "| --- |" + " ---: |" * (len(self.sets) + 3) + " --- |"
        levels = [metric(x, corrected(x, torch.zeros_like(x.logits)), self.data[name].matthews) for name, x in queries.items()]
        entropy = np.mean([nats(x, corrected(x, torch.zeros_like(x.logits))) for x in queries.values()])
        means = " | ".join(f"{each.mean():.2f}" for each in levels)
        yield f"| base | {means} | {np.mean(levels):.2f} | | {entropy:.3f} | |"
        outcomes = []
        for trial in TRIALS:
            outcomes.append(outcome := self.other_sets(trial))
            yield self.row(str(trial), self.chosen([outcome]))
        yield self.row("best of these, chosen on the other sets", self.chosen(outcomes))
        for wide, prior in ((False, False), (True, False), (True, True)):
            trial = Trial("linear", wide)
            name = f"in-draw{', after the other sets' if prior else ''}: {trial}"
            yield self.row(name, self.chosen(self.in_draw(trial, prior)))
        layers = {name: (1.0, x.scores[..., -len(SCORES)] - x.logits) for name, x in queries.items()}
        yield self.row("no learning: the base on all layers", layers)
        scaled = {name: (1.0, (self.temperature(name) - 1) * x.logits) for name, x in queries.items()}
        yield self.row("temperature", scaled)
        for trial in OWN:
            own = {name: (1.0, trial.fit([self.train[name]], self.sizes.steps)(x)) for name, x in queries.items()}
            yield self.row(f"own draws: {trial}", own)
        yield self.row("oracle", {name: (1.0, overfitted(x)) for name, x in queries.items()})
