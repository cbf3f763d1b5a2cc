"""``ocd-bench merge``: shards become one run folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ocd_bench.api import load
from ocd_bench.cli import main
from ocd_bench.merging import _folder_names
from ocd_bench.results import Key, read_run
from tests.faulty import run_here, write_plugin
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
    assert main(["merge", str(part), str(part), "--allow-missing", "--out", str(tmp_path / "all")]) == 0
    assert len(read_run(tmp_path / "all").cells) == 3


def test_one_run_is_no_plural(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["merge", str(make_run(tmp_path / "one", {"base": 0.0}, seeds=(0,))), "--out", str(tmp_path / "all")]) == 0
    assert "1 cell of 1 run: " in capsys.readouterr().err


def test_settings_that_were_changed_are_those_of_all_parts(tmp_path: Path):
    parts = shards(tmp_path)
    for part, changed in zip(parts, ({"ocd.steps": 5}, {"base.lr": 1}, {}), strict=True):
        info = json.loads((part / "run.json").read_text())
        info["tasks"]["images"]["changed"] = changed
        (part / "run.json").write_text(json.dumps(info))
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "all")]) == 0
    assert read_run(tmp_path / "all").info["tasks"]["images"]["changed"] == {"ocd.steps": 5, "base.lr": 1}


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
    assert main(["merge", *map(str, parts), "--out", str(parts[1])]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert len(read_run(parts[1]).cells) == 3


def test_machines_that_differ_are_all_kept(tmp_path: Path):
    parts = shards(tmp_path)
    info = json.loads((parts[2] / "run.json").read_text())
    info["environment"]["cpu"] = "Another CPU"
    (parts[2] / "run.json").write_text(json.dumps(info))
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "all")]) == 0
    environments = read_run(tmp_path / "all").info["environments"]
    assert [environments[part.name]["cpu"] for part in parts] == ["Test CPU", "Test CPU", "Another CPU"]
    assert str(tmp_path) not in (tmp_path / "all" / "run.json").read_text()


def test_missing_cells_are_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second, _ = shards(tmp_path)
    (second / "cells" / "images-mnist-ocd-s1.json").unlink()
    words = ["merge", str(first), str(second), "--out", str(tmp_path / "all")]
    assert main(words) == 3
    err = capsys.readouterr().err
    assert "missing: 4 cells: images-mnist-base-s2, images-mnist-ocd-s1, images-mnist-ocd-s2, images-mnist-tent-s2" in err
    assert "--allow-missing" in err
    assert not (tmp_path / "all").exists()
    assert main([*words, "--allow-missing"]) == 0
    assert "missing: 4 cells" in capsys.readouterr().err
    assert len(read_run(tmp_path / "all").cells) == 5


def test_a_method_that_only_one_task_has_is_not_missing_in_another(tmp_path: Path):
    config = {"base": {"lr": 0.1}}

    def tasks(**methods: list[str]) -> dict:
        return {"tasks": {name: {"dataset": ["mnist"], "config": config, "methods": rows} for name, rows in methods.items()}}

    one = make_run(tmp_path / "one", {"base": 0.0}, (0,), groups=[("images", "mnist")], info=tasks(images=["base"]))
    two = make_run(
        tmp_path / "two", {"base": 0.0, "ocd": 0.1}, (0, 1), groups=[("tables", "mnist")], info=tasks(tables=["base", "ocd"])
    )
    assert main(["merge", str(one), str(two), "--out", str(tmp_path / "all")]) == 0


def test_a_method_without_any_cell_is_missing_if_the_plan_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tasks = {"images": {"dataset": ["mnist"], "config": {}, "methods": ["base", "ocd", "tent", "memo"]}}
    run = make_run(tmp_path / "one", seeds=(0,), info={"tasks": tasks})
    assert main(["merge", str(run), "--out", str(tmp_path / "all")]) == 3
    assert "missing: 1 cell: images-mnist-memo-s0" in capsys.readouterr().err


def test_a_missing_shard_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    parts = [
        make_run(tmp_path / f"part{seed}", seeds=(seed,), groups=[("images", f"set{seed}")], info={"shards": [f"{seed + 1}/3"]})
        for seed in range(3)
    ]
    assert main(["merge", str(parts[0]), str(parts[2]), "--out", str(tmp_path / "two")]) == 3
    assert "missing: shard 2/3" in capsys.readouterr().err
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "all")]) == 0
    assert read_run(tmp_path / "all").info["shards"] == ["1/3", "2/3", "3/3"]


@pytest.mark.parametrize("hashed", [True, False])
def test_other_scores_of_one_cell_are_a_conflict(tmp_path: Path, capsys: pytest.CaptureFixture[str], hashed: bool):
    one, two = (make_run(tmp_path / name, seeds=(0,)) for name in ("one", "two"))
    path = two / "scores" / "images-mnist-ocd-s0.npz"
    with np.load(path) as arrays:
        reversed_scores = {name: array[::-1] for name, array in arrays.items()}
    np.savez_compressed(path, **reversed_scores)
    if hashed:
        for run in (one, two):
            scores = (run / "scores" / "images-mnist-ocd-s0.npz").read_bytes()
            edit_cell(run, "images-mnist-ocd-s0", scores_sha256=hashlib.sha256(scores).hexdigest())
    assert main(["merge", str(one), str(two), "--out", str(tmp_path / "all")]) == 2
    assert "images-mnist-ocd-s0 differs in its scores between" in capsys.readouterr().err


def test_shards_of_a_real_run_say_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    plugin = write_plugin(tmp_path / "plugin")
    for part in (1, 2):
        words = ("--methods", "base,scaled", "--seeds", "2", "--shard", f"{part}/2", "--quiet")
        assert run_here(plugin, *words, "--out", str(tmp_path / f"part{part}")) == 0
    capsys.readouterr()
    assert main(["merge", str(tmp_path / "part2"), "--out", str(tmp_path / "half")]) == 3
    assert "missing: shard 1/2; 2 cells: dots-default-base-s0, dots-default-scaled-s0" in capsys.readouterr().err
    assert main(["merge", str(tmp_path / "part2"), str(tmp_path / "part1"), "--out", str(tmp_path / "all")]) == 0
    assert len(read_run(tmp_path / "all").cells) == 4


def test_runs_that_differ_in_methods_and_datasets_miss_nothing_together(tmp_path: Path):
    """Each has its own plan; only what one of them lacks is said to be missing."""
    one = make_run(tmp_path / "one", {"base": 0.0, "ocd": 0.1}, seeds=(0, 1))
    two = make_run(tmp_path / "two", {"base": 0.0}, seeds=(0,), groups=(("images", "mnist+fog-3"),))
    for folder, methods in ((one, ["base", "ocd"]), (two, ["base"])):
        info = json.loads((folder / "run.json").read_text())
        info["tasks"]["images"]["methods"] = methods
        (folder / "run.json").write_text(json.dumps(info))
    assert "have no cell" not in load(one, two).table()
    assert main(["merge", str(one), str(two), "--out", str(tmp_path / "all")]) == 0
    assert "have no cell" not in load(tmp_path / "all").table()
    assert read_run(tmp_path / "all").info["joined"] is True
    assert main(["merge", str(tmp_path / "all"), str(one), "--out", str(tmp_path / "again")]) == 0
    (one / "cells" / "images-mnist-ocd-s1.json").unlink()
    assert "1 of 5 combinations of dataset, method and seed have no cell: images-mnist-ocd-s1" in " ".join(
        load(one, two).table().split()
    )


def test_folders_of_one_name_are_told_apart_by_the_folders_around_them() -> None:
    assert _folder_names(["/a/x/one", "/a/y/one", "two"]) == ["x/one", "y/one", "two"]
    assert _folder_names(["/a/one", "/a/one"]) == ["one", "one"]
