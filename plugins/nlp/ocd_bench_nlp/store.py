"""Embeddings kept by fingerprint: fine-tuning an encoder and encoding with it costs minutes, all else of a run seconds."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ocd_bench import UsageError
from ocd_bench.config import fingerprint
from ocd_bench.folders import cache_folder
from ocd_bench.results import write_atomic


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of the weights."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def remembered(name: str, parts: Mapping[str, Any], build: Callable[[], list[Tensor]]) -> list[Tensor]:
    """What ``build`` gives, from ``embeddings/`` in the cache folder where it was built before from the same ``parts``.

    Args:
        name: first part of the file's name.
        parts: plain values, everything that the tensors depend on.

    Raises:
        UsageError: if the cache cannot be written, or the file there is damaged.
    """
    key = fingerprint({**parts, "torch": torch.__version__.split("+")[0]})
    path = cache_folder() / "embeddings" / f"{name}-{key[:16]}.pt"
    if path.exists():
        try:
            return list(torch.load(path, weights_only=True))
        except Exception as error:  # zip and pickle readers each raise their own
            raise UsageError(f"{path}: damaged ({type(error).__name__}); remove it, or --set nlp.cache=false") from error
    found, buffer = build(), io.BytesIO()
    torch.save([tensor.clone() for tensor in found], buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise UsageError(
            f"cannot write the embedding cache {path.parent}: {error.strerror}; set OCD_BENCH_CACHE, or --set nlp.cache=false"
        ) from error
    return found
