"""The six distributions: one version, consistent metadata, annotations for a user's type checker."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest

from ocd_bench import __version__
from tests.pages import ROOT

FOLDERS = {
    "ocd_bench": ROOT,
    **{f"ocd_bench_{path.parent.name}": path.parent for path in ROOT.glob("plugins/*/pyproject.toml")},
}
"""Package name to the folder of its distribution."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheels of the six distributions, and their metadata, in one folder."""
    site = tmp_path_factory.mktemp("site")
    for folder in FOLDERS.values():
        words = ["egg_info", "--egg-base", str(site), "build_py", "--build-lib", str(site)]
        command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "--quiet", *words]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
    return site


def project(package: str) -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((FOLDERS[package] / "pyproject.toml").read_text())["project"]
    return settings


@pytest.mark.parametrize("package", FOLDERS)
def test_a_wheel_has_the_version_every_file_and_the_marker_of_its_types(package: str, built: Path) -> None:
    (metadata,) = (path for path in built.glob("*.egg-info/PKG-INFO") if path.parent.stem == package)
    assert f"\nVersion: {__version__}\n" in metadata.read_text()
    assert (built / package / "py.typed").is_file()
    listed = subprocess.run(["git", "ls-files", package], cwd=FOLDERS[package], capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        if (FOLDERS[package] / name).exists():
            assert (built / name).read_bytes() == (FOLDERS[package] / name).read_bytes(), name
            assert not (built / name).is_symlink(), name


def test_the_version_is_written_once() -> None:
    for package, folder in FOLDERS.items():
        assert "version" in project(package)["dynamic"], package
        spec = importlib.util.spec_from_file_location("version", folder / package / "_version.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.__version__ == __version__
        for path in (folder / package).rglob("*.py"):
            if path.name != "_version.py":
                assert not re.search(r"^__version__ *=", path.read_text(), re.MULTILINE), path
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{__version__}}}" in (ROOT / "docs" / "citing.md").read_text()


def test_metadata_agree() -> None:
    core = project("ocd_bench")
    for package in FOLDERS:
        own = project(package)
        for key in ("authors", "license", "requires-python", "classifiers", "urls"):
            assert own[key] == core[key], (package, key)
        assert own["description"].endswith("."), package
    supported = [line.rsplit(" ", 1)[1] for line in core["classifiers"] if ":: Python :: 3." in line]
    environments = re.search(r"^env_list = (.*)$", (ROOT / "tox.ini").read_text(), re.MULTILINE)
    assert environments is not None
    assert {f"py{version.replace('.', '')}" for version in supported} <= set(re.split(r", *", environments[1]))
    assert core["requires-python"] == f">={supported[0]}"


DOWNSTREAM = """
import ocd_bench
import ocd_bench_images.task

def first(task: ocd_bench.Task, request: ocd_bench.Request) -> ocd_bench.Splits:
    reveal_type(request.seed)
    reveal_type(ocd_bench_images.task.Images().datasets)
    return task.load_data(request.seed)
"""


def test_a_users_type_checker_sees_the_annotations(built: Path, tmp_path: Path) -> None:
    """mypy ignores the annotations of an installed package without ``py.typed``."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    shutil.copytree(built, site, dirs_exist_ok=True)
    (tmp_path / "user.py").write_text(DOWNSTREAM)
    words = ["-m", "mypy", "--ignore-missing-imports", "--no-incremental", "--config-file=", "user.py"]
    words += ["--python-executable", str(tmp_path / "venv" / "bin" / "python")]
    result = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert 'user.py:6: note: Revealed type is "int"' in result.stdout.replace("builtins.", ""), result.stdout
    assert "def () -> typing.Sequence[ocd_bench.task.Dataset]" in result.stdout, result.stdout
    assert 'user.py:8: error: Argument 1 to "load_data" of "Task" has incompatible type "int"' in result.stdout, result.stdout
