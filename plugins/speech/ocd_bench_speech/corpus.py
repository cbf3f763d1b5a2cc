"""Folders of utterances as speech by speaker, and the speakers of training, validation and test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ocd_bench import DataMissing, UsageError
from ocd_bench_speech.audio import RATE, SUFFIXES, Reader, is_silent
from ocd_bench_speech.listing import Utterance, list_utterances

Speech = dict[str, list[Tensor]]


@dataclass(frozen=True)
class Corpus:
    """Speech of each split by speaker, one line on how it was split, and speakers that are never mixed (same group)."""

    train: Speech
    val: Speech
    test: Speech
    note: str = ""
    groups: Mapping[str, int] | None = None


def read_folder(
    folder: Path, speakers: int, minutes: float, generator: torch.Generator, delimiter: str = "auto", encoding: str = "auto"
) -> Corpus:
    """Any folder of utterances.

    A ``manifest.csv`` with columns file, speaker_id and, where there are parts, subset says it all. Else sub-folders named
    train..., val.../dev... and test... are the splits, the folder below is the speaker, and without folders the file's name is,
    up to its first ``-`` or ``_`` (FSDD: ``{digit}_{speaker}_{index}``).

    Args:
        speakers: C, for the smallest sensible number of speakers per split.
        minutes: at most this much speech per split is read, evenly from all speakers.
        delimiter, encoding: of the list; see :class:`ocd_bench.reading.sheet.SheetOptions`.

    Raises:
        DataMissing: if there is no sound file.
        UsageError: if a file cannot be read, or there are fewer than C speakers in a split.
    """
    found = list_utterances(folder, delimiter, encoding)
    if not found.all:
        endings = ", ".join(SUFFIXES[:6])
        raise DataMissing(f"no sound file ({endings}, ...) in {folder}; expected speaker sub-folders or {{speaker}}-... names")
    splits, how = split(ranked(found.all, generator), speakers, generator)
    reader = Reader()
    speech = {name: read_speech(reader, utterances, minutes) for name, utterances in splits.items()}
    silent = {u.speaker for utterances in splits.values() for u in utterances}.difference(*speech.values())
    if silent:
        raise UsageError(f"{folder}: speaker {min(silent)!r} has no sound in any file; take the files away")
    for name, heard in speech.items():
        if len(heard) < speakers:
            raise UsageError(
                f"{folder}: mixtures of {speakers} need as many speakers; the {name} split has {len(heard)} ({found.how})"
            )
    counts = " / ".join(str(len(heard)) for heard in speech.values())
    spoken = sum(len(wave) for waves in speech["train"].values() for wave in waves) / RATE / 60
    note = f"{counts} speakers (train / val / test; {how}), {found.how}, {spoken:.0f} min of training speech{reader.note()}"
    return Corpus(speech["train"], speech["val"], speech["test"], "; ".join([note, *found.remarks]))


def with_more(corpus: Corpus, folder: Path, minutes: float, delimiter: str = "auto", encoding: str = "auto") -> Corpus:
    """The corpus with the speech of another folder in training. Its speakers who are in validation or test and not in training
    are left out, by name.

    Args:
        minutes: at most this much speech of the folder is read, evenly from all speakers.

    Raises:
        DataMissing: if there is no sound file.
        UsageError: if a file cannot be read, or no speaker is left.
    """
    found = list_utterances(folder, delimiter, encoding)
    if not found.all:
        raise DataMissing(f"no sound file in {folder}, which speech.more_train names")
    held = (corpus.val.keys() | corpus.test.keys()) - corpus.train.keys()
    kept = [utterance for utterance in found.all if utterance.speaker not in held]
    if not kept:
        raise UsageError(f"{folder}: every speaker is one of validation or test; speech.more_train needs others")
    reader = Reader()
    more = read_speech(reader, kept, minutes)
    train = {speaker: [*corpus.train.get(speaker, []), *more.get(speaker, [])] for speaker in sorted({*corpus.train, *more})}
    out = len({utterance.speaker for utterance in found.all} & held)
    spoken = sum(len(wave) for waves in more.values() for wave in waves) / RATE / 60
    note = (
        f"{spoken:.0f} min more of {len(more)} speakers from {folder.name} ({out} of validation or test left out; {found.how})"
    )
    return replace(corpus, train=train, note="; ".join([corpus.note, note + reader.note(), *found.remarks]))


def ranked(utterances: Sequence[Utterance], generator: torch.Generator) -> list[Utterance]:
    """Utterances in a drawn order; each one's rank is its place among its speaker's (FSDD: its index)."""
    order = [utterances[i] for i in torch.randperm(len(utterances), generator=generator).tolist()]
    totals, seen = counted(order), dict.fromkeys((u.speaker for u in order), 0)
    result = []
    for utterance in order:
        if utterance.takes > 1:  # its name says its place
            result.append(utterance)
            continue
        result.append(replace(utterance, rank=seen[utterance.speaker], takes=totals[utterance.speaker]))
        seen[utterance.speaker] += 1
    return result


def counted(utterances: Iterable[Utterance]) -> dict[str, int]:
    """Number of utterances of each speaker."""
    totals: dict[str, int] = {}
    for utterance in utterances:
        totals[utterance.speaker] = totals.get(utterance.speaker, 0) + 1
    return totals


def split(utterances: Sequence[Utterance], speakers: int, generator: torch.Generator) -> tuple[dict[str, list[Utterance]], str]:
    """Train, validation and test utterances, and a description of the split.

    What the folder calls test (or val) is that. Else a tenth of the speakers, at least C, is set apart where training keeps
    C + 2 speakers or more (C, where speakers have too few utterances to share); else a tenth of every speaker's utterances.
    """
    parts = {name: [u for u in utterances if u.subset == name] for name in ("train", "val", "test")}
    parts["train"] += [u for u in utterances if not u.subset]
    if not parts["train"] and parts["val"]:  # a folder of dev and test only
        parts["train"], parts["val"] = parts["val"], []
    how = {}
    for name, nth in (("test", 0), ("val", 1)):
        if parts[name]:
            how[name] = "as given"
            continue
        names = sorted({u.speaker for u in parts["train"]})
        aside = max(speakers, round(len(names) / 10))
        shared = [u for u in parts["train"] if u.rank // math.ceil(u.takes / 10) == nth]
        kept = set(parts["train"]) - set(shared)
        sharing = min(len({u.speaker for u in some}) for some in (shared, kept)) >= speakers
        if len(names) - aside >= speakers + (2 if sharing else 0):
            chosen = {names[i] for i in torch.randperm(len(names), generator=generator)[:aside].tolist()}
            parts[name] = [u for u in parts["train"] if u.speaker in chosen]
            how[name] = "new speakers"
        else:
            parts[name] = shared
            how[name] = "same speakers, other recordings"
        taken = {u.path for u in parts[name]}
        parts["train"] = [u for u in parts["train"] if u.path not in taken]
    return parts, f"val: {how['val']}, test: {how['test']}"


def read_speech(reader: Reader, utterances: Sequence[Utterance], minutes: float) -> Speech:
    """Waveforms by speaker: one utterance of each in turn until ``minutes`` are full or all are read. Silent ones are left out,
    and speakers without any other.

    Raises:
        UsageError: if a file cannot be read.
    """
    queues: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        queues.setdefault(utterance.speaker, []).append(utterance)
    speech: Speech = {speaker: [] for speaker in sorted(queues)}
    samples = 0
    for turn in range(max((len(queue) for queue in queues.values()), default=0)):
        for speaker in speech:
            if turn < len(queues[speaker]) and (not speech[speaker] or samples < minutes * 60 * RATE):
                wave = reader.read(queues[speaker][turn].path)
                if is_silent(wave):
                    continue
                speech[speaker].append(wave)
                samples += len(wave)
    return {speaker: waves for speaker, waves in speech.items() if waves}
