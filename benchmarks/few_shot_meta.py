"""Few-shot text: where a base of 8 texts a class errs, learnt on other datasets and used on a new one without training.

    python benchmarks/few_shot_meta.py --data-dir DATA
    python benchmarks/few_shot_meta.py --slice

The base is the logistic regression of the task ``nlp`` on the packaged MiniLM, which stays frozen. Of a linear layer that sees
a unit vector a, ΔW = u aᵀ adds u to the logits. So a hypernetwork predicts one number per class, and a plain correction of the
logits (the control `capacity`) is the same network. Here it is a regression, without diffusion. It is told how a text scores in
each class: by the base, by the similarity to the class's texts, and by the same scores in the lower layers of MiniLM. It treats
all classes alike, so it can be trained on draws from sets with any number of them.

Each set is left out in turn. The network is trained on draws from the other sets and from the packaged `requests`. Its factor
(0: the base), and in the row "best of these" the network, are those that help most, on average, on each of the other sets when
that one is left out of training as well. The test labels of the set that is left out are used for scores only. Intervals are
Student's: over draws, of the mean over sets, and over sets. The rows "in-draw" learn from the draw's own texts. Each of them is
scored by what was fitted without it (and without one text of each other class). "Own draws" is the oracle of the conditions:
the same network, trained on labelled draws from the training texts of the very set. `oracle` overfits each test text, with its
label. ``--slice`` needs no data: its sets are classes of `requests`, so they share texts, and its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn

import ocd_bench_nlp
from ocd_bench.cache import remembered
from ocd_bench.errors import OCDBenchError
from ocd_bench_nlp.encoders import TransformerEncoder, load_encoder
from ocd_bench_nlp.store import weights_sha256
from ocd_bench_nlp.task import MATTHEWS, OVERFIT
from ocd_bench_nlp.texts import Texts, cut, read_file, read_place

SETS = "sst5", "emotion", "ag_news", "amazon_counterfactual_en"
EXTRA = "requests"
LAYERS = 6, 0, 2, 4
"""Hidden states of MiniLM whose mean over tokens is read. The first is its output, the space of the base; 0: its input."""
SCORES = "regression", "mean", "nearest", "three"
"""Of a class in one space: its logit, and the mean, the largest and the three largest similarities to its texts."""
SHOTS = 8
GAINS = 0.0, 0.25, 0.5, 1.0, 1.5, 2.0
PENALTIES = 0.01, 0.03, 0.1, 0.3, 1.0, 3.0
LOW = -1e4
"""The logit of a class that a set has not."""


@dataclass(frozen=True)
class Sizes:
    """Texts kept, draws, and training steps. Of more than 3 classes, every other draw for training has a part."""

    pool: int = 1500
    test: int = 1000
    train_draws: int = 80
    queries: int = 64
    test_draws: int = 20
    steps: int = 400
    own_steps: int = 150


SMALL = Sizes(pool=100, test=100, train_draws=6, queries=16, test_draws=3, steps=30, own_steps=20)


# -- texts and draws ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Vectors:
    """A set: mean hidden states ``(N, len(LAYERS), D)`` and classes ``(N,)`` of its pool and of its test texts."""

    pool: Tensor
    classes: Tensor
    test: Tensor
    truth: Tensor
    matthews: bool = False


def sample(texts: Texts, count: int) -> Texts:
    """At most ``count`` of them, chosen as the task chooses its test texts."""
    return texts.take(sorted(random.Random(0).sample(range(len(texts)), count))) if len(texts) > count else texts


@torch.no_grad()
def hidden(encoder: nn.Module, texts: Sequence[str], batch: int = 64) -> Tensor:
    """Means over tokens of the hidden states ``LAYERS``: ``(N, len(LAYERS), D)``. Texts of similar length are in one batch."""
    if not isinstance(encoder, TransformerEncoder):
        raise TypeError(f"hidden states of a transformer are needed, not of {type(encoder).__name__}")
    model = encoder.model
    tokenize = getattr(model, "preprocess", None) or model.tokenize
    order, parts = sorted(range(len(texts)), key=lambda index: len(texts[index])), []
    for start in range(0, len(order), batch):
        tokens = {k: v for k, v in tokenize([texts[i] for i in order[start : start + batch]]).items() if isinstance(v, Tensor)}
        states = model[0].auto_model(**tokens, output_hidden_states=True).hidden_states
        mask = tokens["attention_mask"].unsqueeze(2).float()
        parts.append(torch.stack([(states[layer] * mask).sum(1) / mask.sum(1) for layer in LAYERS], 1))
    found = torch.cat(parts)
    return torch.empty_like(found).index_copy_(0, torch.tensor(order), found)


def vectors(name: str, pool: Texts, test: Texts, sizes: Sizes, encoder: nn.Module) -> Vectors:
    """A set, encoded once. Texts of its test are not in its pool."""
    test = sample(test, sizes.test)
    held = set(test.texts)
    pool = sample(pool.take([i for i, text in enumerate(pool.texts) if text not in held]), sizes.pool)
    number = {label: index for index, label in enumerate(sorted(set(pool.labels)))}
    known = {"encoder": weights_sha256(encoder), "layers": LAYERS, "texts": [pool.texts, test.texts]}

    def build() -> list[Tensor]:
        return [hidden(encoder, part.texts) for part in (pool, test)]

    states = remembered("embeddings", f"layers-{name}", known, build, ["ocd_bench_nlp.encoders"])
    classes, truth = (torch.tensor([number[label] for label in part.labels]) for part in (pool, test))
    return Vectors(states[0], classes, states[1], truth, name in MATTHEWS)


@dataclass(frozen=True)
class Samples:
    """Texts of several draws with all that a hypernetwork is told; K is the largest number of classes.

    Args:
        logits: of the base ``(N, K)``.
        scores: of each class, in every space ``(N, K, F)``.
        about: each class of the draw ``(N, K, C)``.
        held: how well each score tells the draw's texts apart when it has not seen them ``(N, F)``, in nats above chance.
        mask: which classes there are ``(N, K)``.
        targets, draw: ``(N,)``.
        whole: whether the draw has all classes of its set ``(N,)``.
    """

    logits: Tensor
    scores: Tensor
    about: Tensor
    held: Tensor
    mask: Tensor
    targets: Tensor
    draw: Tensor
    whole: Tensor

    def take(self, index: Tensor) -> Samples:
        """Those at ``index``."""
        return Samples(*(getattr(self, field.name)[index] for field in fields(self)))


def join(parts: Sequence[Samples]) -> Samples:
    """All of them, with as many classes as the widest has."""
    widest = max(part.mask.shape[1] for part in parts)

    def wide(tensor: Tensor, name: str) -> Tensor:
        if name not in ("logits", "scores", "about", "mask"):
            return tensor
        return torch.cat([tensor, tensor.new_zeros(len(tensor), widest - tensor.shape[1], *tensor.shape[2:])], 1)

    return Samples(*(torch.cat([wide(getattr(part, f.name), f.name) for part in parts]) for f in fields(Samples)))


def regressions(gram: Tensor, labels: Tensor, weights: Tensor, steps: int = 300) -> tuple[Tensor, Tensor]:
    """The task's logistic regression (C = 1) by gradient steps on dual coefficients, once for each row of ``weights``.

    Two classes have one weight vector there, whose penalty is that of two vectors with C = 1/2.

    Args:
        gram: inner products of the n texts ``(n, n)``.
        labels: one-hot ``(n, K)``.
        weights: of the texts, 0 or 1: ``(P, n)``.

    Returns:
        Coefficients ``(P, n, K)`` and intercepts ``(P, 1, K)``. The logits of a text are its inner products with the n texts
        times the coefficients, plus the intercept.
    """
    strength = 0.5 if labels.shape[1] == 2 else 1.0
    rate = 1 / (1 + strength * float(torch.linalg.matrix_norm(gram, 2)) / min(3, labels.shape[1]))
    weights, labels = weights.unsqueeze(2), labels.float()
    found, intercept = torch.zeros(len(weights), *labels.shape), torch.zeros(len(weights), 1, labels.shape[1])
    for _ in range(steps):
        rest = weights * (labels - (gram @ found + intercept).softmax(-1))
        found += rate * (strength * rest - found)
        intercept += 0.7 * rest.mean(1, keepdim=True)
    return found, intercept


def spaces(shots: Tensor, queries: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Inner products among a draw's n texts ``(n, n)``, and of queries with them ``(M, n)``: of the output of MiniLM, of each
    lower layer (about the mean of the n), and the mean of all layers."""
    unit = nn.functional.normalize
    found, total = [], [torch.zeros(()), torch.zeros(())]
    for place in range(len(LAYERS)):
        a, q = unit(shots[:, place], dim=1), unit(queries[:, place], dim=1)
        b, r = unit(a - a.mean(0), dim=1), unit(q - a.mean(0), dim=1)
        found.append((b @ b.T, r @ b.T) if place else (a @ a.T, q @ a.T))
        total = [total[0] + b @ b.T / len(LAYERS), total[1] + r @ b.T / len(LAYERS)]
    return [*found, (total[0], total[1])]


def described(shots: Tensor, labels: Tensor, queries: Tensor, targets: Tensor) -> tuple[Samples, Samples]:
    """Queries of one draw as samples, and the draw's own texts, each as seen by what was fitted without it.

    Args:
        shots: ``(n, len(LAYERS), D)``, the classes in turn.
        labels: of the shots ``(n,)``.
        queries, targets: ``(M, len(LAYERS), D)`` and ``(M,)``.
    """
    count = int(labels.max()) + 1
    hot = nn.functional.one_hot(labels, count).float()
    fold = ((hot.cumsum(0) * hot).sum(1) - 1).long()  # a text's place in its class; those of one place are left out together
    keep = (fold != torch.arange(int(fold.max()) + 1).unsqueeze(1)).float()  # (folds, n)
    here = keep[fold]  # (n, n): what a text may be compared with

    def nearest(similar: Tensor, among: int) -> Tensor:
        return torch.stack([similar[:, labels == each].topk(among).values.mean(1) for each in range(count)], 1)

    ours, theirs, about, logits = [], [], [], []
    for gram, products in spaces(shots, queries):
        fitted, constant = regressions(gram, hot, torch.ones(1, len(labels)))
        left, constants = regressions(gram, hot, keep)
        apart = gram.masked_fill(here == 0, -2)
        pairs = (  # of queries, and of the draw's own texts
            ((products @ fitted + constant)[0], (gram.unsqueeze(1) @ left[fold] + constants[fold]).squeeze(1)),
            (products @ hot / SHOTS, (gram * here) @ hot / (SHOTS - 1)),
            *((nearest(products, among), nearest(apart, among)) for among in (1, 3)),
        )
        logits.append(pairs[0])
        for pair in pairs:
            query, own = (each - each.mean(1, keepdim=True) for each in pair)
            unit = own.std(1).mean() + 1e-6
            ours.append(query / unit)
            theirs.append(own / unit)
        about += [hot.T @ (gram * here).sum(1) / SHOTS**2, hot.T @ gram.mean(1) / SHOTS]
        about.append(hot.T @ (theirs[-len(SCORES)] * hot).sum(1) / SHOTS)
    held = torch.stack([(each.log_softmax(1) * hot).sum(1).mean() + math.log(count) for each in theirs])

    def samples(outputs: Tensor, scores: list[Tensor], answers: Tensor) -> Samples:
        n = len(outputs)
        classes = torch.stack(about, 1).expand(n, -1, -1)
        mask, none = torch.ones(n, count, dtype=torch.bool), torch.zeros(n, dtype=torch.long)
        centred = outputs - outputs.mean(1, keepdim=True)
        return Samples(centred, torch.stack(scores, 2), classes, held.expand(n, -1), mask, answers, none, none == 0)

    return samples(logits[0][0], ours, targets), samples(logits[0][1], theirs, labels)


def draws(data: Vectors, count: int, rng: np.random.Generator, queries: int | None = None) -> tuple[Samples, Samples]:
    """So many draws: their queries and their own texts, with the number of the draw.

    Args:
        queries: per draw, other texts of the pool, every other draw with some of the classes; None: all test texts.
    """
    pairs, classes = [], data.classes.numpy()
    widest = int(classes.max()) + 1
    for number in range(count):
        chosen = np.arange(widest)
        if queries and number % 2 and widest > 3:
            chosen = np.sort(rng.choice(widest, rng.integers(3, widest), replace=False))
        shots = np.concatenate([rng.choice(np.flatnonzero(classes == each), SHOTS, replace=False) for each in chosen])
        labels = torch.arange(len(chosen)).repeat_interleave(SHOTS)
        if queries:
            others = np.setdiff1d(np.flatnonzero(np.isin(classes, chosen)), shots)
            asked = rng.choice(others, min(queries, len(others)), replace=False)
            x, y = data.pool[asked], torch.from_numpy(np.searchsorted(chosen, classes[asked]))
        else:
            x, y = data.test, data.truth
        pair = described(data.pool[shots], labels, x, y)
        all_classes = len(chosen) == widest
        pairs.append([replace(each, draw=each.draw + number, whole=each.whole & all_classes) for each in pair])
    return join([pair[0] for pair in pairs]), join([pair[1] for pair in pairs])


# -- hypernetworks --------------------------------------------------------------------------------------------------------
class Hypernetwork(nn.Module):
    """u ``(N, K)`` from the conditions, alike for every class; 0 before training.

    ``linear``: a weighted sum of a class's scores. ``gated``: the weights also grow with how well each score does on the draw's
    own texts. ``deep``: adds a small network of each class and of the mean and maximum over classes (deep sets).
    """

    def __init__(self, kind: str, wide: bool, scores: int, about: int) -> None:
        super().__init__()
        self.kind = kind
        self.scores, self.about = (scores, about) if wide else (len(SCORES), about * len(SCORES) // scores)
        self.weights = nn.Parameter(torch.zeros(self.scores))
        self.slope = nn.Parameter(torch.zeros(()), requires_grad=kind == "gated")
        if kind == "deep":
            self.each = nn.Linear(2 * self.scores + self.about + 3, 32)
            self.pooled = nn.Sequential(nn.Linear(96, 32), nn.SiLU(), nn.Dropout(0.2), nn.Linear(32, 1))
            for parameter in self.pooled[3].parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Samples) -> Tensor:
        scores, held, mask = x.scores[..., : self.scores], x.held[:, : self.scores], x.mask
        u = (scores * (self.weights + self.slope * (held - held[:, :1])).unsqueeze(1)).sum(2)
        if self.kind == "deep":
            logs = scores[..., 0].masked_fill(~mask, LOW).log_softmax(1)
            sure = torch.stack([(logs.exp() * logs).sum(1), logs.max(1).values, mask.sum(1).float().log()], 1)
            draw = torch.cat([held, sure], 1).unsqueeze(1).expand(-1, mask.shape[1], -1)
            h = nn.functional.silu(self.each(torch.cat([scores, x.about[..., : self.about], draw], 2)))
            there = mask.unsqueeze(2)
            mean = (h * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)
            most = h.masked_fill(~there, LOW).max(1, keepdim=True).values
            u = u + self.pooled(torch.cat([h, mean.expand_as(h), most.expand_as(h)], 2)).squeeze(2)
        return (u - (u * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)) * mask


def corrected(x: Samples, u: Tensor) -> Tensor:
    """Logits with W + u aᵀ."""
    return (x.logits + u).masked_fill(~x.mask, LOW)


def overfitted(x: Samples) -> Tensor:
    """u of every sample after the task's own steps of overfitting to its label: ``ocd_bench.engine.overfit`` where ‖a‖ = 1."""
    u, hot = torch.zeros_like(x.logits), nn.functional.one_hot(x.targets, x.mask.shape[1])
    for _ in range(int(OVERFIT["ocd.overfit_steps"])):
        u = u - OVERFIT["ocd.overfit_lr"] * (corrected(x, u).softmax(1) - hot)
    return u


@dataclass(frozen=True)
class Trial:
    """A hypernetwork and how it is trained: by cross entropy with W + ΔW, or to imitate overfitted u."""

    kind: str
    wide: bool
    imitate: bool = False

    def __str__(self) -> str:
        return f"{'all layers' if self.wide else 'output only'}, {self.kind}{', imitation' if self.imitate else ''}"

    def network(self, like: Samples) -> Hypernetwork:
        """An untrained one for such samples."""
        return Hypernetwork(self.kind, self.wide, like.scores.shape[2], like.about.shape[2])

    def fit(self, parts: Sequence[Samples], steps: int) -> Hypernetwork:
        """Trained on batches of 128 of every set."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = self.network(parts[0])
            deep = self.kind == "deep"
            optimizer = torch.optim.AdamW(net.parameters(), 3e-3 if deep else 1e-2, weight_decay=0.1 if deep else 0.01)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            for _ in range(steps):
                x = join([part.take(torch.randint(len(part.targets), (128,))) for part in parts])
                u = net(x)
                if self.imitate:
                    loss = ((u - overfitted(x)).square() * x.mask).sum(1).mean()
                else:
                    loss = nn.functional.cross_entropy(corrected(x, u), x.targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return net.eval().requires_grad_(False)


TRIALS = tuple(Trial(kind, wide) for wide in (False, True) for kind in ("linear", "gated", "deep"))
TRIALS += Trial("linear", True, imitate=True), Trial("deep", True, imitate=True)
OWN = tuple(Trial(kind, wide) for wide in (False, True) for kind in ("linear", "deep"))


def in_draw(own: Samples, prior: Tensor, penalty: float, steps: int) -> Tensor:
    """Weights of scores for each draw ``(draws, F)``, fitted to the draw's own texts with a penalty on their distance from
    ``prior``."""
    weights = prior.expand(int(own.draw.max()) + 1, -1).clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], 3e-2)
    share = 1 / own.draw.bincount()[own.draw]
    for _ in range(steps):
        losses = nn.functional.cross_entropy(corrected(own, weighted(own, weights)), own.targets, reduction="none")
        loss = (share * losses).sum() + penalty / 2 * (weights - prior).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weights.detach()


def weighted(x: Samples, weights: Tensor) -> Tensor:
    """u of samples whose draws have ``weights`` ``(draws, F)``; the first F scores count."""
    return (x.scores[..., : weights.shape[1]] * weights[x.draw].unsqueeze(1)).sum(2) * x.mask


# -- scores ---------------------------------------------------------------------------------------------------------------
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


def whole(x: Samples) -> Samples:
    """The draws that have all classes, numbered from 0."""
    kept = x.take(x.whole)
    return replace(kept, draw=kept.draw.unique(return_inverse=True)[1])


def read(folder: Path | None, sizes: Sizes) -> dict[str, Vectors]:
    """The sets of a data directory and `requests`; without one, three sets made of the classes of `requests`."""
    packaged = read_file(Path(ocd_bench_nlp.__file__).with_name("requests.csv"))
    names = sorted(set(packaged.labels))
    if folder is None:
        some = [packaged.take([i for i, label in enumerate(packaged.labels) if label in names[k : k + 3]]) for k in range(3)]
        found = {f"{EXTRA}-{number}": cut(each, 0.4) for number, each in enumerate(some)}
    else:
        found = {name: read_place(folder / "text" / name) for name in SETS} | {EXTRA: cut(packaged, 0.4)}
    encoder = load_encoder("minilm", allow_download=False).eval()
    return {name: vectors(name, pool, test, sizes, encoder) for name, (pool, _, test) in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="holds text/NAME for the four sets; needed without --slice")
    parser.add_argument("--slice", action="store_true", help="a small form, without --data-dir on the packaged requests")
    args = parser.parse_args(arguments)
    if args.data_dir is None and not args.slice:
        parser.error("--data-dir: needed without --slice")
    sizes = SMALL if args.slice else Sizes()
    try:
        for line in Study(read(args.data_dir, sizes), sizes).table():
            print(line, flush=True)
    except OCDBenchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
