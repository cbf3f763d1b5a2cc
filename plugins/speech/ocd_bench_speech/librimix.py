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
from ocd_bench.reading import Notes
from ocd_bench_speech.audio import RATE, Reader, is_silent
from ocd_bench_speech.corpus import Speech
from ocd_bench_speech.mixing import AUDIBLE, BLOCK, HARDLY, TRIES, normalised


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

    In mode ``max`` the end of every mixture but of the longest source is digital silence: it is neither trained on nor scored.

    Raises:
        DataMissing: if the folder holds no such mixtures.
        UsageError: if a file cannot be read, no mixture is as long as T, or every mixture has a silent source.
    """
    reader = Reader()
    speech: Speech = {}
    notes = Notes()
    dataset = _open(folder, train, speakers, mode)
    for name, sources in _read(dataset, counts["train"], reader, generator):
        for place, (speaker, source) in enumerate(zip(_speakers(name, speakers), sources, strict=True)):
            if not is_silent(source):
                said = source[slice(*extent(source))] if mode == "max" else source
                speech.setdefault(speaker or f"{name}/{place}", []).append(said)
    if mode == "max":
        notes.add("silent ends of the sources left off")
    fixed, heard = {}, {}
    for split, subset in (("val", "dev"), ("test", "test")):
        dataset = _open(folder, subset, speakers, mode)
        mixtures = [found for found in _read(dataset, counts[split], reader, generator) if found[1].shape[-1] >= length]
        if not mixtures:
            raise UsageError(f"{dataset.mix_dir}: no mixture is as long as the segments; lower speech.seconds")
        windows = [_window(sources, length, generator, padded=mode == "max") for _, sources in mixtures]
        kept = [number for number, window in enumerate(windows) if window is not None]
        if not kept:
            raise UsageError(
                f"{dataset.mix_dir}: each mixture has a silent source in any {length / RATE:g} s window; lower speech.seconds"
            )
        if len(kept) < len(windows):
            notes.add(f"{len(windows) - len(kept)} of {len(windows)} {subset} mixtures left out, where a source is silent")
        fixed[split] = normalised(torch.stack([window for window in windows if window is not None]))
        heard[split] = _numbers([_speakers(mixtures[number][0], speakers) for number in kept])
    note = f"{train} / dev / test, mode {mode}, {len(speech)} training speakers, mixed anew in base training{reader.note()}"
    return Mixtures(speech, fixed["val"], fixed["test"], heard, "; ".join(filter(None, [note, str(notes)])))


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


def extent(source: Tensor) -> tuple[int, int]:
    """First sample of ``source (T',)`` that is not zero, and the one behind the last."""
    (places,) = source.nonzero(as_tuple=True)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def _window(sources: Tensor, length: int, generator: torch.Generator, padded: bool = False) -> Tensor | None:
    """A window ``(C, T)`` of ``sources (C, T')`` without a silent source: the best of a few windows in that respect or, if a
    source is almost silent in that, of all windows. None if every window has a silent source.

    Args:
        padded: whether the sources end in digital silence, which does not belong to the speech.
    """
    mean_power = _mean_power(sources, padded)

    def share(start: int) -> float:
        return float((sources[:, start : start + length].square().mean(-1) / mean_power).min())

    best, best_share = 0, -1.0
    for _ in range(TRIES):
        start = int(torch.randint(sources.shape[-1] - length + 1, (), generator=generator))
        now = share(start)
        if now > best_share:
            best, best_share = start, now
        if now >= AUDIBLE:
            break
    if best_share < HARDLY:
        best = max(range(0, sources.shape[-1] - length + 1, BLOCK), key=share)
        if share(best) < HARDLY:
            return None
    window = sources[:, best : best + length]
    return window - window.mean(-1, keepdim=True)


def _mean_power(sources: Tensor, padded: bool) -> Tensor:
    """Of each source ``(C,)``, over what it says."""
    if not padded:
        return sources.square().mean(-1).clamp_min(1e-12)
    lengths = [max(1, end - first) for first, end in map(extent, sources)]
    return (sources.square().sum(-1) / torch.tensor(lengths)).clamp_min(1e-12)
