"""``ocd-bench merge``: shards become one run folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ocd_bench.cli import main
from ocd_bench.results import Key, read_run
from tests.runs import edit_cell, make_run


def shards(tmp_path: Path) -> list[Path]:
    """Three shards of one run over seeds, as from ``--shard``: the run.json of each names all seeds."""
    return [make_run(tmp_path / f"part{seed}", seeds=(seed,), info={"seeds": [0, 1, 2]}) for seed in range(3)]


def test_shards_become_the_run_they_were_cut_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole = read_run(make_run(tmp_path / "whole"))
    parts = shards(tmp_path)
    (parts[1] / "errors").mkdir()
    (parts[1] / "errors" / "x.txt").write_text("Traceback")
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "all")]) == 0
    merged = read_run(tmp_path / "all")
    assert merged.cells == whole.cells
    assert list(merged.cells) == list(whole.cells)
    assert merged.info == whole.info
    key = Key("images", "mnist", "ocd", 2)
    np.testing.assert_array_equal(merged.scores(key, "accuracy"), whole.scores(key, "accuracy"))
    assert (tmp_path / "all" / "errors" / "x.txt").read_text() == "Traceback"
    assert "### images, mnist" in (tmp_path / "all" / "table.md").read_text()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "9 cells of 3 runs" in captured.err


def test_one_shard_twice_is_fine(tmp_path: Path):
    part = shards(tmp_path)[0]
    assert main(["merge", str(part), str(part), "--out", str(tmp_path / "all")]) == 0
    assert len(read_run(tmp_path / "all").cells) == 3


def test_a_conflict_names_the_cell_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, two = (make_run(tmp_path / name, seeds=(0,)) for name in ("one", "two"))
    edit_cell(two, "images-mnist-tent-s0", fingerprint={"config": "other"})
    assert main(["merge", str(one), str(two), "--out", str(tmp_path / "all")]) == 2
    assert "images-mnist-tent-s0 differs in fingerprint" in capsys.readouterr().err
    assert not (tmp_path / "all").exists()


def test_another_schema_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, two = (make_run(tmp_path / name, seeds=(0,)) for name in ("one", "two"))
    info = json.loads((two / "run.json").read_text())
    (two / "run.json").write_text(json.dumps({**info, "schema": 7}))
    assert main(["merge", str(one), str(two), "--out", str(tmp_path / "all")]) == 2
    assert "schema 7" in capsys.readouterr().err


def test_an_existing_run_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    parts = shards(tmp_path)
    assert main(["merge", str(parts[0]), "--out", str(parts[1])]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert len(read_run(parts[1]).cells) == 3


def test_machines_that_differ_are_all_kept(tmp_path: Path):
    parts = shards(tmp_path)
    info = json.loads((parts[2] / "run.json").read_text())
    info["environment"]["cpu"] = "Another CPU"
    (parts[2] / "run.json").write_text(json.dumps(info))
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "all")]) == 0
    environments = read_run(tmp_path / "all").info["environments"]
    assert [environments[str(part)]["cpu"] for part in parts] == ["Test CPU", "Test CPU", "Another CPU"]
