"""Real tasks that are killed with SIGKILL at random times and continued: ``benchmarks/kills.py`` with few kills, or with 50."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def kills() -> ModuleType:
    made = importlib.util.spec_from_file_location("kills", Path(__file__).parent.parent / "benchmarks" / "kills.py")
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    sys.modules["kills"] = module
    made.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("task", "count"),
    [
        ("tabular", 3),
        ("images", 2),
        pytest.param("tabular", 25, marks=pytest.mark.long),
        pytest.param("images", 25, marks=pytest.mark.long),
    ],
)
def test_killed_runs_end_bit_identical_and_lose_little(kills: ModuleType, task: str, count: int, tmp_path: Path) -> None:
    record = kills.break_runs(task, count, tmp_path, extra=("--set", "ocd.steps=150") if count < 5 else ())
    print(kills.table([record]))
    assert len(record.lost) == count
    assert record.compared > 0
    assert record.differing == record.left == record.cells == 0


def test_a_changed_number_and_a_leftover_are_noticed(
    kills: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole" / "out").mkdir(parents=True)
    values = iter([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}])
    monkeypatch.setattr(kills, "numbers", lambda out: next(values))

    def once(task: str, folder: Path, delay: float, record, extra, every: float) -> bool:
        if folder.name == "whole" or record.lost:
            return False
        folder.mkdir(exist_ok=True)
        (folder / ".cell.0.tmp").touch()
        record.lost.append(1.5)
        return True

    monkeypatch.setattr(kills, "kill_once", once)
    record = kills.break_runs("tabular", 1, tmp_path)
    assert (record.differing, record.left) == (2, 1)
    assert "| tabular | 1 | 0 | 1 | 1.5, 1.5 | 0 | 2 | 2 | 1 |" in kills.table([record])
