"""Sources of plugins: installed distributions, ``ocdfile.py``, and files and modules that the user names."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from ocd_bench._version import __version__
from ocd_bench.config import nearest
from ocd_bench.errors import UsageError
from ocd_bench.plugin import PROJECT

CORE = EntryPoint(name="methods", value="ocd_bench.methods", group=PROJECT)
"""The entry point of the built-in methods, as in pyproject.toml."""

PROJECT_FILE = "ocdfile.py"
"""Loaded from the working directory if it exists, like tox's ``toxfile.py``."""


@dataclass(frozen=True)
class Source:
    """One plugin, not loaded yet.

    Args:
        name: its name in ``list plugins`` and ``$OCD_BENCH_DISABLE_PLUGINS``.
        origin: its distribution, file or module.
        version: of the distribution; empty for a file or module.
        load: function that imports it and returns the object with the hooks.
        explicit: whether the user named this plugin; a fault is then an error.
    """

    name: str
    origin: str
    version: str
    load: Callable[[], Any]
    explicit: bool = False

    def __str__(self) -> str:
        origin = " ".join(filter(None, (self.origin, self.version)))
        return f"plugin {self.name!r}" + (f" ({origin})" if origin != self.name else "")


def core(declared: bool = False) -> Source:
    """The built-in methods, whether or not this distribution is installed.

    Args:
        declared: whether to load only their declarations, which do not import torch.
    """
    if declared:
        return Source(CORE.name, "ocd-bench", __version__, lambda: importlib.import_module(f"{CORE.value}.catalogue"))
    return Source(CORE.name, "ocd-bench", __version__, CORE.load)


def installed() -> Iterator[Source]:
    """Plugins of installed distributions, sorted by name, without the built-in methods."""
    for entry in sorted(entry_points(group=PROJECT), key=lambda entry: (entry.name, entry.value)):
        if entry.value != CORE.value:
            dist = entry.dist
            origin, version = (dist.name, dist.version) if dist else ("", "")
            yield Source(entry.name, origin or entry.value, version or "", entry.load)


def project_file(extra: Sequence[str] = ()) -> Source | None:
    """``ocdfile.py`` of the working directory; None if there is none, or if ``extra`` already names it."""
    path = Path(PROJECT_FILE).resolve()
    if not path.is_file() or any(Path(text).resolve() == path for text in extra):
        return None
    return Source(PROJECT_FILE, str(path), "", lambda: load_file(path))


def is_file(text: str) -> bool:
    """Whether the value of ``--plugin`` is a file: it ends in ``.py`` or contains a path separator."""
    return text.endswith(".py") or os.sep in text or "/" in text


def is_module(text: str) -> bool:
    """Whether there is a module of that name."""
    try:
        return importlib.util.find_spec(text) is not None
    except (ImportError, ValueError):
        return False


def given(text: str) -> Source:
    """The file or module that ``--plugin`` names.

    Raises:
        UsageError: if there is no such file or module.
    """
    if is_file(text):
        path = Path(text)
        if not path.is_file():
            kind = "is a folder: give a .py file, or install it" if path.is_dir() else "no such file"
            raise UsageError(f"--plugin {text}: {kind}")
        return Source(path.name, text, "", lambda: load_file(path), explicit=True)
    if not is_module(text):
        raise UsageError(f"--plugin {text}: no module of that name can be imported; a file must end in .py")
    return Source(text, text, "", lambda: importlib.import_module(text), explicit=True)


class _FromSource(SourceFileLoader):
    """Compiles a file each time. Python's own cache takes a file of the same size and second for the same file."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load_file(path: Path) -> ModuleType:
    """Import a Python file under a unique module name. Modules in its folder can then be imported."""
    path = path.resolve()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last, so that no file in that folder hides an installed module
    sys.modules[name] = module  # dataclasses and pickle find the module of a class here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def disabled(sources: list[Source]) -> tuple[set[str], str | None]:
    """Names of ``sources`` that ``$OCD_BENCH_DISABLE_PLUGINS`` turns off, and a warning about unknown names.

    ``1`` or ``all`` turns off all of them; otherwise it is a list of names separated by commas.
    """
    text = os.environ.get("OCD_BENCH_DISABLE_PLUGINS", "").strip()
    names = {source.name for source in sources}
    if text.lower() in ("1", "all", "true", "yes"):
        return names, None
    wanted = {name.strip() for name in text.split(",")} - {"", "0"}
    wanted = {PROJECT_FILE if name == "ocdfile" else name for name in wanted}
    unknown = sorted(wanted - names - {PROJECT_FILE})
    warning = f"$OCD_BENCH_DISABLE_PLUGINS: no plugin {unknown[0]!r}{nearest(unknown[0], names)}" if unknown else None
    return wanted & names, warning
