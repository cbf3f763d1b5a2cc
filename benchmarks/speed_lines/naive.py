"""What the engine is compared with: plain loops over samples, as in the code of the paper's authors, with batches of one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


def overfit_loop(
    model: nn.Module, name: str, x: Tensor, y: Tensor, loss: Loss, optimizer: str, lr: float, steps: int
) -> Tensor:
    """ΔW of one layer ``(N, O, I)``: for each sample a copy of the model, whose layer is trained on that sample alone."""
    found = []
    for sample, target in zip(x, y, strict=True):
        own = copy.deepcopy(model)
        weight = own.get_submodule(name).weight
        before = weight.detach().clone()
        weight.requires_grad_(True)
        method = torch.optim.Adam([weight], lr=lr) if optimizer == "adam" else torch.optim.SGD([weight], lr=lr)
        for _ in range(steps):
            method.zero_grad()
            loss(own(sample[None]), target[None]).sum().backward()
            method.step()
        found.append(weight.detach() - before)
    return torch.stack(found).flatten(2)


@torch.no_grad()
def apply_loop(model: nn.Module, name: str, x: Tensor, changes: Tensor) -> Tensor:
    """Outputs ``(N, ...)`` of the model with each sample's own change ``(N, O, I)`` of one layer, one sample at a time."""
    weight, found = model.get_submodule(name).weight, []
    before = weight.detach().clone()
    for sample, change in zip(x, changes, strict=True):
        weight.copy_(before + change.reshape(before.shape))
        found.append(model(sample[None]))
    weight.copy_(before)
    return torch.cat(found)


@torch.no_grad()
def noise_loop(
    model: nn.Module, name: str, x: Tensor, y: Tensor, loss: Loss, std: float, draws: int, generator: torch.Generator
) -> Tensor:
    """Losses ``(draws, N)`` under weight noise: the whole model runs for each draw."""
    weight, values = model.get_submodule(name).weight, []
    before = weight.detach().clone()
    for _ in range(draws):
        noise = torch.randn(before.flatten(1).shape, generator=generator)
        weight.copy_(before + std * noise.reshape(before.shape))
        values.append(loss(model(x), y))
    weight.copy_(before)
    return torch.stack(values)
