"""Which file of a tree is a picture of which part and class: ``train/CLASS/NAME.png`` and ``test/CLASS/NAME.png``, as folders
or in zips, or ``CLASS/NAME.png`` alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ocd_bench import UsageError
from ocd_bench.reading import is_stray, left_out, listed, reading, split_name
from ocd_bench_images.sources.trees import FolderTree, Tree, ZipTree

PARTS = {"train": "train(ing)?", "test": "(test(ing)?|eval(uation)?)", "val": "(val(id|idation)?|dev)"}
"""Names of a part's folder or zip, as regular expressions; ``train-0``, ``Training_set``, ``TEST_IMAGES`` are parts too."""
_TAIL = r"([-_ ]?(set|data|images|imgs))?([-_ ]?\d+)?"
ANNOTATIONS, BOXES = "val_annotations.txt", "_boxes.txt"
"""Tiny ImageNet's labels of validation pictures, and its boxes around objects, which are not used."""
UNREAD = frozenset({
    ".avif", ".avifs", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".tga", ".pcx", ".ico", ".icns", ".psd",
    ".svg",
    ".eps", ".exr", ".hdr", ".pfm", ".qoi", ".dds", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".dcm", ".npy", ".pdf",
})  # fmt: skip
"""Endings of pictures in formats that are not read: a dataset of which these would be left out is another one."""


@dataclass(frozen=True)
class Entry:
    """One picture file: sorted by class, then name, whatever zip it lies in."""

    label: str
    name: str
    tree: Tree


@dataclass
class Layout:
    """Pictures of each part in order (``all`` where there are only classes), and remarks for the note."""

    parts: dict[str, list[Entry]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def part_of(name: str) -> str:
    """The part that a folder of this name is, ``train``, ``test`` or ``val``; empty for any other."""
    return next((part for part, names in PARTS.items() if re.fullmatch(names + _TAIL, name, re.IGNORECASE)), "")


def read_layout(place: Path) -> Layout:
    """The pictures of a folder or zip, without reading them; no parts if it has none of the known layouts.

    Raises:
        UsageError: if two folders could be one part, or pictures are in a format that is not read.
    """
    layout = Layout()
    others: list[str] = []
    if place.is_dir():
        groups = _of_folder(place, layout)
    else:
        archive = ZipTree(place)
        groups = _of_names(archive, {name: name for name in archive.names})
    for part, pieces in groups.items():
        entries = layout.parts.setdefault(part, [])
        for tree, names in pieces:
            found, rest = _pictures(tree, names, str(place))
            entries += found
            others += rest
    if remark := left_out(others):
        layout.remarks.append(remark)
    # Tiny ImageNet's test pictures have no labels: one folder without classes.
    if "val" in layout.parts and {entry.label for entry in layout.parts.get("test", ())} == {"images"}:
        del layout.parts["test"]
    layout.parts = {
        part: sorted(entries, key=lambda entry: (entry.label, entry.name)) for part, entries in layout.parts.items()
    }
    return layout


Group = dict[str, list[tuple[Tree, dict[str, str]]]]
"""For each part the trees it lies in, and for each its files: name in the tree to path within the part."""


def _of_folder(place: Path, layout: Layout) -> Group:
    with reading(place):
        children = sorted(child for child in place.iterdir() if not is_stray(child.name))
    folders = [child for child in children if child.is_dir()]
    found: Group = {}
    named: dict[str, Path] = {}
    zips: dict[str, str] = {}
    for child in folders:
        part = part_of(child.name)
        tree = FolderTree(child) if part else None
        if tree is None or not _holds_classes([name for name in tree.names if tree.is_picture(name)]):
            continue
        if part in named:
            raise UsageError(f"{place}: {named[part].name} and {child.name} could both be the {part} part; keep one")
        named[part] = child
        found[part] = [(tree, {name: name for name in tree.names})]
    for child in children:
        part = part_of(child.stem) if child.suffix.lower() == ".zip" and child.is_file() else ""
        if part and part in named:
            layout.remarks.append(f"{child.name} left out beside {named[part].name}/")
        elif part:
            stem = child.stem.lower().rstrip("0123456789")
            if zips.setdefault(part, stem) != stem:
                raise UsageError(
                    f"{place}: {child.name} and another zip could both be the {part} part; number them, or keep one"
                )
            packed = ZipTree(child)
            found.setdefault(part, []).append((packed, _without_part(packed)))
    if "train" in found:
        rest = [folder.name for folder in folders if folder not in named.values()]
        if rest:
            layout.remarks.append(f"{'folders' if len(rest) > 1 else 'folder'} left out: {listed(rest)}")
        return found
    if found:
        return found
    whole = FolderTree(place)
    return _of_names(whole, {name: name for name in whole.names})


def _of_names(tree: Tree, paths: dict[str, str]) -> Group:
    """Parts of a tree by the first folder of its pictures' paths, below folders that lead to all of them alike."""
    while True:
        pictures = [path for name, path in paths.items() if tree.is_picture(name)]
        tops = {path.partition("/")[0] for path in pictures if "/" in path}
        if len(tops) != 1 or part_of(next(iter(tops))) or not all("/" in path for path in pictures):
            break
        top = next(iter(tops)) + "/"
        inner = {name: path.removeprefix(top) for name, path in paths.items() if path.startswith(top)}
        if not any("/" in path for name, path in inner.items() if tree.is_picture(name)):
            break  # the only folder is a class
        paths = inner
    grouped: Group = {}
    below: dict[str, dict[str, str]] = {}
    for name, path in paths.items():
        top, sign, rest = path.partition("/")
        if sign and part_of(top):
            below.setdefault(top, {})[name] = rest
    for top, names in below.items():
        part = part_of(top)
        if not _holds_classes([path for name, path in names.items() if tree.is_picture(name)]):
            continue
        if part in grouped:
            raise UsageError(f"{tree.path}: several folders could be the {part} part ({listed(sorted(below))}); keep one")
        grouped[part] = [(tree, names)]
    if grouped:
        return grouped
    # Classes alone, and no level more: what Set1/CLASS/NAME means is not for a reader to guess.
    if tops and all(path.count("/") == 1 for path in pictures):
        return {"all": [(tree, paths)]}
    return {}


def _holds_classes(pictures: list[str]) -> bool:
    """Whether a folder is a part: its pictures lie in folders of their own. ``bus``, ``car`` and ``train`` are three
    classes."""
    return not pictures or any("/" in path for path in pictures)


def _without_part(tree: Tree) -> dict[str, str]:
    """Names of a zip and their paths within the part: ``train.zip`` may hold ``train/CLASS/NAME``."""
    pictures = [name for name in tree.names if tree.is_picture(name)]
    tops = {name.partition("/")[0] for name in pictures}
    if len(tops) == 1 and all(name.count("/") > 1 for name in pictures):
        top = f"{tops.pop()}/"
        return {name: name.removeprefix(top) for name in tree.names}
    return {name: name for name in tree.names}


def _pictures(tree: Tree, names: dict[str, str], place: str) -> tuple[list[Entry], list[str]]:
    """The pictures among ``names`` (name in the tree to path within the part), and the names of other files.

    Raises:
        UsageError: if a picture is of a format that is not read, or has no line in Tiny ImageNet's annotations.
    """
    entries: list[Entry] = []
    others: list[str] = []
    annotated: dict[str, str] = {}
    for name, path in names.items():
        if path.lower() == ANNOTATIONS:
            annotated = _annotations(tree, name)
    for name, path in names.items():
        pieces = path.split("/")
        if not tree.is_picture(name):
            if not path.lower().endswith((ANNOTATIONS, BOXES)):
                others.append(path)
        elif len(pieces) < 2:
            others.append(path)
        elif annotated and pieces[-1] not in annotated:
            raise UsageError(f"{tree.where(name)}: the picture has no line in {ANNOTATIONS}; get the dataset again")
        else:
            entries.append(Entry(annotated.get(pieces[-1], pieces[0]), name, tree))
    _refuse_unread(others, place)
    return entries, others


def _refuse_unread(names: Iterable[str], place: str) -> None:
    unread = [name for name in names if split_name(name).ending in UNREAD]
    if unread:
        endings = listed(sorted({split_name(name).ending for name in unread}))
        raise UsageError(
            f"{place}: {len(unread):,} pictures are in a format that is not read ({endings}; the first is {unread[0]}); "
            "convert them to PNG, or take them away"
        )


def _annotations(tree: Tree, name: str) -> dict[str, str]:
    """Tiny ImageNet's validation labels: file name, class and a box a line, by tabs."""
    labels: dict[str, str] = {}
    for number, line in enumerate(tree.read(name).decode("utf-8-sig", "replace").splitlines(), 1):
        pieces = line.split("\t")
        if len(pieces) < 2:
            raise UsageError(f"{tree.where(name)}, line {number}: expected a file name, a tab and a class")
        labels[pieces[0]] = pieces[1]
    return labels
