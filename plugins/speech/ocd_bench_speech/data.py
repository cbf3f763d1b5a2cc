"""From a request to splits: the speech of a dataset, and the fixed mixtures drawn from it."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ocd_bench import Request, Samples, Splits, UsageError
from ocd_bench.reading import find_dataset
from ocd_bench.seeds import generator
from ocd_bench_speech import weights
from ocd_bench_speech.audio import RATE, SILENT
from ocd_bench_speech.datasets import DATASETS
from ocd_bench_speech.mixing import Plan, Pool

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ocd_bench_speech.corpus import Corpus

VOICES = {"train": 12, "val": 3, "test": 5}
"""Speakers of each register."""
VOICE_SECONDS = 5.0


def load(request: Request) -> Splits:
    """Splits of ``request.dataset``. The draws depend on the dataset, not on the seed: every seed has the same test set."""
    settings = request.settings
    length = round(settings.seconds * RATE)

    def draws(purpose: str) -> torch.Generator:
        return generator(request.task, request.dataset, "", 0, purpose)

    generated = request.dataset == "voices"
    if request.dataset in ("librimix", "voices") and settings.more_train:
        raise UsageError(f"speech.more_train: {request.dataset} takes no further speech; only folders of utterances do")
    if request.dataset == "librimix":
        from ocd_bench_speech.librimix import read_librimix

        counts = {name: getattr(settings, f"{name}_mixtures") for name in ("train", "val", "test")}
        folder = request.folder("librimix")
        subset, mode = settings.librimix_train, settings.librimix_mode
        mixtures = read_librimix(folder, settings.speakers, length, subset, mode, counts, draws("librimix"))
        speech, note, groups = mixtures.train, mixtures.note, None
        fixed = {name: samples(getattr(mixtures, name), mixtures.speakers[name], name) for name in ("val", "test")}
    else:
        corpus = voices(settings.speakers) if generated else folder_corpus(request, draws("split"))
        speech, note, groups = corpus.train, corpus.note, corpus.groups
        fixed = {}
        for name in ("val", "test"):
            pool = Pool(getattr(corpus, name), length, groups=groups, portable=generated)
            count = getattr(settings, f"{name}_mixtures")
            fixed[name] = drawn(pool, pool.plan(count, settings.speakers, settings.level_db, draws(f"{name} mixtures")), name)
    pool = Pool(speech, length, settings.speeds, groups, generated)
    train = pool.plan(settings.train_mixtures, settings.speakers, settings.level_db, draws("train mixtures"))
    note = f"{settings.speakers} speakers, {settings.seconds:g} s at 8 kHz; {note}{weights.note(request)}"
    return Splits(drawn(pool, train, "training"), fixed["val"], fixed["test"], note, {"pool": pool})


def samples(sources: Tensor, speakers: Tensor | None, part: str) -> Samples:
    """Mixtures (sums), sources, and the speakers of each mixture as its groups.

    Raises:
        UsageError: if a source is digital silence, which has no signal-to-distortion ratio (``part``: for the message).
    """
    spread = sources.amax(-1) - sources.amin(-1)
    if (spread <= SILENT).any():
        row, source = (spread <= SILENT).nonzero()[0].tolist()
        raise UsageError(
            f"{part} mixture {row}: source {source} is silent; take the silence out of the files, or raise speech.seconds"
        )
    return Samples(sources.sum(1), sources, speakers)


def drawn(pool: Pool, plan: Plan, part: str) -> Samples:
    """The mixtures of a plan."""
    return samples(pool.render(plan), plan.speakers, part)


@functools.cache
def voices(speakers: int) -> Corpus:
    """The embedded synthetic voices, a few seconds each; mixtures of C hold one voice of each of C registers."""
    import torch

    from ocd_bench_speech.corpus import Corpus
    from ocd_bench_speech.voices import speak

    speech, groups, count = {}, {}, 0
    for name, size in VOICES.items():
        numbers = range(count, count + size * speakers)
        speech[name] = {f"voice{n}": [torch.from_numpy(speak(n, VOICE_SECONDS, speakers))] for n in numbers}
        groups.update({f"voice{n}": n % speakers for n in numbers})
        count += len(numbers)
    counts = " / ".join(str(len(heard)) for heard in speech.values())
    note = f"synthetic voices of {counts} speakers (train / val / test), one of each register in a mixture"
    return Corpus(speech["train"], speech["val"], speech["test"], note, groups)


def folder_corpus(request: Request, draws: torch.Generator) -> Corpus:
    """The speech of any folder of utterances."""
    from ocd_bench_speech.corpus import read_folder, with_more

    settings = request.settings
    minutes, form = settings.minutes, (settings.delimiter, settings.encoding)
    corpus = read_folder(sound_folder(request), settings.speakers, minutes, draws, *form)
    for name in settings.more_train:
        corpus = with_more(corpus, sound_folder(replace(request, dataset=name)), minutes, *form)
    return corpus


def sound_folder(request: Request) -> Path:
    """The folder of ``request.dataset``.

    Raises:
        DataMissing: if there is none.
        UsageError: if it is a file.
    """
    folder = find_dataset(request, (), known=DATASETS)
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder of sound files; unpack it")
    return folder
