"""A cache of embeddings by fingerprint. Fine-tuning an encoder and encoding take minutes, the rest of a run seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

import ocd_bench.cache


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of names, types, shapes and bytes of the weights."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def remembered(name: str, parts: Mapping[str, Any], build: Callable[[], list[Tensor]]) -> list[Tensor]:
    """The tensors that ``build`` returns, read from ``embeddings/`` in the cache folder if they were built before from the same
    ``parts`` and by the same code of this package. A damaged file is named on stderr and built again.

    Args:
        name: first part of the file's name.
        parts: plain values: everything that the tensors depend on.
    """
    modules = ("ocd_bench_nlp.encoders", "ocd_bench_nlp.contrastive")
    return ocd_bench.cache.remembered("embeddings", name, parts, build, modules)
