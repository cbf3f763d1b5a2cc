"""The order to measure one group, as it is sent to another interpreter or machine, and the folder that it works in."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocd_bench.plugin.sources import is_file, project_file
from ocd_bench.runner.cells import Group, cell_name
from ocd_bench.runner.code import companions
from ocd_bench.runner.order import RunRequest
from ocd_bench.runner.store import RunFolder

FILES = ("figures", "bases")
"""Sub-folders of a run folder whose files a group may write beside its cells."""


@dataclass(frozen=True)
class Order:
    """Everything that another interpreter needs to measure a group. It needs no access to the run folder.

    Attributes:
        finished: cells of the group that are in the run folder, by name; they are checked there, and not measured again.
        entries: entries of the cache for this group, ``kind/file`` to content.
        sources: the plugin files that the user named, and the modules beside them: by name of the file, its content.
        stored: files of the folder of ``--bases`` for the group's task and dataset; of other seeds only the names.
        out: the run folder, for messages.
    """

    request: RunRequest
    group: Group
    finished: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    entries: Mapping[str, bytes] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    stored: Mapping[str, bytes] = field(default_factory=dict)
    out: str = ""


def order_for(request: RunRequest, group: Group, folder: RunFolder, sources: Mapping[str, Mapping[str, bytes]]) -> Order:
    """The order for a group of this run, without entries of the cache."""
    finished = {}
    for variant in group.variants:
        for method in group.methods:
            label = variant.label(group.dataset)
            cell = folder.read_cell(group.task, label, method, group.seed)
            if cell is not None:
                finished[cell_name(group.task, label, method, group.seed)] = cell
    return Order(request, group, finished, {}, sources, _stored(request.bases, group), str(folder.path))


def _stored(folder: Path | None, group: Group) -> dict[str, bytes]:
    if folder is None:
        return {}
    start = f"{group.task}-{group.dataset}-s".replace("/", "_")
    files = [path for path in sorted(folder.iterdir()) if path.name.startswith(start)]
    return {path.name: path.read_bytes() if path.name.startswith(f"{start}{group.seed}-") else b"" for path in files}


# -- plugin files ---------------------------------------------------------------------------------------------------------
def plugin_sources(plugins: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """The files among ``plugins``, and ``ocdfile.py``: by the plugin, the content of it and of modules in its folder that it
    imports, by path relative to its folder. Modules that are named without a file must be installed on each machine."""
    found = {}
    own = project_file(plugins)
    for text in [*plugins, *([own.origin] if own else [])]:
        if is_file(text):
            path = Path(text).resolve()
            files = [path, *companions(path)]
            found[text] = {str(file.relative_to(path.parent)): file.read_bytes() for file in files}
    return found


def unpacked(order: Order, place: Path) -> RunRequest:
    """The request with the plugin files written below ``place``. Files that are here with the same content are left there."""
    names = list(order.request.plugins)
    for number, (text, files) in enumerate(order.sources.items()):
        path = Path(text).resolve()
        if not all(_same(path.parent / name, content) for name, content in files.items()):
            folder = place / f"plugin{number}"
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            path = folder / path.name
        if text in names:
            names[names.index(text)] = str(path)
        else:
            names.append(str(path))
    return dataclasses.replace(order.request, plugins=tuple(names))


def _same(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


# -- the folder -----------------------------------------------------------------------------------------------------------
class SentFolder(RunFolder):
    """Stands for the run folder on another machine: finished cells come with the order, and files are written to a temporary
    folder inside ``place``, from which they are sent."""

    def __init__(self, order: Order, place: Path) -> None:
        self.path = Path(tempfile.mkdtemp(dir=place))
        self.warn = lambda line: print(line, file=sys.stderr)
        self._finished = order.finished
        self._out = order.out
        self._given = order.request.bases
        self._sent: set[Path] = set()
        for name, content in order.stored.items():
            self.given.mkdir(exist_ok=True)
            (self.given / name).write_bytes(content)

    @property
    def given(self) -> Path:
        """The folder of the stored bases that came with the order."""
        return self.path / "given"

    def read_cell(self, task: str, dataset: str, method: str, seed: int) -> dict[str, Any] | None:
        """A finished cell; None if there is none."""
        cell = self._finished.get(cell_name(task, dataset, method, seed))
        return dict(cell) if cell is not None else None

    def in_words(self, text: str) -> str:
        """A message with the names of the real folders."""
        return text.replace(str(self.given), str(self._given)).replace(str(self.path), self._out)

    def new_files(self) -> Iterator[tuple[str, bytes]]:
        """Files that were written since the last call: path relative to the run folder, and content."""
        for name in FILES:
            for path in sorted((self.path / name).rglob("*")):
                if path.is_file() and not path.is_symlink() and path not in self._sent:
                    self._sent.add(path)
                    yield str(path.relative_to(self.path)), path.read_bytes()

    def remove(self) -> None:
        """Remove the temporary folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def place_of(folder: Path, name: str) -> Path:
    """The path of a file that another machine sent, inside the run folder.

    Raises:
        ValueError: if the name leads elsewhere.
    """
    parts = name.split("/")
    if parts[0] not in FILES or len(parts) < 2 or any(part in ("", ".", "..") or os.sep in part for part in parts):
        raise ValueError(f"not a file of a run folder: {name!r}")
    return folder.joinpath(*parts)
