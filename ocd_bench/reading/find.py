"""Finds a dataset by name in the data directories: a folder, or a file of a known format. Letter case does not matter."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ocd_bench.config import nearest
from ocd_bench.errors import DataMissing, UsageError
from ocd_bench.reading.folders import is_folder
from ocd_bench.reading.guard import reading
from ocd_bench.reading.names import PACKED, is_stray, split_name
from ocd_bench.task import Dataset, Request


def find_dataset(
    request: Request, endings: Collection[str], aliases: Sequence[str] = (), known: Sequence[Dataset] = ()
) -> Path:
    """The folder or file of ``request.dataset``.

    In each data directory, in order: a folder of that name, then a file of that name with one of ``endings``, plain or
    compressed. A name in the exact case wins over one in another case, a plain file over a compressed one.

    Args:
        endings: in lower case with their dot.
        aliases: further names to try, after the dataset's own, such as ``text/NAME``.
        known: the task's own list, for the message.

    Raises:
        DataMissing: if there is none. The message lists the names and the folders that were searched.
        UsageError: if two files match.
    """
    names = (request.dataset, *aliases)
    for directory in request.data_dirs:
        for name in names:
            place = _match(directory / name, endings)
            if place is not None:
                return place
    raise DataMissing(_missing(request, names, endings, known))


def _match(wanted: Path, endings: Collection[str]) -> Path | None:
    """The one entry in the folder of ``wanted`` that matches its name."""
    if not wanted.parent.is_dir():
        return None
    name = wanted.name
    with reading(wanted.parent), os.scandir(wanted.parent) as entries:
        same = [entry for entry in entries if entry.name.lower().startswith(name.lower()) and not is_stray(entry.name)]
        folders = [entry.name for entry in same if entry.name.lower() == name.lower() and is_folder(entry)]
        files = [entry.name for entry in same if _fits(entry.name, name, endings) and not is_folder(entry)]
    for found in (folders, files):
        exact = [each for each in found if each == name or split_name(each).stem == name] or found
        plain = [each for each in exact if not split_name(each).packed] or exact
        if len(plain) > 1:
            raise UsageError(f"{wanted.parent}: {' and '.join(sorted(plain))} could both be meant by {name!r}; rename one")
        if plain:
            return wanted.parent / plain[0]
    return None


def _fits(file: str, name: str, endings: Collection[str]) -> bool:
    stem, ending, packed = split_name(file)
    known = ending in endings or (packed in endings and not ending)
    return file.lower() == name.lower() or (known and stem.lower() == name.lower())


def _missing(request: Request, names: Sequence[str], endings: Collection[str], known: Sequence[Dataset]) -> str:
    where = ", ".join(map(str, request.data_dirs)) or "no data directory"
    if other := _of_other_form(request, names):
        read = ", ".join(sorted(endings)) or "folders"
        return f"dataset {request.dataset!r} of task {request.task!r}: {other} is there, but only {read} are read"
    looked = f"a folder {' or '.join(map(repr, names))}"
    if endings:
        looked += f", or such a file with {', '.join(sorted(endings))} (and perhaps {', '.join(PACKED)} after it)"
    listed = next((each for each in known if each.name == request.dataset), None)
    if listed is None:
        cure = f"give --data-dir{nearest(request.dataset, [each.name for each in known])}"
    elif listed.sources:
        cure = f"run 'ocd-bench data fetch {request.dataset}', or give --data-dir"
    else:
        cure = "give --data-dir ('ocd-bench data list' says where it comes from)"
    return f"dataset {request.dataset!r} of task {request.task!r} not found: looked in {where} for {looked}; {cure}"


def _of_other_form(request: Request, names: Sequence[str]) -> Path | None:
    """A file with the wanted name and an unknown suffix."""
    for directory in request.data_dirs:
        for name in names:
            parent, stem = (directory / name).parent, Path(name).name.lower()
            if parent.is_dir():
                for entry in sorted(parent.iterdir()):
                    if split_name(entry.name).stem.lower() == stem and not is_stray(entry.name):
                        return entry
    return None
