"""LibriMix folders (Cosentino et al. 2020), as the LibriMix scripts write them and torchaudio's dataset class expects them.

``Libri{C}Mix/wav8k/{min,max}/{train-100,train-360,dev,test}/{mix_clean,s1,...,sC}/*.wav``; where there is no ``wav8k``,
``wav16k`` is read and resampled. Files are read by soundfile: the class's own loading needs torchcodec.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchaudio.datasets import LibriMix

from ocd_bench import DataMissing, UsageError
from ocd_bench_speech.audio import Reader
from ocd_bench_speech.corpus import Speech
from ocd_bench_speech.mixing import AUDIBLE, TRIES, normalised


@dataclass(frozen=True)
class Mixtures:
    """Speech of the training mixtures' sources by speaker, and fixed validation and test sources ``(N, C, T)``.

    ``speakers``: by split, numbers ``(N, C)`` of the speakers of each mixture; None where the files' names do not tell.
    """

    train: Speech
    val: Tensor
    test: Tensor
    speakers: dict[str, Tensor | None]
    note: str


def read_librimix(
    folder: Path, speakers: int, length: int, train: str, mode: str, counts: dict[str, int], generator: torch.Generator
) -> Mixtures:
    """The clean separation task of LibriMix.

    Args:
        folder: holds ``Libri{C}Mix``, or is it.
        speakers: C.
        length: T; validation and test mixtures are cut to a window without a silent source, at the levels of the files.
        train: subset for training, ``train-100`` or ``train-360``.
        mode: ``min`` or ``max``.
        counts: at most this many mixtures of ``train``, ``val`` and ``test`` are read, drawn at random.

    Raises:
        DataMissing: if the folder holds no such mixtures.
        UsageError: if a file cannot be read, or no mixture is as long as T.
    """
    reader = Reader()
    speech: Speech = {}
    dataset = _open(folder, train, speakers, mode)
    for name, sources in _read(dataset, counts["train"], reader, generator):
        for place, (speaker, source) in enumerate(zip(_speakers(name, speakers), sources, strict=True)):
            speech.setdefault(speaker or f"{name}/{place}", []).append(source)
    fixed, heard = {}, {}
    for split, subset in (("val", "dev"), ("test", "test")):
        dataset = _open(folder, subset, speakers, mode)
        mixtures = [found for found in _read(dataset, counts[split], reader, generator) if found[1].shape[-1] >= length]
        windows = [_window(sources, length, generator) for _, sources in mixtures]
        if not windows:
            raise UsageError(f"{dataset.mix_dir}: no mixture is as long as the segments; lower speech.seconds")
        fixed[split] = normalised(torch.stack(windows))
        heard[split] = _numbers([_speakers(name, speakers) for name, _ in mixtures])
    note = f"{train} / dev / test, mode {mode}, {len(speech)} training speakers, mixed anew in base training{reader.note()}"
    return Mixtures(speech, fixed["val"], fixed["test"], heard, note)


def _open(folder: Path, subset: str, speakers: int, mode: str) -> LibriMix:
    name = f"Libri{speakers}Mix"
    root = folder.parent if folder.name == name else folder
    for rate, sub in ((8000, "wav8k"), (16000, "wav16k")):
        if (root / name / sub).is_dir():
            dataset = LibriMix(root, subset, speakers, rate, "sep_clean", mode)
            if not len(dataset):
                raise DataMissing(f"no mixture in {dataset.mix_dir}; see the settings speech.librimix_*")
            return dataset
    raise DataMissing(f"{root / name} has neither wav8k nor wav16k; mixtures of {speakers} speakers are looked for there")


def _read(dataset: LibriMix, count: int, reader: Reader, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Name and sources ``(C, T')`` of at most ``count`` mixtures, in the order of the folder."""
    for index in sorted(torch.randperm(len(dataset), generator=generator)[:count].tolist()):
        _, mixture, paths = dataset.get_metadata(index)
        sources = [reader.read(dataset.root / path) for path in paths]
        if len({len(source) for source in sources}) > 1:
            raise UsageError(f"{dataset.root / mixture}: its sources differ in length")
        yield Path(mixture).stem, torch.stack(sources)


def _speakers(name: str, speakers: int) -> list[str]:
    """Speakers of a mixture named ``{speaker}-{chapter}-{utterance}_...``; empty texts where it is named otherwise."""
    parts = name.split("_")
    return [part.split("-")[0] for part in parts] if len(parts) == speakers else [""] * speakers


def _numbers(names: list[list[str]]) -> Tensor | None:
    """Names ``(N, C)`` as numbers, equal ones for equal names; None if any is empty."""
    if not all(name for row in names for name in row):
        return None
    places = {name: place for place, name in enumerate(dict.fromkeys(name for row in names for name in row))}
    return torch.tensor([[places[name] for name in row] for row in names])


def _window(sources: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """A window ``(C, T)`` of ``sources (C, T')`` in which everybody is heard, or the best of a few in that respect."""
    mean_power = sources.square().mean(-1).clamp_min(1e-12)
    best, best_share = sources[:, :length], -1.0
    for _ in range(TRIES):
        start = int(torch.randint(sources.shape[-1] - length + 1, (), generator=generator))
        window = sources[:, start : start + length]
        share = float((window.square().mean(-1) / mean_power).min())
        if share > best_share:
            best, best_share = window, share
        if share >= AUDIBLE:
            break
    return best - best.mean(-1, keepdim=True)
