"""Training of a base model on the task's own loss. The fingerprint of every base model includes this file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ocd_bench.config import BaseSettings
from ocd_bench.errors import UsageError
from ocd_bench.precision import autocast
from ocd_bench.progress import Progress

if TYPE_CHECKING:
    from ocd_bench.samples import Samples, Splits
    from ocd_bench.task import Request, Task


def train(
    model: torch.nn.Module,
    task: Task,
    splits: Splits,
    request: Request,
    settings: BaseSettings,
    device: torch.device,
    progress: Progress,
) -> torch.nn.Module:
    """Minimise ``task.loss`` on the training samples. Keep the weights of the epoch with the smallest mean validation loss.

    A training that was killed continues at the step that ``progress`` has kept.
    """
    order = request.generator("base-order")
    changes = request.generator("base-augment")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(settings, parameters)
    batches, epochs = math.ceil(len(splits.train) / settings.batch_size), passes(settings, len(splits.train))
    total = max(1, epochs * batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    best, best_state = float("inf"), None
    done, before = 0, order.get_state()
    if state := progress.resume():
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        changes.set_state(state["augment"])
        order.set_state(state["order"])
        done, best, best_state = state["done"], state["best"], state["best_state"]

    def now() -> dict[str, Any]:
        return {
            "done": done,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "augment": changes.get_state(),
            "order": before,
            "best": best,
            "best_state": best_state,
        }

    for epoch in range(done // batches, epochs):
        model.train()
        before = order.get_state()
        permutation = torch.randperm(len(splits.train), generator=order)
        for number, indices in enumerate(permutation.split(settings.batch_size)):
            if epoch * batches + number < done:
                continue  # done before the training was killed
            batch = splits.train.take(indices)
            inputs, targets = task.subsample(batch.inputs, batch.targets, changes)
            if settings.augment:
                inputs, targets = task.augment(inputs, targets, changes)
            if len(inputs) < 2 and number:
                continue  # batch statistics of one sample are undefined
            with autocast(settings.precision, device):
                loss = task.loss(model(inputs.to(device)), targets.to(device)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            done = epoch * batches + number + 1
            progress(done, total)
            if number + 1 < batches:
                progress.save(now)
        validation = mean_loss(model.eval(), task, splits.val, settings.batch_size, device)
        if validation < best or best_state is None:
            best = validation
            best_state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        done, before = (epoch + 1) * batches, order.get_state()
        progress.save(now, finished=done == total)
    if best_state is not None:
        model.load_state_dict(best_state)
    return model


def passes(settings: BaseSettings, samples: int) -> int:
    """Passes over so many training samples: ``epochs``, or more until there are ``least_steps`` steps. 0 epochs stay 0."""
    batches = math.ceil(samples / settings.batch_size)
    return max(settings.epochs, math.ceil(settings.least_steps / batches)) if settings.epochs else 0


def _optimizer(settings: BaseSettings, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.lr, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay)
    raise UsageError(f"setting base.optimizer={settings.optimizer!r}: expected adamw, adam or sgd")


@torch.no_grad()
def mean_loss(model: torch.nn.Module, task: Task, samples: Samples, batch_size: int, device: torch.device) -> float:
    """Mean of the task's per-sample losses."""
    total = 0.0
    for start in range(0, len(samples), batch_size):
        batch = samples.take(slice(start, start + batch_size))
        total += task.loss(model(batch.inputs.to(device)), batch.targets.to(device)).sum().item()
    return total / len(samples)
