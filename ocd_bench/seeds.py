"""Seeds by name: every random draw has a stream derived from what it is for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(*parts: object) -> int:
    """A seed in [0, 2**63) from the SHA-256 of ``parts``; any change of any part gives an unrelated seed."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seeded(*parts: object) -> torch.Generator:
    """A CPU generator whose seed is :func:`derive` of ``parts``."""
    import torch

    return torch.Generator().manual_seed(derive(*parts))


def generator(task: str, dataset: str, method: str, seed: int, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose of one cell."""
    return seeded(task, dataset, method, seed, purpose)
