"""Source code of a module and of all that it imports, without running any of it.

Imports are followed to modules of the same package, to files beside a ``--plugin`` file, and to OCD-Bench itself. A name that
is no module is passed over. A module that cannot be read is an error: without it, the code would look changed.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.abc import FileLoader
from importlib.machinery import ModuleSpec
from pathlib import Path

from ocd_bench.config import fingerprint
from ocd_bench.errors import UsageError
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
    """One module's source and the names it imports (function bodies included, ``if TYPE_CHECKING`` left out); None: no module.

    Raises:
        UsageError: if its file cannot be read, or if it is loaded and its file is gone or is no Python any more.
    """
    path = file_of(name)
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(name, path, error.strerror or str(error)) from error
    imports: tuple[str, ...] = ()
    if path.suffix == ".py":
        try:
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            imports = tuple(dict.fromkeys(_imports(ast.parse(data), package)))
        except (SyntaxError, ValueError) as error:
            if name in sys.modules:  # it was Python when it was loaded
                raise _unreadable(name, path, f"it is not Python: {error}") from error
            # Not loaded, as code for another version of Python: its content counts, and it imports nothing.
    return _Module(name, path, sha256(data), imports)


def forget() -> None:
    """Read every module again when its code is next asked for."""
    _read.cache_clear()


def _unreadable(name: str, path: Path, problem: str) -> UsageError:
    return UsageError(
        f"{path}: cannot read the code of module {name} ({problem}), so it is unknown whether results depend on other code: "
        "run again when the file is whole"
    )


def file_of(name: str) -> Path | None:
    """The file of a module; None if there is no such module, or if it has no file (built in, in a notebook, in an archive).

    Raises:
        UsageError: if the module was loaded from a file that is gone.
    """
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
    else:
        spec = _find(name)
        file = spec.origin if spec and spec.has_location else None
    if not file:
        return None
    path = Path(file)
    try:
        if path.is_file():
            return path
        if isinstance(getattr(module, "__loader__", None), FileLoader) and not path.exists():
            raise _unreadable(name, path, "the file is gone")
    except OSError as error:
        raise _unreadable(name, path, error.strerror or str(error)) from error
    return None


def _find(name: str) -> ModuleSpec | None:
    """The specification of a module that is not loaded. Unlike ``importlib.util.find_spec``, this imports no parent package:
    that would run code, and a parent that fails would look like a module that does not exist."""
    if not all(name.split(".")):
        return None
    places = None
    if parent := name.rpartition(".")[0]:
        found = sys.modules.get(parent) or _find(parent)
        places = getattr(found, "submodule_search_locations" if isinstance(found, ModuleSpec) else "__path__", None)
        if places is None:  # the name is something in a module
            return None
    found_by = (finder.find_spec(name, places) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in found_by if spec is not None), None)


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
        return imported if file_of(imported) is not None else ""
    if importer.path is not None and _is_beside(top, importer.path):
        return imported if file_of(imported) is not None else ""
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
        except (SyntaxError, ValueError):  # such a file beside a plugin that loads: it imports nothing
            continue
        for top in dict.fromkeys(name.partition(".")[0] for name in names):
            beside = [path.parent / f"{top}.py", *sorted((path.parent / top).rglob("*.py"))] if top else []
            if _is_beside(top, path):
                new = [each for each in beside if each.is_file() and each not in (path, *found)]
                found += new
                todo += new
    return found
