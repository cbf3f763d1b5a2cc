"""Every reader against damaged files, shortly: ``python tests/fuzz/run.py`` is the long form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from entries import ENTRIES
from run import ABOVE_START


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.brief])
def test_damaged_files_never_raise_anything_but_one_line(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("run.py")), name, "--cases", "400", "--seconds", "2"]
    command += ["--json", str(tmp_path / "found.json"), "--findings", str(tmp_path / "findings")]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert found["cases"] > 20
    assert found["refused"] > 0
    assert found["peak_mb"] * 2**20 <= ABOVE_START
