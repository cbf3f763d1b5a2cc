"""Draws of a few texts per class, and the inputs of a hypernetwork for each text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn

from few_shot.texts import LAYERS, Vectors

SHOTS = 8
SCORES = "regression", "mean", "nearest", "three"
"""Of a class in one space: its logit, and the mean, the largest and the three largest similarities to its texts."""


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


def whole(x: Samples) -> Samples:
    """The draws that have all classes, numbered from 0."""
    kept = x.take(x.whole)
    return replace(kept, draw=kept.draw.unique(return_inverse=True)[1])
