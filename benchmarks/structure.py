"""The structure of the core: lines of code of the engine's fast path, import circles, and the longest parameter lists.

    python benchmarks/structure.py

Lines of code do not include blank lines, comments and docstrings. An import inside a function counts for a circle like one at
the top of a module. An import under ``if TYPE_CHECKING`` is only for annotations and does not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent / "ocd_bench"
FAST_PATH = (
    "_replay", "apply", "banks", "capture", "choose_form", "condition", "diffusion", "forms", "gain", "hypernetwork", "learn",
    "ocd", "overfit", "problem", "settings", "shuffled", "size", "stream", "targets",
)  # fmt: skip
"""Modules of the engine that a fit of `ocd` and its predictions need."""


def code_lines(path: Path) -> int:
    """Lines of a file with code on them."""
    text = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    documented: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in enumerate(lines, 1)
    )


def modules() -> dict[str, Path]:
    """Every module of the core by dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the core that a file imports when it runs, lazily or not."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(inner & set(known) or {node.module})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found & set(known)


def circles() -> list[list[str]]:
    """Groups of modules that import one another, by Tarjan's algorithm."""
    known = modules()
    graph = {name: imports(path, known) - {name} for name, path in known.items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def connect(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                connect(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            connect(name)
    return found


def parameter_lists() -> Iterator[tuple[int, str]]:
    """The number of parameters of every function, beside ``self`` and ``cls``."""
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                yield sum(argument.arg not in ("self", "cls") for argument in arguments), f"{name}.{node.name}"


def main() -> None:
    known = modules()
    fast = {name: code_lines(known[f"ocd_bench.engine.{name}"]) for name in FAST_PATH}
    print("| module of the fast path | lines of code |\n| --- | --- |")
    for name, count in fast.items():
        print(f"| {name} | {count} |")
    print(f"| all | {sum(fast.values())} |")
    print(f"\ncircles: {circles() or 'none'}")
    longest = sorted(parameter_lists(), reverse=True)[:8]
    print("longest parameter lists: " + ", ".join(f"{name} {count}" for count, name in longest))


if __name__ == "__main__":
    main()
