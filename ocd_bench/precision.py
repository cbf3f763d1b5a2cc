"""Precision of trainings: float32, or bfloat16 for matrix products and convolutions (mixed precision) on a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

PRECISIONS = "float32", "bf16"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which a training computes its loss. ``bf16`` is PyTorch's autocast to bfloat16; weights, their gradients
    and the optimiser stay float32."""
    import torch

    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextlib.contextmanager
def fast_layout(model: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """The weights with channels last while it lasts, in mixed precision on a GPU: its convolutions take them that way."""
    import torch

    if precision == "float32" or device.type != "cuda":
        yield
        return
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Without TF32 in cuDNN's convolutions and recurrent layers, which is PyTorch's default on a GPU: for checks that compare
    two computations of the same number."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
