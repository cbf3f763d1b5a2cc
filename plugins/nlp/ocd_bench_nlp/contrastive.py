"""Contrastive fine-tuning of a sentence encoder on a few labelled texts (SetFit, Tunstall et al. 2022, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def pairs(labels: Sequence[int], rounds: int, generator: torch.Generator) -> Tensor:
    """Pairs of text indices with their target similarity, ``(M, 3)``. In each round every text is paired with one text of its
    own class (1) and one of another class (0). The only text of a class is paired with itself."""
    classes = torch.tensor(labels)
    rows = []
    for _ in range(rounds):
        for index, label in enumerate(labels):
            same = (classes == label).nonzero()[:, 0]
            same = same[same != index] if len(same) > 1 else same
            other = (classes != label).nonzero()[:, 0]
            for group, wanted in ((same, 1), (other, 0)):
                if len(group):
                    rows.append((index, int(group[torch.randint(len(group), (), generator=generator)]), wanted))
    return torch.tensor(rows)[torch.randperm(len(rows), generator=generator)]


def fine_tune(
    encoder: nn.Module,
    texts: Sequence[str],
    labels: Sequence[int],
    rounds: int,
    lr: float,
    batch: int,
    generator: torch.Generator,
) -> nn.Module:
    """Train on one pass over the pairs of :func:`pairs`; changes and returns ``encoder``.

    The loss is the squared error of the cosine of two embeddings against 1 or 0. AdamW has a linear warm-up over a tenth of the
    steps and a linear decay, the defaults of sentence-transformers.
    """
    if rounds == 0:
        return encoder
    every = pairs(labels, rounds, generator)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=lr, weight_decay=0.01)
    steps = -(-len(every) // batch)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / warm, (steps - s) / max(1, steps - warm)))
    encoder.train()
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global stream
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        for chosen in every.split(batch):
            needed, place = torch.unique(chosen[:, :2], return_inverse=True)  # a text in several pairs is encoded once
            vectors = encoder([texts[i] for i in needed.tolist()])
            cosine = (vectors[place[:, 0]] * vectors[place[:, 1]]).sum(-1)
            loss = (cosine - chosen[:, 2].to(cosine)).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return encoder.eval()
