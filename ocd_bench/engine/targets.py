"""What a hypernetwork is trained on: samples with their I(x) and the codes of their ΔW; and what those depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ocd_bench.engine.overfit import Overfit
from ocd_bench.engine.problem import Data, Problem
from ocd_bench.seeds import seeded

if TYPE_CHECKING:
    from ocd_bench.engine.settings import OCDSettings


@dataclass(frozen=True)
class TargetSettings:
    """What the targets depend on; see :class:`ocd_bench.engine.settings.OCDSettings` for the fields.

    Attributes:
        answers: whether the task's own targets and the traces are kept, for training on the task's loss.
        steps, batch_size: of the training that the targets are for.
    """

    overfit: Overfit
    form: str
    basis: int
    passes: int
    folds: int
    augment: bool
    conditions: tuple[str, ...]
    input_encoder: bool
    answers: bool
    task_batch: int
    steps: int
    batch_size: int

    @classmethod
    def of(cls, settings: OCDSettings) -> TargetSettings:
        """The part of the settings that the targets depend on."""
        same = {name: getattr(settings, name) for name in cls.__annotations__ if name not in ("overfit", "answers")}
        return cls(overfit=Overfit.of(settings), answers=settings.task_weight > 0, **same)


@dataclass(frozen=True)
class Targets:
    """N samples as a hypernetwork is trained on them.

    Attributes:
        features: I(x), each ``(N, D)``.
        code: of the overfitted ΔW, ``(N, K)``.
        inputs: the samples themselves ``(N, ...)``, augmented but not subsampled; None where nothing needs them.
        answers: the task's targets ``(N, ...)`` of ``inputs``; None where the task's loss is not trained on.
    """

    features: dict[str, Tensor]
    code: Tensor
    inputs: Tensor | None = None
    answers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.code)

    def take(self, indices: Tensor | slice) -> Targets:
        """The samples at ``indices``."""
        return self._map(lambda part: part[indices])

    def to(self, device: torch.device) -> Targets:
        """On another device."""
        return self._map(lambda part: part.to(device, non_blocking=device.type == "cuda"))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Targets:
        inputs = None if self.inputs is None else change(self.inputs)
        answers = None if self.answers is None else change(self.answers)
        return Targets({name: change(value) for name, value in self.features.items()}, change(self.code), inputs, answers)

    def numbers(self) -> int:
        """Numbers held per sample."""
        parts = [*self.features.values(), self.code, self.inputs, self.answers]
        return sum(part[0].numel() for part in parts if part is not None)


def join(parts: Sequence[Targets]) -> Targets:
    """Several batches of targets as one."""

    def whole(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [value for value in values if value is not None]
        return torch.cat(known) if known else None

    return Targets(
        {name: torch.cat([part.features[name] for part in parts]) for name in parts[0].features},
        torch.cat([part.code for part in parts]),
        whole([part.inputs for part in parts]),
        whole([part.answers for part in parts]),
    )


def validation_samples(problem: Problem, limit: int) -> Data:
    """At most ``limit`` validation samples, subsampled: the same in every call."""
    generator = seeded(problem.seed, "validation")
    chosen = torch.randperm(len(problem.val[0]), generator=generator)[:limit].sort().values
    inputs, targets = problem.val[0][chosen], problem.val[1][chosen]
    return (inputs, targets) if problem.subsample is None else problem.subsample(inputs, targets, generator)
