"""The leaderboard over several tables, and plots as files."""

from __future__ import annotations

import csv
import io
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from ocd_bench.cli import main
from ocd_bench.report import build_table, render
from ocd_bench.report.leaderboard import leaderboard, ranks
from ocd_bench.results import read_run
from tests.runs import accuracy_scores, cell, write_run


def two_tables(folder: Path) -> Path:
    """Accuracy on one dataset, an error on another; ``b`` and ``c`` are equal on the first, and ``c`` is n/a on the second."""
    seeds = (0, 1, 2)
    first = accuracy_scores({"base": 0.0, "oracle": 4.0, "a": 2.0, "b": 1.0}, seeds, n=200)
    cells, scores = [], {}
    for (method, seed), arrays in [*first.items(), *((("c", seed), first["b", seed]) for seed in seeds)]:
        cells.append(cell("images", "mnist", method, seed, arrays))
        scores["images", "mnist", method, seed] = arrays
    draw = np.random.default_rng(0)
    for place, method in enumerate(("base", "b", "a")):
        for seed in seeds:
            arrays = {"rmse": draw.normal(3 - place, 0.1, 50) ** 2}
            cells.append(cell("tabular", "wine", method, seed, arrays))
            scores["tabular", "wine", method, seed] = arrays
    cells += [cell("tabular", "wine", "c", seed, status="not-applicable", reason="no classes") for seed in seeds]
    return write_run(folder, cells, scores)


def test_ranks_share_places_and_know_the_direction(tmp_path: Path):
    first, second = build_table(read_run(two_tables(tmp_path / "run"))).groups
    assert ranks(first) == {"base": 4, "a": 1, "b": 2.5, "c": 2.5}
    assert ranks(second) == {"base": 3, "b": 2, "a": 1}


def test_the_leaderboard_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = two_tables(tmp_path / "run")
    table = leaderboard(build_table(read_run(folder)))
    (group,) = table.groups
    assert [row.method for row in group.rows] == ["a", "b", "base", "c", "oracle"]
    ranked = dict(zip(group.columns[0].texts, group.columns[1].texts, strict=True))
    assert ranked == {"a": "1.00", "b": "2.25", "base": "3.50", "c": "2.50 (1 of 2)", "oracle": "–"}
    assert group.blocks == [[0, 1, 2, 3], [4]]
    for format in ("table", "markdown", "latex", "html"):
        assert "mean rank" in render(table, format), format
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert [line["method"] for line in lines] == ["a", "b", "base", "c", "oracle"]
    assert (lines[0]["mean_rank"], lines[0]["better"], lines[3]["tabular, wine"]) == ("1.0", "1", "")
    assert main(["report", str(folder), "--leaderboard", "--format", "markdown"]) == 0
    assert "### leaderboard, 2 tables" in capsys.readouterr().out


def test_the_leaderboard_of_two_runs_of_other_tasks(tmp_path: Path):
    """As ``report RUN RUN --leaderboard`` reads them."""
    from ocd_bench import load

    scores = accuracy_scores({"base": 0.0, "a": 1.0}, (0, 1, 2), n=100)
    folders = []
    for task in ("one", "two"):
        cells = [cell(task, "d", m, s, arrays) for (m, s), arrays in scores.items()]
        folders.append(write_run(tmp_path / task, cells, {(task, "d", m, s): a for (m, s), a in scores.items()}))
    text = load(*folders).table("csv", leaderboard=True)
    assert text.splitlines()[0] == "method,mean_rank,better,worse,one d,two d".replace("one d,two d", '"one, d","two, d"')


def test_plots_are_files_that_need_no_style_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = two_tables(tmp_path / "run")
    assert main(["report", str(folder), "--plots", str(tmp_path / "plots")]) == 0
    files = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert files[0] == "images-mnist-01-accuracy-mean-over-seeds.svg"
    assert f"{len(files)} plots" in capsys.readouterr().err
    for path in (tmp_path / "plots").iterdir():
        root = ET.fromstring(path.read_text())
        assert float(root.attrib["width"]) > 100
        style = root.find("{http://www.w3.org/2000/svg}style")
        assert style is not None
        assert "#0550ae" in (style.text or "")
        assert "var(" not in path.read_text()


def test_plots_as_png(tmp_path: Path):
    pytest.importorskip("resvg_py")
    folder = two_tables(tmp_path / "run")
    assert main(["report", str(folder), "--plots", str(tmp_path / "plots"), "--plot-format", "png", "--format", "csv"]) == 0
    data = next((tmp_path / "plots").iterdir()).read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") == 840


def test_png_without_its_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    words = ["report", str(two_tables(tmp_path / "run")), "--plots", str(tmp_path / "plots"), "--plot-format", "png"]
    assert main(words) == 2
    assert "pip install 'ocd-bench[png]'" in capsys.readouterr().err
