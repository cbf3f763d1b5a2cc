"""``ocd_bench.run``, ``load`` and ``compare``: they give what the command line gives, and refuse what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ocd_bench
from ocd_bench.cli import main
from tests.notebooks import code_cells, source, store
from tests.notebooks import play as play_notebook
from tests.pages import ROOT, WRITE, environment, play, shape
from tests.runs import make_run

QUICK = {"preset": "quick", "progress": False, "settings": {"base.epochs": 2}}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OCD_BENCH_DISABLE_PLUGINS", "all")


def blobs() -> ocd_bench.Task:
    from blobs import Blobs

    return Blobs()


def test_a_run_has_the_numbers_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(ROOT / "examples" / "blobs.py")
    words = ["--task", "blobs", "--plugin", file, "--methods", "base,oracle", "--preset", "quick", "--set", "base.epochs=2"]
    assert main(["run", *words, "--quiet", "--out", "cli"]) == 0
    capsys.readouterr()
    run = ocd_bench.run("blobs", methods=["base", "oracle"], plugins=file, out="api", **QUICK)
    cell = json.loads(Path("cli/cells/blobs-default-oracle-s0.json").read_text())
    mine = run.cells["blobs", "default", "oracle", 0]
    assert mine["metrics"] == cell["metrics"]
    assert mine["fingerprint"] == cell["fingerprint"]
    assert run.exit_code == 0
    assert ocd_bench.compare("cli", run).counts == {"identical": 2}
    assert Path("api/table.md").read_text() == run.table("markdown")
    assert main(["report", "api"]) == 0
    assert capsys.readouterr().out == str(run) == run.table()


def test_tasks_and_methods_may_be_objects() -> None:
    class Same(ocd_bench.Method):
        name = "same"

        def fit(self, context: ocd_bench.Context) -> object:
            return context.base

    class Broken(ocd_bench.Method):
        name = "broken"

        def fit(self, context: ocd_bench.Context) -> object:
            raise ValueError("no idea")

    run = ocd_bench.run(blobs(), methods=["base", Same(), Broken()], out="own", seeds=[3], **QUICK)
    assert list(run.scores) == [("blobs", "default", "base", 3), ("blobs", "default", "same", 3)]
    base, same = (run.scores["blobs", "default", name, 3]["accuracy"] for name in ("base", "same"))
    assert base.shape == (180,)
    assert np.array_equal(base, same)
    assert "no idea" in run.failed["blobs", "default", "broken", 3]
    assert run.exit_code == 3
    assert repr(run) == "<ocd_bench.Run own: 3 cells, 1 failed>"
    assert ocd_bench.load("own").failed == run.failed
    with pytest.raises(KeyError):
        run.scores["blobs", "default", "broken", 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "blosb"}, "unknown task 'blosb'"),
        ({"task": []}, "task: expected at least one name"),
        ({"task": 7}, "task: 7 is a int, expected a name"),
        ({"methods": ["bas"]}, "unknown method 'bas'"),
        ({"methods": ocd_bench.Method}, "methods: Method is a class: give an instance"),
        ({"preset": "quik"}, "unknown preset 'quik' (did you mean 'quick'?)"),
        ({"seeds": -1}, "seeds=-1: expected a count"),
        ({"seeds": [0, 1.5]}, "seeds=[0, 1.5]: expected a count"),
        ({"seeds": 10**30}, "expected a count"),
        ({"seeds": True}, "seeds=True: expected a count"),
        ({"settings": {"base": {"epoch": 1}}}, "unknown setting 'base.epoch' (did you mean 'epochs'?)"),
        ({"settings": {"base.epochs": -2}}, "base.epochs"),
        ({"data_dir": "nowhere"}, "nowhere: no such folder"),
        ({"device": "tpu"}, "tpu"),
        ({"jobs": 2}, "a worker process cannot load 'blobs'"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_measured(arguments: dict, message: str) -> None:
    with pytest.raises(ocd_bench.UsageError) as caught:
        ocd_bench.run(**{"task": blobs(), "methods": ["base"], "out": "bad", "progress": False, **arguments})
    assert message in str(caught.value)
    assert not Path("bad/cells").exists()


def test_an_object_whose_name_is_taken_is_refused() -> None:
    file = str(ROOT / "examples" / "blobs.py")
    with pytest.raises(ocd_bench.UsageError, match="the name 'blobs' is taken by plugin 'blobs.py'"):
        ocd_bench.run(blobs(), methods="base", plugins=file, **QUICK)


def test_a_run_in_which_nothing_could_be_measured_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    task = blobs()

    def missing(request: ocd_bench.Request) -> ocd_bench.Splits:
        raise ocd_bench.DataMissing("no blobs here")

    monkeypatch.setattr(type(task), "load_data", lambda self, request: missing(request))
    with pytest.raises(ocd_bench.UsageError, match="no blobs here"):
        ocd_bench.run(task, methods="base", out="none", **QUICK)


def test_to_pandas_has_the_columns_of_the_csv_and_every_cell(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run = ocd_bench.load(make_run(tmp_path / "made", {"base": 0.0, "ocd": 0.4}, seeds=(0, 1)))
    frame = run.to_pandas()
    written = pandas.read_csv(pandas.io.common.StringIO(run.table("csv")))
    assert list(frame.columns) == list(written.columns)
    np.testing.assert_allclose(frame["mean"].astype(float), written["mean"])
    assert frame["primary"].map(type).eq(bool).all()
    cells = run.to_pandas("cells")
    assert len(cells) == sum(len(cell["metrics"]) for cell in run.cells.values())
    primary = cells[cells["primary"]].groupby("method")["value"].mean()
    assert primary["ocd"] == pytest.approx(frame[(frame.method == "ocd") & frame.primary]["mean"].item())
    with pytest.raises(ocd_bench.UsageError, match="expected 'rows' or 'cells'"):
        run.to_pandas("seeds")


def test_without_pandas_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ocd_bench.load(make_run(tmp_path / "made", {"base": 0.0}))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ocd_bench.Unavailable, match="pip install pandas"):
        run.to_pandas()


def test_a_notebook_shows_tables_with_all_text_escaped(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "made", {"base": 0.0, "ocd": 0.4})
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**info, "notes": {"images-mnist": "<script>alert(1)</script>"}}))
    run = ocd_bench.load(folder)
    html = run._repr_html_()
    assert "<td" in html
    assert "ocd" in html
    assert "<script" not in html
    shown = ocd_bench.compare(run, folder)._repr_html_()
    assert "2 identical" in shown
    assert shown.count("<tr>") == 3


def test_formats_of_a_comparison(tmp_path: Path) -> None:
    run = ocd_bench.load(make_run(tmp_path / "made", {"base": 0.0, "ocd": 0.4}))
    comparison = ocd_bench.compare(run, run)
    assert json.loads(comparison.table("json"))["exit_code"] == comparison.exit_code() == 0
    assert comparison.table("junit").startswith("<?xml")
    assert comparison.table("markdown").startswith("### OCD-Bench")
    assert comparison.table("html").startswith("<!doctype html>")
    assert str(comparison) == comparison.table()
    with pytest.raises(ocd_bench.UsageError, match="unknown format 'latex'"):
        comparison.table("latex")


def test_the_functions_are_there_after_every_import_and_import_no_torch() -> None:
    code = "import ocd_bench, ocd_bench.comparison.judge, sys; print(callable(ocd_bench.compare), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_the_page_runs(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "blobs.py", tmp_path)
    (result,) = play(ROOT / "docs" / "python.md", tmp_path).results
    assert result.code == 0, result.err
    assert "of 180 correct, in runs" in result.out
    assert "\n2 identical\n" in result.out


def test_the_notebook_runs_and_shows_what_it_has_stored(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    notebook = ROOT / "examples" / "first_run.ipynb"
    shutil.copy(ROOT / "examples" / "blobs.py", tmp_path)
    with environment(tmp_path):
        outputs = play_notebook(notebook)
    if WRITE:
        store(notebook, outputs)
    cells = code_cells(notebook)
    assert len(outputs) == len(cells) >= 5
    for cell, found in zip(cells, outputs, strict=True):
        compile(source(cell), "cell", "exec")
        assert plain(found) == plain(cell["outputs"]), source(cell)


def plain(outputs: list[dict]) -> list[str]:
    """What outputs show, without what differs between machines: numbers, the device, bold type."""
    text = json.dumps(outputs, ensure_ascii=False)
    text = re.sub(r"(OCD-Bench [^<]*?seed \d+),[^<]*", r"\1", text)
    return shape(re.sub(r"</?b>", "", text))
