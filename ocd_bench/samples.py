"""Samples and splits: the form of a task's data in the rest of the suite."""

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
        inputs: ``(N, ...)``; a base model takes a batch of it. A tensor, a NumPy array, a data frame or series of numbers, or a
            list of numbers or of tensors, arrays or pictures of one shape. 64-bit floating numbers that are no tensor become
            torch's default type, float32.
        targets: the same; the task's loss and metrics take it beside an output.
        groups: integers ``(N,)`` or ``(N, K)``: where a sample comes from, such as its speaker, query, scene or day. Samples
            that share an id in any column are dependent; with K > 1 all columns have ids of one pool (the speakers of a
            mixture). Intervals count dependent samples as such. None: not stated; intervals then take the samples for
            independent, and a table says so. To state that they are independent, give each a group of its own:
            ``groups=range(N)``.

    Raises:
        TypeError: if inputs or targets do not hold numbers.
        ValueError: if inputs and targets differ in their first size, or samples in shape; or if groups have another shape or
            are no integers.

    Example:
        >>> samples = Samples([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [0, 1, 1])
        >>> len(samples), samples.inputs.shape, samples.targets
        (3, torch.Size([3, 2]), tensor([0, 1, 1]))

    .. versionadded:: 0.1
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    groups: Any = None

    def __post_init__(self) -> None:
        from ocd_bench.convert import as_tensor, of_several

        several = of_several(self.inputs)
        for name in ("inputs", "targets"):
            object.__setattr__(self, name, as_tensor(getattr(self, name), name))
        if self.inputs.ndim == 0 or self.targets.ndim == 0 or len(self.inputs) != len(self.targets):
            sizes = f"inputs {tuple(self.inputs.shape)} and targets {tuple(self.targets.shape)}"
            raise ValueError(f"{sizes} must have the same first size{several}")
        if self.groups is not None:
            object.__setattr__(self, "groups", _group_ids(self.groups, len(self.inputs)))

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Any) -> Samples:
        """The samples at ``indices``: a slice, a list or an index tensor.

        Example:
            >>> Samples([[0.0], [2.0], [4.0]], [0, 1, 2]).take([2, 0]).targets
            tensor([2, 0])
        """
        groups = None if self.groups is None else self.groups[indices]
        return Samples(self.inputs[indices], self.targets[indices], groups)


def _group_ids(groups: Any, n: int) -> torch.Tensor:
    """Groups as int64 ``(N,)`` or ``(N, K)``.

    Raises:
        ValueError: if they are of another shape, or no integers.
    """
    import torch

    ids = torch.as_tensor(list(groups) if isinstance(groups, range) else groups)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"groups are {ids.dtype}: expected integers")
    if ids.ndim not in (1, 2) or len(ids) != n or (ids.ndim == 2 and not ids.shape[1]):
        raise ValueError(f"groups of {n} samples have shape {tuple(ids.shape)}: expected ({n},) or ({n}, K)")
    return ids.long().cpu()


@dataclass(frozen=True)
class Splits:
    """Training, validation and test samples of one dataset. No sample is in two of them.

    Args:
        train, val, test: :class:`Samples`; a tuple ``(inputs, targets)`` or ``(inputs, targets, groups)`` of what
            :class:`Samples` takes; a ``TensorDataset`` of two tensors; or another map-style dataset, whose samples are pairs
            ``(input, target)`` of one shape.
        note: one line for the table, for example ``"2,000 of 60,000 training samples"``.
        extras: data that the task needs later (class names, scaling, file names). The core never reads it.

    Raises:
        TypeError, ValueError: if a split is empty, or not one of these; the message says what to do.

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
                object.__setattr__(self, name, _samples(value, name))
            if len(getattr(self, name)) == 0:
                raise ValueError(f"the {name} split is empty")


def _samples(value: Any, name: str) -> Samples:
    """A split of another form than :class:`Samples`; messages begin with its name."""
    from ocd_bench.convert import parts_of

    parts = parts_of(value, name)
    try:
        return Samples(*parts)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} {error}") from None
