"""``plugin new``: the new distribution can be installed, passes its own tests and the linters."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ocd_bench
from ocd_bench import UsageError
from ocd_bench.plugin.manager import load_plugins
from ocd_bench.plugin.scaffold import write_plugin


def python(*words: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with the package under test on the path, even if it is not installed."""
    roots = [str(root) for root in (path, Path(ocd_bench.__file__).parents[1]) if root]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("kind", ["task", "method"])
def test_it_passes_its_own_tests_as_generated(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    write_plugin("two-moons", kind, folder)
    result = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error::UserWarning", cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " skipped" not in result.stdout


@pytest.mark.parametrize("kind", ["task", "method"])
def test_it_is_clean(kind: str, tmp_path: Path) -> None:
    for path in write_plugin("two-moons", kind, tmp_path):
        text = path.read_text(encoding="utf-8")
        assert max(map(len, text.splitlines())) <= 100, path
        assert text.endswith("\n")
        assert not text.endswith("\n\n"), path
        if path.suffix == ".py":
            compile(text, str(path), "exec")
    if ruff := shutil.which("ruff"):
        for words in (["check"], ["format", "--check"]):
            result = subprocess.run([ruff, *words, "--no-cache", "."], cwd=tmp_path, capture_output=True, text=True)
            assert result.returncode == 0, result.stdout


@pytest.mark.skipif(not os.environ.get("OCD_BENCH_TEST_INSTALL"), reason="set OCD_BENCH_TEST_INSTALL=1: builds with pip")
def test_it_installs_and_is_found(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write_plugin("two-moons", "task", tmp_path / "new")
    built = python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), "./new", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    result = python("-m", "ocd_bench", "list", "plugins", "--json", cwd=tmp_path, path=site)
    rows = {row["name"]: row for row in json.loads(result.stdout)["plugins"]}
    assert rows["two-moons"] == {
        "name": "two-moons",
        "version": "0.1.0",
        "origin": "ocd-bench-two-moons",
        "hooks": ["ocd_bench_register_tasks"],
    }


def test_names_become_packages_and_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = write_plugin("3d-shapes")
    assert Path("ocd-bench-3d-shapes/src/ocd_bench_3d_shapes/task.py") in paths
    monkeypatch.syspath_prepend("ocd-bench-3d-shapes/src")
    task = load_plugins(["ocd_bench_3d_shapes"], only=()).task("3d-shapes")
    assert type(task).__name__ == "The3dShapes"


@pytest.mark.parametrize("name", ["Wine", "wine_2", "-wine", "wine-", "a--b", "", "base", "all", "weiß", "../x"])
def test_an_invalid_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name"):
        write_plugin(name, "task", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_built_in_methods_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'tent' is OCD-Bench's own"):
        write_plugin("tent", "method", tmp_path / "new")
    with pytest.raises(UsageError, match="did you mean 'method'"):
        write_plugin("shake", "methods", tmp_path / "new")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "README.md").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("used", "file"):
        with pytest.raises(UsageError, match="exists already"):
            write_plugin("wine", out=tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["README.md", "file", "used"]
    with pytest.raises(UsageError, match="cannot write"):
        write_plugin("wine", out=tmp_path / "file" / "below")
