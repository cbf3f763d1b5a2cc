"""Folders of utterances as speech by speaker: which file is whose, and who is heard in training, validation and test."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ocd_bench import DataMissing, UsageError
from ocd_bench_speech.audio import RATE, SUFFIXES, Reader

Speech = dict[str, list[Tensor]]
SUBSETS = {
    "train": re.compile(r"(train|tr)([-_ ].*|\d*)$", re.IGNORECASE),
    "val": re.compile(r"(valid|validation|val|dev|cv)([-_ ].*|\d*)$", re.IGNORECASE),
    "test": re.compile(r"(test|tt|eval)([-_ ].*|\d*)$", re.IGNORECASE),
}
SPOKEN_DIGIT = re.compile(r"\d_([A-Za-z]+)_(\d+)$")
DIGIT_TAKES = 50
"""Recordings of a digit by a speaker in FSDD; the first five are its official test set."""


@dataclass(frozen=True)
class Corpus:
    """Speech of each split by speaker, one line on how it was split, and speakers that are never mixed (same group)."""

    train: Speech
    val: Speech
    test: Speech
    note: str = ""
    groups: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Utterance:
    """One file; it is number ``rank`` of ``takes`` of its speaker, for splits that share speakers."""

    path: Path
    speaker: str
    subset: str = ""
    rank: int = 0
    takes: int = 1


def read_folder(folder: Path, speakers: int, minutes: float, generator: torch.Generator) -> Corpus:
    """Any folder of utterances.

    A ``manifest.csv`` with columns file, subset and speaker_id says it all. Else sub-folders named train..., val.../dev... and
    test... are the splits, the folder below is the speaker, and without folders the file's name is, up to its first ``-`` or
    ``_`` (FSDD: ``{digit}_{speaker}_{index}``).

    Args:
        speakers: C, for the smallest sensible number of speakers per split.
        minutes: at most this much speech per split is read, evenly from all speakers.

    Raises:
        DataMissing: if there is no sound file.
        UsageError: if a file cannot be read, or there are fewer than C speakers in a split.
    """
    listed = from_manifest(folder) if (folder / "manifest.csv").is_file() else from_names(folder)
    if not listed:
        raise DataMissing(f"no {', '.join(SUFFIXES)} file in {folder}; expected speaker sub-folders or {{speaker}}-... names")
    splits, how = split(ranked(listed, generator), speakers, generator)
    reader = Reader()
    speech = {name: read_speech(reader, utterances, minutes) for name, utterances in splits.items()}
    for name, heard in speech.items():
        if len(heard) < speakers:
            raise UsageError(f"{folder}: mixtures of {speakers} need as many speakers; the {name} split has {len(heard)}")
    counts = " / ".join(str(len(heard)) for heard in speech.values())
    spoken = sum(len(wave) for waves in speech["train"].values() for wave in waves) / RATE / 60
    note = f"{counts} speakers (train / val / test; {how}), {spoken:.0f} min of training speech{reader.note()}"
    return Corpus(speech["train"], speech["val"], speech["test"], note)


def from_manifest(folder: Path) -> list[Utterance]:
    """Utterances of a ``manifest.csv``.

    Raises:
        UsageError: if it lacks a column or names a subset that is none of train, val, test.
    """
    path = folder / "manifest.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    utterances = []
    for number, row in enumerate(rows, start=2):
        values = [row.get(key) for key in ("file", "subset", "speaker_id")]
        if not all(values):
            raise UsageError(f"{path}, line {number}: expected columns file, subset and speaker_id")
        file, subset, speaker = map(str, values)
        name = subset_of(subset)
        if not name:
            raise UsageError(f"{path}, line {number}: subset {subset!r} begins with none of train, val, dev, test")
        utterances.append(Utterance(folder / file, speaker, name))
    return utterances


def from_names(folder: Path) -> list[Utterance]:
    """Utterances by the names of folders and files, in order of path."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    parents = without_common([path.relative_to(folder).parent.parts for path in files])
    subsets = [subset_of(parts[0]) if parts else "" for parts in parents]
    below: dict[str, list[int]] = {}
    for index, name in enumerate(subsets):
        below.setdefault(name, []).append(index)
    speakers = [""] * len(files)
    for name, indices in below.items():
        folders = without_common([parents[i][1:] if name else parents[i] for i in indices])
        for i, parts in zip(indices, folders, strict=True):
            digit = SPOKEN_DIGIT.match(files[i].stem)
            speakers[i] = digit[1] if digit else parts[0] if parts else re.split(r"[-_]", files[i].stem)[0]
    return [Utterance(path, speaker, subset) for path, speaker, subset in zip(files, speakers, subsets, strict=True)]


def subset_of(name: str) -> str:
    """``"train"``, ``"val"`` or ``"test"`` for a folder name such as ``dev-clean``; empty for any other."""
    return next((subset for subset, pattern in SUBSETS.items() if pattern.match(name)), "")


def without_common(parents: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The folders of each file, without those that lead to all files alike."""
    stripped = list(parents)
    while stripped and all(stripped) and len({parts[0] for parts in stripped}) == 1:
        stripped = [parts[1:] for parts in stripped]
    return stripped


def ranked(utterances: Sequence[Utterance], generator: torch.Generator) -> list[Utterance]:
    """Utterances in a drawn order; each one's rank is its place among its speaker's (FSDD: its index)."""
    order = [utterances[i] for i in torch.randperm(len(utterances), generator=generator).tolist()]
    totals, seen = counted(order), dict.fromkeys((u.speaker for u in order), 0)
    result = []
    for utterance in order:
        if digit := SPOKEN_DIGIT.match(utterance.path.stem):
            result.append(replace(utterance, rank=int(digit[2]), takes=DIGIT_TAKES))
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
    """Train, validation and test utterances, and how they were told apart.

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
    """Waveforms by speaker: one utterance of each in turn until ``minutes`` are full or all are read."""
    queues: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        queues.setdefault(utterance.speaker, []).append(utterance)
    speech: Speech = {speaker: [] for speaker in sorted(queues)}
    samples = 0
    for turn in range(max((len(queue) for queue in queues.values()), default=0)):
        for speaker in speech:
            if turn < len(queues[speaker]) and (turn == 0 or samples < minutes * 60 * RATE):
                wave = reader.read(queues[speaker][turn].path)
                speech[speaker].append(wave)
                samples += len(wave)
    return speech
