"""Precision of trainings: float32, or bfloat16 for matrix products and convolutions (mixed precision) on a GPU."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PRECISIONS = "float32", "bf16"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which a training computes its loss. ``bf16`` is PyTorch's autocast to bfloat16; weights, their gradients
    and the optimiser stay float32."""
    import torch

    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
