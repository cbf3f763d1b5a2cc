"""Samples and splits: what a task's data are to the rest of the suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Samples", "Splits"]


@dataclass(frozen=True)
class Samples:
    """N samples in a fixed order.

    Args:
        inputs: ``(N, ...)`` tensor or array; a base model takes a batch of it.
        targets: ``(N, ...)`` tensor or array; the task's loss and metrics take it beside an output.

    Raises:
        ValueError: if the two differ in their first size.

    Example:
        >>> samples = Samples([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [0, 1, 1])
        >>> len(samples), samples.inputs.shape, samples.targets
        (3, torch.Size([3, 2]), tensor([0, 1, 1]))

    .. versionadded:: 0.1
    """

    inputs: torch.Tensor
    targets: torch.Tensor

    def __post_init__(self) -> None:
        import torch

        for name in ("inputs", "targets"):
            value = getattr(self, name)
            if not isinstance(value, torch.Tensor):
                object.__setattr__(self, name, torch.as_tensor(value))
        if self.inputs.ndim == 0 or self.targets.ndim == 0 or len(self.inputs) != len(self.targets):
            raise ValueError(
                f"inputs {tuple(self.inputs.shape)} and targets {tuple(self.targets.shape)} must have the same first size"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Any) -> Samples:
        """The samples at ``indices``: a slice, a list or an index tensor.

        Example:
            >>> Samples([[0.0], [2.0], [4.0]], [0, 1, 2]).take([2, 0]).targets
            tensor([2, 0])
        """
        return Samples(self.inputs[indices], self.targets[indices])


@dataclass(frozen=True)
class Splits:
    """Training, validation and test samples of one dataset. No sample is in two of them.

    Args:
        train, val, test: :class:`Samples`, or a pair ``(inputs, targets)`` of tensors or arrays.
        note: one line for the table, for example ``"2,000 of 60,000 training samples"``.
        extras: what the task itself needs later (class names, scaling, file names); the core never reads it.

    Raises:
        ValueError: if a split is empty.

    Example:
        >>> splits = Splits(([[0.0], [1.0]], [0, 1]), ([[2.0]], [0]), ([[3.0]], [1]), note="four numbers")
        >>> len(splits.train), len(splits.val), len(splits.test)
        (2, 1, 1)

    .. versionadded:: 0.1
    """

    train: Samples
    val: Samples
    test: Samples
    note: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            value = getattr(self, name)
            if not isinstance(value, Samples):
                object.__setattr__(self, name, Samples(*value))
            if len(getattr(self, name)) == 0:
                raise ValueError(f"the {name} split is empty")
