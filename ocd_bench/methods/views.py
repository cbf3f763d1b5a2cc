"""Augmented copies of single test samples, for methods that look at a sample from several sides."""

from __future__ import annotations

import torch

from ocd_bench.errors import NotApplicable
from ocd_bench.method import Context
from ocd_bench.online import probe
from ocd_bench.task import Task

PROBED = 64
"""Number of copies for the test whether an augmentation changes a single sample. Many are needed, because an augmentation such
as mirroring often changes nothing."""


class Views:
    """Copies by ``Task.views``, or by ``Task.augment`` where a task has no views. They are drawn on the CPU, so that they are
    the same for every device.

    Args:
        context: what the method was given.
        method: its name; the random stream derives from it.

    Raises:
        NotApplicable: if the task has no augmentation, or one that needs other samples of a batch.
    """

    def __init__(self, context: Context, method: str) -> None:
        self._context, self._method = context, method
        task = context.task
        if type(task).augment is Task.augment and type(task).views is Task.views:
            raise NotApplicable(f"no augmentation: task {task.name!r} does not define augment or views")
        copies = probe(context, 1).cpu().repeat_interleave(PROBED, 0)
        if torch.equal(self._changed(copies, context.generator(method, "probe")), copies):
            raise NotApplicable(
                f"task {task.name!r} augments a sample only with other samples of its batch; "
                f"{method.upper()} needs per-sample augmentation"
            )
        self.reset()

    def reset(self) -> None:
        """Begin the random stream anew."""
        self._generator = self._context.generator(self._method, "augment")

    def __call__(self, inputs: torch.Tensor, copies: int) -> torch.Tensor:
        """``copies`` views ``(N, copies, ...)`` of each of N inputs, on their device."""
        repeated = inputs.cpu().repeat_interleave(copies, 0)
        return self._changed(repeated, self._generator).to(inputs.device).unflatten(0, (len(inputs), copies))

    def _changed(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        task = self._context.task
        changed = task.views(inputs, generator)
        if changed is None:
            target = torch.zeros_like(self._context.train.targets[:1])  # augment is given zeros as labels
            targets = target.repeat(len(inputs), *[1] * (target.ndim - 1))
            changed, _ = task.augment(inputs, targets, generator)
        return changed
