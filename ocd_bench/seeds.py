"""Seeds derived from names: the seed of every random stream depends only on its purpose.

So a new task, method or draw never changes the numbers of an existing one. Use :meth:`ocd_bench.Request.generator` or
:meth:`ocd_bench.Context.generator` if you have a request or a context; this module is for code that has neither.

.. versionadded:: 0.1
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["derive", "generator"]


def derive(*parts: object) -> int:
    """A seed in [0, 2**63): the first 63 bits of the SHA-256 of ``parts``, as text. Other parts give an unrelated seed.

    Example:
        >>> derive("images", "mnist", 0)
        8423179160450991229
        >>> derive("images", "mnist", 1)
        3881461462255593397
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seeded(*parts: object) -> torch.Generator:
    """A CPU generator whose seed is :func:`derive` of ``parts``."""
    import torch

    return torch.Generator().manual_seed(derive(*parts))


def generator(task: str, dataset: str, method: str, seed: int, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose of one cell.

    Example:
        >>> first, again = (generator("images", "mnist", "ocd", 0, "training") for _ in range(2))
        >>> first.initial_seed() == again.initial_seed()
        True
    """
    return seeded(task, dataset, method, seed, purpose)
