"""Fingerprints of everything that a result depends on. A result is not reused after any of it has changed.

Two kinds of results are reused between runs: cells (in the run folder) and trained base models (in the cache). These
fingerprints are stored in ``made_by`` of a cell, and in the key of a base model:

* ``method``, ``task``, ``core``: SHA-256 of source code. It starts at the modules of the class, of the hooks in use, and of the
  part of OCD-Bench that computes. It follows their imports to modules of the same package, to files beside a ``--plugin`` file,
  and to OCD-Bench itself. Code of OCD-Bench that only reads, writes or displays results is not included.
* ``packages``: versions of torch, numpy, and of the other distributions that this code imports.
* ``files``: SHA-256 of every file or folder that a setting names (a checkpoint, an encoder).
* ``threads``: the number of threads that compute (``run.threads``). It changes rounding.
* ``base``: key of the base model, which includes the code that trained it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocd_bench.config import fingerprint
from ocd_bench.files import sha256

CORE_PACKAGE = "ocd_bench"

BYSTANDERS = (
    "ocd_bench",  # only the package's own __init__, which defines names; not its modules
    "ocd_bench.cache",
    "ocd_bench.errors",
    "ocd_bench.files",
    "ocd_bench.folders",
    "ocd_bench.results",
    *(f"ocd_bench.{name}.*" for name in ("cli", "comparison", "data", "plugin", "report", "testing")),
    "ocd_bench.runner.*",
)
"""Modules of the core that have no effect on measured numbers. Imports are not followed into them."""

TRAINING = ("ocd_bench.runner.training", "ocd_bench.samples", "ocd_bench.seeds", "ocd_bench.task")
"""Modules of the core that a base model depends on."""
MEASURING = ("ocd_bench.runner.measure", "ocd_bench.method", "ocd_bench.metrics", "ocd_bench.engine.selection")
"""Modules of the core that a cell depends on, beside the base and the method."""


@dataclass(frozen=True)
class Code:
    """Source files by module name, and the other packages they import."""

    sources: Mapping[str, str]
    packages: frozenset[str]

    @property
    def sha256(self) -> str:
        """Digest of names and contents."""
        return fingerprint(dict(sorted(self.sources.items())))


def code_of(modules: Iterable[str]) -> Code:
    """The modules of these names, and all that they import from their own package, their own folder, and the core."""
    sources: dict[str, str] = {}
    labels: dict[str, str] = {}
    packages: set[str] = set()
    todo = list(dict.fromkeys(modules))
    while todo:
        name = todo.pop()
        if name in sources:
            continue
        module = _read(name)
        if module is None:
            continue
        sources[name] = module.sha256
        labels[name] = _label(module)
        for imported in module.imports:
            target = _resolve(imported, module)
            if target is None:
                packages.add(imported.partition(".")[0])
            elif target and target not in sources and not is_bystander(target):
                todo.append(target)
    return Code({labels[name]: digest for name, digest in sources.items()}, frozenset(packages))


def _label(module: _Module) -> str:
    """A module's name. For a ``--plugin`` file it is the file's name without its folder, so that the file may be moved."""
    installed = getattr(sys.modules.get(module.name), "__package__", None) or "." in module.name
    return module.name if installed or module.path is None else module.path.name


def is_bystander(name: str) -> bool:
    """Whether a module of the core has no effect on any number."""
    return any(name == rule or (rule.endswith(".*") and f"{name}.".startswith(rule[:-1])) for rule in BYSTANDERS)


@dataclass(frozen=True)
class _Module:
    name: str
    path: Path | None
    sha256: str
    imports: tuple[str, ...]


@functools.cache
def _read(name: str) -> _Module | None:
    """One module's source and the names it imports (function bodies included, ``if TYPE_CHECKING`` left out)."""
    path = _file_of(name)
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError:
        return None
    imports: tuple[str, ...] = ()
    if path.suffix == ".py":
        try:
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            imports = tuple(dict.fromkeys(_imports(ast.parse(data), package)))
        except (SyntaxError, ValueError):
            pass
    return _Module(name, path, sha256(data), imports)


def _file_of(name: str) -> Path | None:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None and module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        file = spec.origin if spec and spec.has_location else None
    return Path(file) if file and Path(file).is_file() else None


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base]) if base else ".".join(parent)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)  # a name may be a module
        else:
            yield from _imports(node, package)


def _resolve(imported: str, importer: _Module) -> str | None:
    """The name of a module to follow; empty for a name that is not a module; None for another distribution's package."""
    top = imported.partition(".")[0]
    own = importer.name.partition(".")[0]
    if top in (own, CORE_PACKAGE):
        return imported if _file_of(imported) is not None else ""
    if importer.path is not None and _is_beside(top, importer.path):
        return imported if _file_of(imported) is not None else ""
    return None


def _is_beside(top: str, path: Path) -> bool:
    return (path.parent / f"{top}.py").is_file() or (path.parent / top / "__init__.py").is_file()


def companions(path: Path) -> list[Path]:
    """Files in the folder of a ``--plugin`` file that it imports, directly or not; packages with all their files."""
    found: list[Path] = []
    todo = [path]
    while todo:
        file = todo.pop()
        try:
            names = list(_imports(ast.parse(file.read_bytes()), ""))
        except (OSError, SyntaxError, ValueError):
            continue
        for top in dict.fromkeys(name.partition(".")[0] for name in names):
            beside = [path.parent / f"{top}.py", *sorted((path.parent / top).rglob("*.py"))] if top else []
            if _is_beside(top, path):
                new = [each for each in beside if each.is_file() and each not in (path, *found)]
                found += new
                todo += new
    return found


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
    if _file_of(kind.__module__) is not None:
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
