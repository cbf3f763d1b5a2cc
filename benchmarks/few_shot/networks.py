"""Hypernetworks that give u, one number per class, and treat all classes alike; and what u does to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from few_shot.draws import SCORES, Samples, join
from ocd_bench_nlp.task import OVERFIT

LOW = -1e4
"""The logit of a class that a set has not."""


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
