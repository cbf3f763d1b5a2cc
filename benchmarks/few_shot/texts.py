"""The sets of texts, encoded once: means over tokens of four hidden states of the packaged MiniLM."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import ocd_bench_nlp
from ocd_bench.cache import remembered
from ocd_bench_nlp.encoders import TransformerEncoder, load_encoder
from ocd_bench_nlp.store import weights_sha256
from ocd_bench_nlp.task import MATTHEWS
from ocd_bench_nlp.texts import Texts, cut, read_file, read_place

SETS = "sst5", "emotion", "ag_news", "amazon_counterfactual_en"
EXTRA = "requests"
LAYERS = 6, 0, 2, 4
"""Hidden states of MiniLM whose mean over tokens is read. The first is its output, the space of the base; 0: its input."""


@dataclass(frozen=True)
class Sizes:
    """Texts kept, draws, and training steps. Of more than 3 classes, every other draw for training has a part."""

    pool: int = 1500
    test: int = 1000
    train_draws: int = 80
    queries: int = 64
    test_draws: int = 20
    steps: int = 400
    own_steps: int = 150


@dataclass(frozen=True)
class Vectors:
    """A set: mean hidden states ``(N, len(LAYERS), D)`` and classes ``(N,)`` of its pool and of its test texts."""

    pool: Tensor
    classes: Tensor
    test: Tensor
    truth: Tensor
    matthews: bool = False


def sample(texts: Texts, count: int) -> Texts:
    """At most ``count`` of them, chosen as the task chooses its test texts."""
    return texts.take(sorted(random.Random(0).sample(range(len(texts)), count))) if len(texts) > count else texts


@torch.no_grad()
def hidden(encoder: nn.Module, texts: Sequence[str], batch: int = 64) -> Tensor:
    """Means over tokens of the hidden states ``LAYERS``: ``(N, len(LAYERS), D)``. Texts of similar length are in one batch."""
    if not isinstance(encoder, TransformerEncoder):
        raise TypeError(f"hidden states of a transformer are needed, not of {type(encoder).__name__}")
    model = encoder.model
    tokenize = getattr(model, "preprocess", None) or model.tokenize
    order, parts = sorted(range(len(texts)), key=lambda index: len(texts[index])), []
    for start in range(0, len(order), batch):
        tokens = {k: v for k, v in tokenize([texts[i] for i in order[start : start + batch]]).items() if isinstance(v, Tensor)}
        states = model[0].auto_model(**tokens, output_hidden_states=True).hidden_states
        mask = tokens["attention_mask"].unsqueeze(2).float()
        parts.append(torch.stack([(states[layer] * mask).sum(1) / mask.sum(1) for layer in LAYERS], 1))
    found = torch.cat(parts)
    return torch.empty_like(found).index_copy_(0, torch.tensor(order), found)


def vectors(name: str, pool: Texts, test: Texts, sizes: Sizes, encoder: nn.Module) -> Vectors:
    """A set, encoded once. Texts of its test are not in its pool."""
    test = sample(test, sizes.test)
    held = set(test.texts)
    pool = sample(pool.take([i for i, text in enumerate(pool.texts) if text not in held]), sizes.pool)
    number = {label: index for index, label in enumerate(sorted(set(pool.labels)))}
    known = {"encoder": weights_sha256(encoder), "layers": LAYERS, "texts": [pool.texts, test.texts]}

    def build() -> list[Tensor]:
        return [hidden(encoder, part.texts) for part in (pool, test)]

    states = remembered("embeddings", f"layers-{name}", known, build, ["ocd_bench_nlp.encoders"])
    classes, truth = (torch.tensor([number[label] for label in part.labels]) for part in (pool, test))
    return Vectors(states[0], classes, states[1], truth, name in MATTHEWS)


def read(folder: Path | None, sizes: Sizes) -> dict[str, Vectors]:
    """The sets of a data directory and `requests`; without one, three sets made of the classes of `requests`."""
    packaged = read_file(Path(ocd_bench_nlp.__file__).with_name("requests.csv"))
    names = sorted(set(packaged.labels))
    if folder is None:
        some = [packaged.take([i for i, label in enumerate(packaged.labels) if label in names[k : k + 3]]) for k in range(3)]
        found = {f"{EXTRA}-{number}": cut(each, 0.4) for number, each in enumerate(some)}
    else:
        found = {name: read_place(folder / "text" / name) for name in SETS} | {EXTRA: cut(packaged, 0.4)}
    encoder = load_encoder("minilm", allow_download=False).eval()
    return {name: vectors(name, pool, test, sizes, encoder) for name, (pool, _, test) in found.items()}
