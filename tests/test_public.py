"""The public modules: they are documented, and plugins, templates, pages and examples import no others."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ocd_bench.plugin import templates
from tests.notebooks import code_cells, source
from tests.pages import ROOT, blocks

PAGE = ROOT / "docs" / "public-api.md"
ROWS = re.findall(r"^\| `(ocd_bench[\w.]*)` \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
PUBLIC = {
    module: set(import_module(module).__all__ if names == "all of `__all__`" else re.findall(r"`(\w+)`", names))
    for module, names, _ in ROWS
}
HOOKS = "ocd_bench.plugin.spec"
PUBLIC[HOOKS] = {name for name in dir(import_module(HOOKS)) if name.startswith("ocd_bench_")}
TORCH = {module for module, _, note in ROWS if "*torch*" in note}


def sources() -> dict[str, str]:
    """Code that may use public names only: its place, and its text."""
    found = {str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("plugins/*/ocd_bench_*/**/*.py")}
    found |= {str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("examples/*.py")}
    for path in ROOT.glob("examples/*.ipynb"):
        found[str(path.relative_to(ROOT))] = "\n".join(source(cell) for cell in code_cells(path))
    for name, text in vars(templates).items():
        if name.isupper() and "import" in text and name not in ("PYPROJECT", "README"):
            found[f"template {name}"] = text.replace("$package", "package").replace("$cls", "Class").replace("$name", "name")
    inside = ROOT / "docs" / "engine.md"  # for those who change the core
    for page in [ROOT / "README.md", *set(ROOT.glob("docs/*.md")) - {inside}, *ROOT.glob("plugins/*/README.md")]:
        for block in blocks(page):
            if block.language == "python":
                found[f"{page.relative_to(ROOT)}:{block.line}"] = block.text
    return found


def private(text: str) -> list[str]:
    """Private names of ``ocd_bench`` that ``text`` imports or uses by a dotted name."""
    wrong = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ocd_bench":
            names = PUBLIC.get(node.module, set())
            wrong += [f"from {node.module} import {alias.name}" for alias in node.names if alias.name not in names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names if alias.name.split(".")[0] == "ocd_bench"]
            wrong += [f"import {module}" for module in modules if module not in PUBLIC]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ocd_bench":
            known = PUBLIC["ocd_bench"] | {module.split(".")[1] for module in PUBLIC if "." in module}
            wrong += [] if node.attr in known else [f"ocd_bench.{node.attr}"]
    return wrong


def test_plugins_templates_examples_and_pages_import_public_names_only() -> None:
    found = sources()
    assert sum(name.startswith("template") for name in found) == 6
    assert sum(name.startswith("plugins/") and name.endswith(".py") for name in found) > 50
    assert {name: wrong for name, text in found.items() if (wrong := private(text))} == {}


def test_use_of_a_private_name_is_detected() -> None:
    text = "import ocd_bench, ocd_bench.engine\nfrom ocd_bench.results import Run, merge_runs\nocd_bench.tent\nocd_bench.Task\n"
    assert private(text) == ["import ocd_bench.engine", "from ocd_bench.results import merge_runs", "ocd_bench.tent"]


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_exists_and_is_explained(module: str) -> None:
    home = import_module(module)
    assert inspect.getdoc(home)
    for name in PUBLIC[module]:
        value = getattr(home, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module}.{name} has no docstring"
        for member, function in vars(value).items() if inspect.isclass(value) else ():
            if inspect.isfunction(function) and not member.startswith("_") and function.__name__ == member:
                inherited = any(getattr(getattr(base, member, None), "__doc__", None) for base in value.__mro__[1:])
                assert function.__doc__ or inherited, f"{module}.{name}.{member} has no docstring"
    if hasattr(home, "__all__"):
        assert set(home.__all__) - {"__version__"} == PUBLIC[module]


def test_every_public_name_is_in_the_reference() -> None:
    pages = "\n".join(path.read_text() for path in ROOT.glob("docs/api/*.md"))
    named = set(re.findall(r"auto(?:class|data):: (?:ocd_bench\.)?(\w+)$", pages, re.MULTILINE))
    for module, options in re.findall(r"automodule:: ([\w.]+)\n((?:   :.*\n)*)", pages):
        members = re.search(r":members: (.*)", options)
        named |= set(members[1].split(", ")) if members else PUBLIC[module]
    for module, names in PUBLIC.items():
        assert names <= named, module


@pytest.mark.parametrize("module", ["ocd_bench", HOOKS, "ocd_bench.online", "ocd_bench.testing", "ocd_bench.checkpoint"])
def test_every_public_name_has_a_versionadded(module: str) -> None:
    home = import_module(module)
    for name in PUBLIC[module]:
        value = getattr(home, name)
        notes = [inspect.getdoc(value) or "", home.__doc__ or "" if module != HOOKS else ""]
        notes.append(import_module(getattr(value, "__module__", module)).__doc__ or "")
        assert any(re.search(r"\.\. versionadded:: \d+\.\d+", note) for note in notes), name


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_only_the_modules_that_say_so_import_torch(module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == str(module in TORCH)


def test_types_are_complete_where_authors_look() -> None:
    """Every argument of a public function and method has an annotation."""
    for module, names in PUBLIC.items():
        tree = ast.parse(Path(str(import_module(module).__file__)).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (node.name in names or module != "ocd_bench.config"):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                missing = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
                assert not missing, (module, node.name, missing)
                assert node.returns is not None, (module, node.name)
