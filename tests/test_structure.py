"""The structure of the core, measured by its own benchmark: no import circles, and an engine that imports nothing above it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def structure() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "structure.py"
    made = importlib.util.spec_from_file_location("structure", path)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    sys.modules["structure"] = module
    made.loader.exec_module(module)
    return module


def test_no_modules_import_one_another_lazily_or_not(structure: ModuleType) -> None:
    assert structure.circles() == []


def test_a_lazy_import_circle_is_detected(structure: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "ocd_bench"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("def late():\n    from ocd_bench.b import x\n")
    (package / "b.py").write_text("from ocd_bench import a\nx = a\n")
    (package / "c.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ocd_bench import d\n")
    (package / "d.py").write_text("import ocd_bench.c\n")
    monkeypatch.setattr(structure, "ROOT", package)
    assert structure.circles() == [["ocd_bench.a", "ocd_bench.b"]]


def test_the_engine_imports_nothing_above_it(structure: ModuleType) -> None:
    known = structure.modules()
    beside = ("engine", "errors", "heap", "precision", "progress", "seeds", "settings")
    allowed = tuple(f"ocd_bench.{name}" for name in beside)
    for name, path in known.items():
        if name.startswith("ocd_bench.engine"):
            assert all(other.startswith(allowed) for other in structure.imports(path, known)), name


def test_the_fast_path_needs_no_control_and_no_published_module(structure: ModuleType) -> None:
    known = structure.modules()
    for name in structure.FAST_PATH:
        path = known[f"ocd_bench.engine.{name}"]
        assert not any("controls" in other or "published" in other for other in structure.imports(path, known)), name
