"""The model of a table: a column is declared once and every format has it, in reports and in comparisons."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from ocd_bench.comparison import compare_runs
from ocd_bench.comparison import output as compare_output
from ocd_bench.comparison.judge import RowResult
from ocd_bench.comparison.machine import render_json
from ocd_bench.comparison.page import render_markdown
from ocd_bench.report import FORMATS, build_table, columns, render
from ocd_bench.report.columns import FIELDS, columns_of
from ocd_bench.report.numbers import style_for
from ocd_bench.report.table import DASH, Column, Field, Kind, Row, TableMetric
from ocd_bench.report.text import Layout, render_text
from ocd_bench.results import read_run
from tests.runs import make_run

ROOT = Path(__file__).resolve().parents[1]


def seeds_and_a_half(row: Row) -> float | None:
    """3 seeds + 4.5."""
    return len(row.seeds) + 4.5 if row.method == "ocd" else None


def test_a_new_column_of_a_report_is_one_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = read_run(make_run(tmp_path / "run", n=60))
    before = {format: render(build_table(run), format, 200) for format in FORMATS}
    monkeypatch.setattr(columns, "FIELDS", (*FIELDS, Field("half", "seeds & half", seeds_and_a_half)))
    table = build_table(run)
    for format, escaped in zip(FORMATS, ("&", "&amp;", None, r"\&", "&amp;"), strict=True):
        text = render(table, format, 200)
        assert not re.search("half|7.50", before[format])
        assert (f"seeds {escaped} half" if escaped else "half") in text, format
        assert ("7.5" if format == "csv" else "7.50") in text, format
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert {line["method"]: line["half"] for line in lines} == {"base": "", "ocd": "7.5", "tent": ""}
    assert '<td class=" cost" data-v="7.5">7.50</td>' in render(table, "html")


def test_a_new_column_of_a_comparison_is_one_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = read_run(make_run(tmp_path / "run", n=60))
    field: Field[RowResult] = Field("samples", "test samples", lambda row: row.candidate.n_test if row.candidate else None)
    monkeypatch.setattr(compare_output, "FIELDS", (*compare_output.FIELDS, field))
    comparison = compare_runs(run, run)
    for width in (60, 250):
        text = compare_output.render_text(comparison, width, all_rows=True)
        assert re.search(r"left out .*\btest\s+samples\n" if width == 60 else r"identical +60\.0\n", text, re.DOTALL)
    assert "| test samples |" in render_markdown(comparison)
    assert [row["samples"] for row in json.loads(render_json(comparison, 0))["rows"]] == [60, 60, 60]


def test_a_metric_may_have_the_name_of_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        columns, "FIELDS", (*FIELDS, Field("accuracy", "words", lambda row: f"of {row.method}", kind=Kind.LABEL))
    )
    table = build_table(read_run(make_run(tmp_path / "run", n=60)))
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert {line["accuracy"] for line in lines if line["metric"] == "accuracy"} == {"of base", "of ocd", "of tent"}
    assert all(0 < float(line["mean"]) < 1 for line in lines if line["metric"] == "accuracy")
    assert "| of base |" in render(table, "markdown")


def test_columns_without_any_entry_are_left_out_of_tables_but_not_of_csv(tmp_path: Path):
    folder = make_run(tmp_path / "run", {"base": 0.0}, cell_options={"cost": {"fit_s": 2.0}})
    (group,) = build_table(read_run(folder)).groups
    assert [column.heading for column in group.shown(compact=False)] == [
        "method", "accuracy [%] ↑", "cross_entropy [nats] ↓", "fit [s]"
    ]  # fmt: skip
    header = render(build_table(read_run(folder)), "csv").splitlines()[0]
    assert header.endswith("verdict,fit_s,adapt_s,samples_per_s,peak_memory_mb,parameters,chosen")


def test_compact_columns_are_for_narrow_formats(tmp_path: Path):
    (group,) = build_table(read_run(make_run(tmp_path / "run", n=60))).groups
    compact, every = group.shown(), group.shown(compact=False)
    assert [column.name for column in every if column not in compact] == ["adapt_s", "peak_memory_mb", "parameters"]


def test_only_the_differences_and_the_name_of_an_improved_row_are_marked():
    metric = TableMetric("accuracy", "fraction", True, True, style_for("fraction", [0.5]))
    rows = [Row(name, "ok", "", (0,), {"accuracy": (0.5, None)}, verdict=name) for name in ("better", "worse", "")]
    marks = {column.name or column.heading: [column.mark(place) for place in range(3)] for column in columns_of(rows, [metric])}
    assert marks.pop("method") == ["better", "", ""]
    assert marks.pop("delta") == marks.pop("delta_wide") == ["better", "worse", ""]
    assert all(mark == ["", "", ""] for mark in marks.values())


def test_a_column_is_aligned_by_its_kind():
    names = Column(Kind.LABEL, "name", ("a", "bb"), ("a", "bb"))
    costs = Column(Kind.COST, "s", (1.0, None), ("1.00", DASH))
    layout = Layout([names, costs])
    assert [layout.head().plain, layout.line(0).plain, layout.line(1).plain] == ["name     s", "a     1.00", "bb       –"]
    assert layout.width == 10
    assert {kind for kind in Kind if not kind.numeric} == {Kind.LABEL, Kind.PLUGIN}


def test_a_plugins_column_with_the_name_of_a_core_column_hides_nothing(tmp_path: Path):
    run = read_run(make_run(tmp_path / "run", n=60))
    table = build_table(run, columns=lambda cells: {"status": "mine", "fit_s": "own"})
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    for line in lines:
        assert (line["status"], line["status (plugin)"]) == ("ok", "mine")
        assert (line["fit_s"], line["fit_s (plugin)"]) == ("1.5", "own")
    assert "| fit \\[s\\] | samples/s | status | fit\\_s |" in render(table, "markdown")


def test_a_plugins_text_cannot_send_commands_to_the_terminal(tmp_path: Path):
    table = build_table(read_run(make_run(tmp_path / "run", n=60)), columns=lambda cells: {"a\x1b[2J": "b\nc"})
    text = render_text(table, 200)
    assert "\x1b" not in text
    assert "b c" in text
    rule = next(line for line in text.splitlines() if line.startswith("──"))
    assert cell_len(rule) == max(cell_len(line) for line in text.splitlines()[2:7])


@pytest.mark.parametrize("package", ["report", "compare"])
def test_no_module_imports_another_in_a_circle(package: str):
    """Imports inside functions count too: a module can be read when all that it imports has been read."""
    folder = ROOT / "ocd_bench" / package
    imports = {f"ocd_bench.{package}.{path.stem}": imported(path) for path in folder.glob("*.py") if path.stem != "__init__"}
    left = dict(imports)
    while left:
        ready = [name for name, others in left.items() if not others & set(left)]
        assert ready, f"a circle among {sorted(left)}"
        for name in ready:
            del left[name]


def imported(path: Path) -> set[str]:
    """Names of modules that a file imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_the_columns_of_the_csv_are_documented_in_their_order(tmp_path: Path):
    page = (Path(__file__).parents[1] / "docs" / "results-format.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.partition("## CSV\n")[2].partition("\n## ")[0], re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    header = render(build_table(read_run(make_run(tmp_path / "run", n=60))), "csv").splitlines()[0]
    assert documented == header.split(",")
