"""Reading run folders: accepted and refused content, error messages, atomic writes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ocd_bench.errors import UsageError
from ocd_bench.merging import merge_runs
from ocd_bench.results import Key, config_differences, primary_of, read_run, write_atomic
from tests.runs import cell, edit_cell, make_run, write_run


def test_a_run_is_read_in_its_own_order(tmp_path: Path):
    folder = make_run(
        tmp_path / "run", {"tent": 0.0, "base": 0.0}, groups=[("b", "y"), ("b", "x"), ("a", "z")], seeds=(2, 0, 10)
    )
    run = read_run(folder)
    assert [key[:2] for key in run.cells][::6] == [("b", "y"), ("b", "x"), ("a", "z")]
    assert [key[2:] for key in run.cells][:6] == [
        ("tent", 0),
        ("tent", 2),
        ("tent", 10),
        ("base", 0),
        ("base", 2),
        ("base", 10),
    ]
    key = Key("b", "y", "tent", 10)
    assert primary_of(run.cells[key]) == "accuracy"
    scores = run.scores(key, "accuracy")
    assert scores is not None
    assert scores.dtype == np.float64
    assert scores.mean() == pytest.approx(run.cells[key]["metrics"]["accuracy"]["value"])
    assert run.scores(key, "unknown") is None


def test_a_run_without_scores_can_be_read(tmp_path: Path):
    run = read_run(make_run(tmp_path / "run", with_scores=False))
    assert run.scores(next(iter(run.cells)), "accuracy") is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "run.json").unlink(), "not a run folder"),
        (lambda f: (f / "run.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "run.json").write_text("[]"), "expected an object"),
        (lambda f: (f / "run.json").write_text('{"schema": 2}'), "schema 2, this version reads schema 1"),
        (
            lambda f: (f / "cells" / "images-mnist-ocd-s0.json").write_bytes(b"\xff\x00"),
            "images-mnist-ocd-s0.json: cannot be read",
        ),
        (lambda f: edit_cell(f, "images-mnist-ocd-s0", schema=9), "schema 9"),
        (lambda f: edit_cell(f, "images-mnist-ocd-s0", status="fine"), "'status' is 'fine', expected ok or"),
        (lambda f: edit_cell(f, "images-mnist-ocd-s0", seed="0"), "'seed' is '0', expected a whole number"),
        (lambda f: edit_cell(f, "images-mnist-ocd-s0", metrics={}), "0 primary metrics"),
        (lambda f: edit_cell(f, "images-mnist-ocd-s0", method="tent"), "holds the cell images-mnist-tent-s0"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, message: str):
    folder = make_run(tmp_path / "run")
    damage(folder)
    with pytest.raises(UsageError, match=message):
        read_run(folder)


@pytest.mark.parametrize("value", [float("nan"), None, "0.9"])
def test_a_value_that_is_not_a_finite_number_is_refused(tmp_path: Path, value: object):
    folder = make_run(tmp_path / "run")
    path = folder / "cells" / "images-mnist-ocd-s0.json"
    content = json.loads(path.read_text())
    content["metrics"]["accuracy"]["value"] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="metric 'accuracy': 'value' is .*, expected a finite number"):
        read_run(folder)


def test_no_such_folder(tmp_path: Path):
    with pytest.raises(UsageError, match="no such run folder"):
        read_run(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: not a run folder, but a file"):
        read_run(tmp_path / "file")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (b"not an archive", "cannot be read"),
        ({"accuracy": np.ones(3)}, r"shape \(3,\), the cell says \(400,\)"),
        ({"accuracy": np.full(400, np.nan)}, "not finite"),
        ({"accuracy": np.array([object()] * 400)}, "holds Python objects"),
        ({"accuracy": np.array(["a"] * 400)}, "holds <U1, not numbers"),
    ],
)
def test_damaged_scores_are_named(tmp_path: Path, arrays, message: str):
    folder = make_run(tmp_path / "run")
    path = folder / "scores" / "images-mnist-ocd-s1.npz"
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    else:
        np.savez(path, **arrays)
    with pytest.raises(UsageError, match=message) as caught:
        read_run(folder).scores(Key("images", "mnist", "ocd", 1), "accuracy")
    assert "images-mnist-ocd-s1.npz" in str(caught.value)


def test_temporary_files_of_an_atomic_write_are_ignored(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    (folder / "cells" / ".x.json").write_text("{")
    assert len(read_run(folder).cells) == 9


def test_atomic_write_replaces_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("ocd_bench.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"newer")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX")
def test_written_files_follow_the_umask(tmp_path: Path):
    old = os.umask(0o022)
    try:
        write_atomic(tmp_path / "file", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_the_union_of_two_runs(tmp_path: Path):
    one = read_run(make_run(tmp_path / "one", seeds=(0, 1), info={"notes": {"images-mnist": "some"}}))
    two = read_run(make_run(tmp_path / "two", seeds=(1, 2), groups=[("images", "mnist"), ("nlp", "news")]))
    both = merge_runs([one, two])
    assert len(both.cells) == 9 + 6
    assert both.info["seeds"] == [0, 1, 2]
    assert both.info["tasks"]["nlp"]["dataset"] == ["news"]
    assert both.info["notes"] == {"images-mnist": "some"}
    assert both.scores(Key("nlp", "news", "ocd", 2), "accuracy") is not None
    assert len(one.cells) == 6
    assert one.info["seeds"] == [0, 1]


def test_the_same_cell_may_cost_more_the_second_time(tmp_path: Path):
    one, two = (make_run(tmp_path / name, seeds=(0,)) for name in ("one", "two"))
    edit_cell(two, "images-mnist-ocd-s0", cost={"fit_s": 99.0})
    assert len(merge_runs([read_run(one), read_run(two)]).cells) == 3


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"fingerprint": {"config": "x"}}, "fingerprint"),
        ({"status": "failed", "reason": "why"}, "status"),
        ({"layer": "fc2"}, "layer"),
    ],
)
def test_a_cell_that_differs_is_named(tmp_path: Path, changes: dict, what: str):
    one, two = (make_run(tmp_path / name, seeds=(0,)) for name in ("one", "two"))
    edit_cell(two, "images-mnist-ocd-s0", **changes)
    with pytest.raises(UsageError, match=f"images-mnist-ocd-s0 differs in {what} between .*one and .*two"):
        merge_runs([read_run(one), read_run(two)])


def test_values_that_differ_are_a_conflict(tmp_path: Path):
    one = make_run(tmp_path / "one", seeds=(0,))
    two = make_run(tmp_path / "two", seeds=(0,), stream=5)
    with pytest.raises(UsageError, match="differs in metrics"):
        merge_runs([read_run(one), read_run(two)])


def test_configurations_that_differ_are_a_conflict(tmp_path: Path):
    one = make_run(tmp_path / "one", seeds=(0,))
    tasks = {"images": {"dataset": ["mnist"], "config": {"base": {"epochs": 5, "lr": 0.001}}}}
    two = make_run(tmp_path / "two", seeds=(1,), info={"tasks": tasks})
    with pytest.raises(UsageError, match=r"images: base\.epochs 3 and 5"):
        merge_runs([read_run(one), read_run(two)])
    three = make_run(tmp_path / "three", seeds=(1,), info={"preset": "paper"})
    with pytest.raises(UsageError, match="differ in preset: 'quick' and 'paper'"):
        merge_runs([read_run(one), read_run(three)])


def test_differences_of_configurations():
    one = {"base": {"epochs": 3, "lr": 1}, "ocd": {"draws": 5}}
    two = {"base": {"epochs": 3, "lr": 2, "new": True}}
    assert config_differences(one, two) == ["base.lr 1 and 2", "base.new absent and True", "ocd.draws 5 and absent"]
    assert config_differences(one, two, common=True) == ["base.lr 1 and 2", "base.new absent and True"]


def test_a_cell_without_a_method_is_refused(tmp_path: Path):
    entry = cell("images", "mnist", "ocd", 0, status="failed", reason="why")
    folder = write_run(tmp_path / "run", [entry], {})
    edit_cell(folder, "images-mnist-ocd-s0", method="")
    with pytest.raises(UsageError, match="'method' is '', expected a name"):
        read_run(folder)


def test_reading_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys; import ocd_bench.results, ocd_bench.report.html, ocd_bench.report.text, ocd_bench.comparison.machine, "
        "ocd_bench.cli.report, ocd_bench.cli.compare, ocd_bench.cli.merge; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_modules_are_light():
    import subprocess
    import sys

    code = (
        "import sys; import ocd_bench.cli.report, ocd_bench.cli.compare, ocd_bench.cli.merge; "
        "heavy = {'numpy', 'scipy', 'rich', 'torch'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- untrusted run folders ------------------------------------------------------------------------------------------------
HOSTILE = "\x1b]0;title\x07 \x9b31m \u202etxt.exe\u202c \u2066 \x00 \x7f"


def test_hostile_texts_reach_no_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from ocd_bench.cli import main

    failed = cell("demo", "d", "base", 0, status="failed", reason=HOSTILE)
    good = cell("demo", "d", "ocd", 0, {"accuracy": np.ones(3)})
    good["metrics"] = {f"accuracy{HOSTILE}": {**good["metrics"]["accuracy"], "unit": HOSTILE}}
    good["detail"], good["layer"] = {HOSTILE: [HOSTILE]}, HOSTILE
    folder = write_run(tmp_path / "run", [failed, good], {})
    info = json.loads((folder / "run.json").read_text())
    info.update(notes={"demo-d": HOSTILE}, preset=HOSTILE, plugins={HOSTILE: HOSTILE})
    (folder / "run.json").write_text(json.dumps(info))
    for form in ("table", "markdown", "csv", "latex", "html"):
        assert main(["report", str(folder), "--format", form]) == 0
        said = capsys.readouterr()
        assert set("\x1b\x07\x00\x7f\x9b\u202e\u202c\u2066") & set(said.out + said.err) == set(), form
    assert r"\x1b]0;title\x07" in said.out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cost": {"fit_s": "fast"}}, "'cost' is 'dict', expected a table of finite numbers"),
        ({"cost": {"fit_s": float("inf")}}, "'cost'"),
        ({"cost": {"fit_s": 10**400}}, "'cost'"),
        ({"layer": {"a": 1}}, "'layer' is 'dict', expected a text"),
        ({"reason": ["x"]}, "'reason' is 'list', expected a text or null"),
        ({"detail": "x"}, "'detail' is 'x', expected a table"),
        ({"n_test": 1.5}, "'n_test' is 1.5, expected a number of samples"),
        ({"n_test": 10**400}, "'n_test' is 1000000.*…, expected a number of samples"),
        ({"n_test": True}, "'n_test' is True"),
        ({"seed": -1}, "'seed' is -1"),
        ({"fingerprint": {"config": 5}}, "'fingerprint'"),
        ({"task": "x" * 201}, "'task' is 'x"),
        ({"dataset": "\ud800"}, r"'\\ud800' holds a lone surrogate, which is no text"),
        ({"metrics": {"accuracy": []}}, "'metrics' is 'dict', expected a table of metrics"),
        (
            {"metrics": {"accuracy": {"value": 1.0, "unit": "", "higher_is_better": 1, "primary": True}}},
            "'higher_is_better' is 1",
        ),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path: Path, changed: dict, message: str):
    folder = make_run(tmp_path / "run")
    edit_cell(folder, "images-mnist-ocd-s0", **changed)
    with pytest.raises(UsageError, match=message) as caught:
        read_run(folder)
    assert "images-mnist-ocd-s0.json" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks": []}, "'tasks' is 'list'"),
        ({"tasks": {"images": {"dataset": "mnist"}}}, "task 'images': 'dataset' is 'mnist', expected a list of texts"),
        ({"seeds": [0.5]}, "'seeds' is 'list'"),
        ({"environment": {"cpu": {}}}, "the environment: 'cpu' is 'dict'"),
        ({"notes": {"a": 1}}, "'notes'"),
        ({"preset": 5}, "'preset' is 5"),
    ],
)
def test_a_field_of_run_json_of_another_type_is_named(tmp_path: Path, changed: dict, message: str):
    folder = make_run(tmp_path / "run")
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**info, **changed}))
    with pytest.raises(UsageError, match=message):
        read_run(folder)


def test_links_out_of_a_run_folder_are_not_followed(tmp_path: Path):
    (tmp_path / "secret.txt").write_text("secret")
    for place in ("figures/images-mnist-s0/x.txt", "scores/images-mnist-ocd-s0.npz", "cells/images-mnist-ocd-s0.json"):
        folder = make_run(tmp_path / place.partition("/")[0])
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).unlink(missing_ok=True)
        (folder / place).symlink_to(tmp_path / "secret.txt")
        with pytest.raises(UsageError, match="a link that leads out of the run folder; remove it"):
            read_run(folder)


def test_a_pipe_in_a_run_folder_is_refused_at_once(tmp_path: Path):
    import os

    folder = make_run(tmp_path / "run")
    (folder / "cells/images-mnist-ocd-s0.json").unlink()
    os.mkfifo(folder / "cells/images-mnist-ocd-s0.json")
    with pytest.raises(UsageError, match="not a regular file"):
        read_run(folder)


def test_cells_with_another_primary_metric_are_refused(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    path = folder / "cells" / "images-mnist-ocd-s0.json"
    content = json.loads(path.read_text())
    content["metrics"] = {"rmse": {**next(iter(content["metrics"].values())), "primary": True}}
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="another primary metric than the others"):
        read_run(folder)
