"""Fingerprints of everything that a result depends on. A result is not reused after any of it has changed.

Two kinds of results are reused between runs: cells (in the run folder) and trained base models (in the cache). These
fingerprints are stored in ``made_by`` of a cell, and in the key of a base model:

* ``method``, ``task``, ``core``: SHA-256 of source code. It starts at the modules of the class, of the hooks in use, and of the
  part of OCD-Bench that computes, and follows their imports (:mod:`ocd_bench.runner.code`). Code of OCD-Bench that only reads,
  writes or displays results is not included.
* ``packages``: versions of torch, numpy, and of the other distributions that this code imports.
* ``files``: SHA-256 of every file or folder that a setting names (a checkpoint, an encoder).
* ``threads``: the number of threads that compute (``run.threads``). It changes rounding.
* ``base``: key of the base model, which includes the code that trained it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocd_bench.config import fingerprint
from ocd_bench.runner.code import CORE_PACKAGE, code_of, file_of, forget

if TYPE_CHECKING:
    from ocd_bench.runner.cells import Group

TRAINING = ("ocd_bench.runner.training", "ocd_bench.samples", "ocd_bench.seeds", "ocd_bench.task")
"""Modules of the core that a base model depends on."""
MEASURING = ("ocd_bench.runner.measure", "ocd_bench.method", "ocd_bench.metrics", "ocd_bench.engine.selection")
"""Modules of the core that a cell depends on, beside the base and the method."""

BASE_HOOKS = ("ocd_bench_load_data", "ocd_bench_base_model")
"""Hooks whose code a base model depends on."""
LAYER_HOOKS = ("ocd_bench_select_layer",)
"""Hooks whose code a cell depends on, beside those of the base."""


def modules_of(item: object) -> list[str]:
    """Modules of an object's class and of its base classes, without builtins and the core's own base classes."""
    own = [kind.__module__ for kind in type(item).__mro__]
    return [
        name
        for name in dict.fromkeys(own)
        if name not in ("builtins", "abc", "typing", "ocd_bench.task", "ocd_bench.method") and not name.startswith("torch.")
    ]


def source_without_file(item: object) -> str:
    """Source of a class that is in no file (a notebook, ``python -c``); its compiled code if there is no source."""
    kind = type(item)
    if file_of(kind.__module__) is not None:
        return ""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        functions = [value.__code__ for _, value in sorted(vars(kind).items()) if inspect.isfunction(value)]
        return repr([(code.co_name, code.co_code, [c for c in code.co_consts if isinstance(c, PLAIN)]) for code in functions])


PLAIN = (bool, int, float, str, bytes, type(None))


def state_of(item: object) -> dict[str, Any]:
    """The plain attributes of an instance (``Scaled(factor=2)``)."""
    values = getattr(item, "__dict__", {})
    return {
        name: value
        for name, value in sorted(values.items())
        if isinstance(value, PLAIN) or (isinstance(value, tuple | list) and all(isinstance(part, PLAIN) for part in value))
    }


def object_print(item: object, further: Iterable[str] = ()) -> tuple[str, frozenset[str]]:
    """Digest of an object's code and plain state, and the packages that the code imports.

    Args:
        further: names of modules to include beside those of the class.
    """
    code = code_of([*modules_of(item), *further])
    if both := [object_print(part) for part in getattr(item, "parts", ())]:  # of A+B
        packages = code.packages.union(*(packages for _, packages in both))
        return fingerprint([code.sha256, [digest for digest, _ in both]]), packages
    parts = {"code": code.sha256, "state": state_of(item), "class": type(item).__qualname__, "text": source_without_file(item)}
    return fingerprint(parts), code.packages


def read_code(manager: Any, groups: Iterable[Group]) -> None:
    """Read the code of these groups, soon after it was loaded. Forked workers have what was read here, so that a file that is
    replaced during the run makes no difference between them.

    Raises:
        UsageError: if a file cannot be read.
    """
    forget()  # a plugin file may have been loaded again since the last run of this process
    groups = list(groups)
    for name in dict.fromkeys(group.task for group in groups):
        object_print(manager.task(name), hook_modules(manager, *BASE_HOOKS, *LAYER_HOOKS))
    for name in dict.fromkeys(name for group in groups for name in group.methods):
        object_print(manager.method(name))
    code_of([*TRAINING, *MEASURING])


def hook_modules(manager: Any, *hooks: str) -> list[str]:
    """Modules of the plugins that implement one of these hooks, without the task's own implementation."""
    names: list[str] = []
    for hook in hooks:
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            module = getattr(implementation.function, "__module__", "")
            if module and not module.startswith("ocd_bench.plugin."):
                names.append(module)
    return list(dict.fromkeys(names))


@functools.cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return importlib.metadata.packages_distributions()


@functools.cache
def _version(package: str) -> str | None:
    if package in sys.stdlib_module_names or package == CORE_PACKAGE:
        return None
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        pass  # a distribution of another name, or none
    names = _distributions().get(package, ())
    return f"{names[0]} {importlib.metadata.version(names[0])}" if names else None


def versions(packages: Iterable[str]) -> list[str]:
    """``name version`` of the distributions of these packages, and of torch and numpy, which are always included."""
    import numpy
    import torch

    found = {_version(package) for package in packages if package not in ("torch", "numpy")}
    return sorted({f"torch {torch.__version__}", f"numpy {numpy.__version__}", *(text for text in found if text)})


# -- files named in settings ------------------------------------------------------------------------------------------------
def named_files(sections: Mapping[str, Mapping[str, Any]], data_dirs: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file or folder that a setting names, by setting. A value with a dot or a slash is a path if it exists as
    given, or below a data directory."""
    found = {}
    for section, values in sections.items():
        for key, value in values.items():
            for text in value if isinstance(value, tuple | list) else (value,):
                if isinstance(text, str) and ("." in text or "/" in text or os.sep in text):
                    path = _existing(text, data_dirs)
                    if path is not None:
                        found[f"{section}.{key}"] = content_sha256(path)
    return found


def _existing(text: str, data_dirs: Sequence[Path]) -> Path | None:
    try:
        given = Path(text).expanduser()
        places = [given] if given.is_absolute() else [given, *(folder / given for folder in data_dirs)]
        return next((place for place in places if place.is_file() or place.is_dir()), None)
    except (OSError, ValueError, RuntimeError):
        return None


def content_sha256(path: Path) -> str:
    """Digest of a file's content or, for a folder, of the names and contents of all files in it."""
    if path.is_file():
        status = path.stat()
        return _file_sha256(path, status.st_mtime_ns, status.st_size)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return fingerprint([(str(file.relative_to(path)), content_sha256(file)) for file in files])


@functools.cache
def _file_sha256(path: Path, changed_ns: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- what differs -----------------------------------------------------------------------------------------------------------
def differences(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    """Descriptions of the differences of two ``made_by``; empty if there are none."""
    if not isinstance(old, Mapping):
        return ["code that was not recorded (an earlier version of OCD-Bench)"]
    words = {
        "method": "the method's code",
        "task": "the task's code",
        "core": "OCD-Bench's own code",
        "files": "the content of a file that a setting names",
        "threads": "the number of threads",
        "base": "the base model or its training code",
    }
    found = []
    if old.get("packages") != new.get("packages"):
        before, now = set(old.get("packages") or ()), set(new.get("packages") or ())
        found.append(
            f"versions of packages ({', '.join(sorted(before - now)) or 'none'}; now {', '.join(sorted(now - before))})"
        )
    found += [text for key, text in words.items() if old.get(key) != new.get(key)]
    if "base" in new and found[:-1]:  # the base follows from the others
        found = [text for text in found if text != words["base"]]
    return found
