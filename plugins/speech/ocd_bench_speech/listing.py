"""The speaker of each file: the utterances of a folder, from a list or from the names of folders and files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ocd_bench import UsageError
from ocd_bench.reading import counted, left_out, list_folder, listed, split_name
from ocd_bench.reading.sheet import Sheet, SheetOptions, read_sheet
from ocd_bench_speech.audio import SUFFIXES, UNREAD

SUBSETS = {
    "train": re.compile(r"(train|tr)([-_ ].*|\d*)$", re.IGNORECASE),
    "val": re.compile(r"(valid|validation|val|dev|cv)([-_ ].*|\d*)$", re.IGNORECASE),
    "test": re.compile(r"(test|tt|eval)([-_ ].*|\d*)$", re.IGNORECASE),
}
SPOKEN_DIGIT = re.compile(r"\d_([A-Za-z]+)_(\d+)$")
DIGIT_TAKES = 50
"""Recordings of a digit by a speaker in FSDD; the first five are its official test set."""
DEPTH = 12
"""Depth of folders that are searched."""
MANIFEST = "manifest"
COLUMNS = {
    "file": ("file", "path", "filename", "file_name", "file_path", "filepath", "wav", "audio"),
    "speaker_id": ("speaker_id", "speaker", "speakerid", "spk_id", "spk", "client_id"),
    "subset": ("subset", "split", "set", "part"),
}
"""Names of the columns of a list, in any case; the first is the documented one."""


@dataclass(frozen=True)
class Utterance:
    """One file; it is number ``rank`` of ``takes`` of its speaker, for splits that share speakers."""

    path: Path
    speaker: str
    subset: str = ""
    rank: int = 0
    takes: int = 1


@dataclass(frozen=True)
class Utterances:
    """The utterances of a folder in a fixed order, the source of their speakers' names, and remarks."""

    all: Sequence[Utterance]
    how: str
    remarks: Sequence[str] = ()


def list_utterances(folder: Path, delimiter: str = "auto", encoding: str = "auto") -> Utterances:
    """Utterances of the folder's ``manifest.csv`` (or ``.tsv``, in any case, compressed or not), else by names.

    Raises:
        UsageError: as :func:`from_manifest` and :func:`from_names`.
    """
    lists = [folder / name for name in list_folder(folder, (".csv", ".tsv")).files if split_name(name).stem.lower() == MANIFEST]
    if len(lists) > 1:
        raise UsageError(f"{folder}: several lists ({listed([path.name for path in lists])}); keep one")
    if lists:
        return Utterances(from_manifest(lists[0], delimiter, encoding), f"speakers as in {lists[0].name}")
    return from_names(folder)


def from_manifest(path: Path, delimiter: str = "auto", encoding: str = "auto") -> list[Utterance]:
    """Utterances of a list with the columns file, speaker_id and, where there are parts, subset.

    Raises:
        UsageError: if it lacks a column or a cell, names a file twice, or a subset that is none of train, val, test.
    """
    sheet = read_sheet(path, SheetOptions("speech", delimiter=delimiter, encoding=encoding))
    names = {key: _column(sheet, key) for key in COLUMNS}
    missing = [key for key in ("file", "speaker_id") if not names[key]]
    if missing:
        raise UsageError(f"{path}: no column {' and no column '.join(missing)}; columns: {sheet.listing()}")
    utterances: list[Utterance] = []
    seen: dict[Path, int] = {}
    subsets = sheet.texts(names["subset"]) if names["subset"] else [""] * len(sheet)
    rows = zip(sheet.lines, sheet.texts(names["file"]), sheet.texts(names["speaker_id"]), subsets, strict=True)
    for line, file, speaker, subset in rows:
        if not file or not speaker or (names["subset"] and not subset):
            raise UsageError(f"{path}, line {line}: an empty cell; expected {', '.join(filter(None, names.values()))}")
        part = subset_of(subset)
        if subset and not part:
            raise UsageError(f"{path}, line {line}: subset {subset!r} begins with none of train, val, dev, test")
        place = _place(path.parent, file)
        if place in seen:
            raise UsageError(f"{path}, line {line}: {file} is also in line {seen[place]}")
        seen[place] = line
        utterances.append(_ranked_as_fsdd(Utterance(place, speaker, part)))
    return utterances


def from_names(folder: Path) -> Utterances:
    """Utterances by the names of folders and files, in order of path. The folder of a speaker counts before the name of a file.

    Raises:
        UsageError: if speaker folders and loose files are mixed, a recording is there twice, or sound is in a format that is
            not read.
    """
    listing = list_folder(folder, SUFFIXES, DEPTH)
    _refuse_unread(folder, listing.left_out)
    files = sorted(folder / name for name in listing.files)
    twins: dict[Path, Path] = {}
    for path in files:
        stem = path.with_name(split_name(path.name).stem)
        if stem in twins:
            raise UsageError(
                f"{folder}: {twins[stem].name} and {path.name} in one folder could be one recording; keep one of them"
            )
        twins[stem] = path
    parents = without_common([path.relative_to(folder).parent.parts for path in files])
    subsets = [subset_of(parts[0]) if parts else "" for parts in parents]
    below: dict[str, list[int]] = {}
    for index, name in enumerate(subsets):
        below.setdefault(name, []).append(index)
    found = [Utterance(path, "", subset) for path, subset in zip(files, subsets, strict=True)]
    told = set()
    for name, indices in below.items():
        folders = without_common([parents[i][1:] if name else parents[i] for i in indices])
        loose = [i for i, parts in zip(indices, folders, strict=True) if not parts]
        if loose and len(loose) < len(indices):
            raise UsageError(
                f"{folder}: some files are in speaker folders and {counted(len(loose), 'other')} beside them (the first is "
                f"{files[loose[0]].name}); put them into folders too, or give a manifest.csv"
            )
        for i, parts in zip(indices, folders, strict=True):
            digit = SPOKEN_DIGIT.match(split_name(files[i].name).stem)
            speaker = parts[0] if parts else digit[1] if digit else re.split(r"[-_]", split_name(files[i].name).stem)[0]
            told.add("folders" if parts else "names of files (DIGIT_SPEAKER_NUMBER)" if digit else "names of files")
            found[i] = _ranked_as_fsdd(Utterance(files[i], speaker, subsets[i]))
    remark = left_out(
        name for name in listing.left_out if split_name(name).ending not in (".txt", ".trn", ".lab", ".json", ".csv")
    )
    return Utterances(found, f"speakers by {' and '.join(sorted(told))}", [remark] if remark else [])


def subset_of(name: str) -> str:
    """``"train"``, ``"val"`` or ``"test"`` for a folder name such as ``dev-clean``; empty for any other."""
    return next((subset for subset, pattern in SUBSETS.items() if pattern.match(name)), "")


def without_common(parents: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The folders of each file, without those that lead to all files alike."""
    stripped = list(parents)
    while stripped and all(stripped) and len({parts[0] for parts in stripped}) == 1:
        stripped = [parts[1:] for parts in stripped]
    return stripped


def _ranked_as_fsdd(utterance: Utterance) -> Utterance:
    """With the place that FSDD's name gives it, if that name is of the same speaker."""
    digit = SPOKEN_DIGIT.match(split_name(utterance.path.name).stem)
    if digit and digit[1].lower() == utterance.speaker.lower():
        return Utterance(utterance.path, utterance.speaker, utterance.subset, int(digit[2]), DIGIT_TAKES)
    return utterance


def _column(sheet: Sheet, key: str) -> str:
    """The header's name for a column; empty if it has none."""
    names = [name for name in sheet.header if name.strip().lower() in COLUMNS[key]]
    exact = [name for name in names if name.strip().lower() == key] or names
    if len(exact) > 1:
        raise UsageError(f"{sheet.path}: {' and '.join(exact)} could both be the column {key}; keep one")
    return exact[0] if exact else ""


def _place(folder: Path, file: str) -> Path:
    """The file of a list's cell: relative to the list, with either kind of slash."""
    exact = folder / file
    if "\\" not in file or exact.exists():
        return exact
    return folder / Path(*PureWindowsPath(file).parts)


def _refuse_unread(folder: Path, names: Sequence[str]) -> None:
    unread = [name for name in names if split_name(name).ending in UNREAD]
    if unread:
        endings = listed(sorted({split_name(name).ending for name in unread}))
        raise UsageError(
            f"{folder}: {counted(len(unread), 'sound file')} in a format that is not read ({endings}; the first is "
            f"{unread[0]}); convert to WAV or FLAC, or take away"
        )
