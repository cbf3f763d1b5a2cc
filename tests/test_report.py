"""The comparison table: the model built from a run, and its flat formats."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from rich.cells import cell_len

from ocd_bench.api import load
from ocd_bench.cli import main
from ocd_bench.errors import UsageError
from ocd_bench.merging import merge_runs
from ocd_bench.report import FORMATS, build_table, render
from ocd_bench.report.latex import escape as escape_latex
from ocd_bench.report.markdown import escape as escape_markdown
from ocd_bench.report.numbers import Style, quantity, seeds_text, style_for
from ocd_bench.report.text import render_text
from ocd_bench.results import read_run
from ocd_bench.stats import Estimate
from tests.runs import ENVIRONMENT, accuracy_scores, cell, edit_cell, make_run, write_run


def table_of(folder: Path, **options):
    return build_table(read_run(folder), **options)


def mixed_run(folder: Path) -> Path:
    """Rows of every kind, with names and reasons that contain markup."""
    scores = accuracy_scores({"base": 0.0, "ocd": 0.9, "tent": -0.9}, (0, 1, 2), n=120)
    cells = [cell("images", "mnist", m, s, arrays) for (m, s), arrays in scores.items()]
    for seed in (0, 1, 2):
        cells.append(cell("images", "mnist", "bn_adapt", seed, status="not-applicable", reason="no norm | layer <b>here</b>"))
        cells.append(cell("images", "mnist", "memo$", seed, status="failed", reason="RuntimeError: 50% & more_of_it"))
    arrays = {("images", "mnist", m, s): entry for (m, s), entry in scores.items()}
    return write_run(folder, cells, arrays, notes={"images-mnist": "2,000 of 60,000 training samples"})


# -- the model ----------------------------------------------------------------------------------------------------------


def test_against_another_row_every_difference_is_from_that_row(tmp_path: Path, capsys):
    folder = make_run(tmp_path / "run", n=600)
    usual, other = load(folder)._table().groups[0], load(folder, against="ocd")._table().groups[0]
    base, ocd, tent = other.rows
    assert ocd.delta is None
    assert base.delta.value == pytest.approx(-usual.rows[1].delta.value)
    assert (base.delta.low, base.delta.high) == (
        pytest.approx(-usual.rows[1].delta.high),
        pytest.approx(-usual.rows[1].delta.low),
    )
    assert tent.delta.value == pytest.approx(usual.rows[2].delta.value - usual.rows[1].delta.value)
    assert main(["report", str(folder), "--against", "ocd"]) == 0
    printed = capsys.readouterr().out
    assert "Δ ocd [points]" in printed
    assert "difference from ocd on the same test samples" in printed
    assert main(["report", str(folder), "--against", "odc"]) == 2
    assert "no row 'odc' to compare with; it has: base, ocd, tent" in capsys.readouterr().err


def test_against_another_row_the_mean_over_kinds_is_too(tmp_path: Path):
    scores = {kind: accuracy_scores({"base": 0.0, "ocd": 0.5}, (0,), n=200) for kind in ("fog-3", "snow-3")}
    cells = [cell("images", f"mnist+{kind}", m, s, a) for kind, found in scores.items() for (m, s), a in found.items()]
    arrays = {("images", f"mnist+{kind}", m, s): a for kind, found in scores.items() for (m, s), a in found.items()}
    folder = write_run(tmp_path / "run", cells, arrays)
    mean = load(folder, against="ocd")._table().groups[-1]
    assert mean.mean
    assert mean.rows[0].delta.value == pytest.approx(-load(folder)._table().groups[-1].rows[1].delta.value)


def test_a_gain_of_zero_is_no_word_about_another_reference(tmp_path: Path):
    """It equals the base, and so differs from the other row as the base does."""
    folder = make_run(tmp_path / "run", n=600)
    for seed in (0, 1, 2):
        edit_cell(folder, f"images-mnist-tent-s{seed}", detail={"gain": 0.0})
    assert "gain 0: equal to base" in load(folder).table()
    assert "gain 0: equal to base" not in load(folder, against="ocd").table()


def test_rows_means_and_differences(tmp_path: Path):
    run = read_run(make_run(tmp_path / "run", n=600))
    table = build_table(run)
    (group,) = table.groups
    assert [row.method for row in group.rows] == ["base", "ocd", "tent"]
    assert [metric.name for metric in group.metrics] == ["accuracy", "cross_entropy"]
    values = {
        name: [run.cells[key]["metrics"]["accuracy"]["value"] for key in run.cells if key.method == name]
        for name in ("base", "ocd")
    }
    base, ocd, tent = group.rows
    assert ocd.metrics["accuracy"] == (pytest.approx(np.mean(values["ocd"])), pytest.approx(np.std(values["ocd"], ddof=1)))
    assert base.delta is None
    assert ocd.delta.value == pytest.approx(np.mean(np.subtract(values["ocd"], values["base"])))
    assert ocd.delta.low < ocd.delta.value < ocd.delta.high
    assert (ocd.verdict, base.verdict) == ("better", "")
    assert tent.verdict == ("" if tent.delta.low <= 0 <= tent.delta.high else "worse")
    assert ocd.cost["fit_s"] == 1.5
    assert group.n_test == 600


def test_a_lower_error_is_better(tmp_path: Path):
    drawn = accuracy_scores({"base": 0.0, "ocd": 1.0}, (0, 1, 2))
    scores = {key: {"rmse": value["cross_entropy"]} for key, value in drawn.items()}
    cells = [cell("t", "d", m, s, a) for (m, s), a in scores.items()]
    folder = write_run(tmp_path / "run", cells, {("t", "d", m, s): a for (m, s), a in scores.items()})
    row = table_of(folder).groups[0].rows[1]
    assert row.delta.high < 0
    assert row.verdict == "better"
    assert row.delta.wide[1] < 0


def test_with_one_or_two_seeds_there_is_no_interval_over_seeds_and_nothing_is_bold(tmp_path: Path):
    """However clear the difference is over test samples."""
    for number, seeds in enumerate([(0,), (0, 1)]):
        folder = make_run(tmp_path / str(number), {"base": 0.0, "ocd": 2.0}, seeds)
        (group,) = table_of(folder).groups
        row = group.rows[1]
        assert row.delta.low > 0.05
        assert (row.delta.wide, row.verdict) == (None, "")
        assert "fewer than 3 seeds: the interval covers new test samples only, and nothing is bold" in group.notes
        assert "**" not in render(table_of(folder), "markdown")
        assert ("±" in render_text(table_of(folder), 100)) == (len(seeds) > 1)


def test_three_seeds_have_both_intervals_and_bold_needs_the_wider(tmp_path: Path):
    clear = make_run(tmp_path / "clear", {"base": 0.0, "ocd": 1.0})
    (group,) = table_of(clear).groups
    row = group.rows[1]
    assert row.delta.wide[0] <= row.delta.low
    assert row.delta.wide[1] >= row.delta.high
    assert [column.heading for column in group.shown()][2:4] == ["Δ base [points]", "seeds and samples"]
    style = group.primary.style
    assert f"**{style.interval(row.delta.wide)}**".replace("[", r"\[").replace("]", r"\]") in render(
        table_of(clear), "markdown"
    )
    luck = make_run(tmp_path / "luck", {"base": 0.0, "ocd": 0.4}, own=0.4)
    row = table_of(luck).groups[0].rows[1]
    assert row.delta.low > 0 > row.delta.wide[0]
    assert row.verdict == ""


def test_notes_name_what_the_intervals_do_not_cover(tmp_path: Path):
    few = table_of(make_run(tmp_path / "few", {"base": 0.0, "ocd": 3.0, "same": 0.0}, n=40)).groups[0]
    assert few.rows[1].delta.wide[0] > 0
    assert few.rows[1].verdict == ""
    assert "fewer than 100 test samples: the interval may cover less than 95 %, so nothing is bold" in few.notes
    folder = make_run(tmp_path / "silent")
    for path in (folder / "cells").glob("*.json"):
        edit_cell(folder, path.stem, groups=None)
    notes = table_of(folder).groups[0].notes
    assert "no groups of test samples are stated: intervals take the samples for independent" in notes
    seen = make_run(tmp_path / "seen")
    path = seen / "run.json"
    info = json.loads(path.read_text())
    info["tasks"]["images"]["seen_in_tuning"] = ["mnist"]
    path.write_text(json.dumps(info))
    assert any(note.startswith("test set seen in tuning") for note in table_of(seen).groups[0].notes)
    assert not any("seen in tuning" in note for note in table_of(folder).groups[0].notes)


def test_groups_of_test_samples_widen_the_interval(tmp_path: Path):
    """Forty speakers with ten mixtures each; for each speaker the method helps or does not."""
    speaker = np.repeat(np.arange(40), 10)
    helped = np.random.default_rng(0).random(40)[speaker] < 0.6
    scores = {}
    for seed in (0, 1, 2):
        scores["base", seed] = {"psnr": np.random.default_rng([1, seed]).normal(size=400)}
        scores["ocd", seed] = {"psnr": scores["base", seed]["psnr"] + helped}
    intervals = []
    for name, ids in (("alone", None), ("grouped", speaker)):
        cells = [cell("t", "d", m, s, a) | ({"groups": 40} if ids is not None else {}) for (m, s), a in scores.items()]
        arrays = {("t", "d", m, s): a | ({"groups": ids} if ids is not None else {}) for (m, s), a in scores.items()}
        (group,) = table_of(write_run(tmp_path / name, cells, arrays)).groups
        intervals.append(group.rows[1].delta.high - group.rows[1].delta.low)
    assert group.notes[0].startswith("seeds 0, 1, 2; 400 test samples of 40 groups")
    assert intervals[1] == pytest.approx(intervals[0] * np.sqrt(10), rel=0.1)


def test_problem_rows_and_notes(tmp_path: Path):
    (group,) = table_of(mixed_run(tmp_path / "run")).groups
    problems = {row.method: row.problem for row in group.rows if row.problem}
    assert problems == {"bn_adapt": "n/a: no norm | layer <b>here</b>", "memo$": "failed: RuntimeError: 50% & more_of_it"}
    assert group.notes == ("seeds 0, 1, 2; 120 test samples; layer fc1", "2,000 of 60,000 training samples")


def test_a_failed_seed_is_reported(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    edit_cell(folder, "images-mnist-ocd-s1", status="failed", reason="out of memory", metrics={})
    (group,) = table_of(folder).groups
    assert group.rows[1].seeds == (0, 2)
    assert "ocd: seed 1 failed: out of memory; numbers over the other seeds" in group.notes


def test_a_run_without_scores_or_base_has_no_intervals(tmp_path: Path):
    (group,) = table_of(make_run(tmp_path / "one", with_scores=False)).groups
    assert group.rows[1].delta.low is None
    assert group.rows[1].verdict == ""
    assert "rows without per-sample scores have no interval" in group.notes
    (group,) = table_of(make_run(tmp_path / "two", {"ocd": 0.0, "tent": 0.0})).groups
    assert not group.has_delta
    assert "no base row: no differences" in group.notes


def test_few_test_samples_are_reported(tmp_path: Path):
    (group,) = table_of(make_run(tmp_path / "run", n=5)).groups
    assert "fewer than 8 test samples: no intervals" in group.notes


def test_layers_that_differ_between_seeds_are_reported(tmp_path: Path):
    folder = make_run(tmp_path / "run", {"base": 0.0})
    edit_cell(folder, "images-mnist-base-s2", layer="fc2")
    assert "layer fc1 (seeds 0, 1), fc2 (seed 2)" in table_of(folder).groups[0].notes[0]


@pytest.mark.parametrize(
    ("layers", "said"), [(["fc1", "fc2"], "layer fc1; layers fc1, fc2 (ocd)"), (2, "layer fc1; 2 batch norm layers (ocd)")]
)
def test_a_method_that_changes_several_layers_is_named(tmp_path: Path, layers: object, said: str):
    folder = make_run(tmp_path / "run", {"base": 0.0, "ocd": 0.1})
    for seed in (0, 1, 2):
        edit_cell(folder, f"images-mnist-ocd-s{seed}", detail={"layers": layers})
    assert said in table_of(folder).groups[0].notes[0]


def test_a_method_that_changes_another_layer_is_named(tmp_path: Path):
    folder = make_run(tmp_path / "run", {"base": 0.0, "ocd": 0.1, "ocd-layer2": 0.1})
    for seed in (0, 1, 2):
        edit_cell(folder, f"images-mnist-ocd-s{seed}", detail={"layer": "fc1"})
        edit_cell(folder, f"images-mnist-ocd-layer2-s{seed}", detail={"layer": "fc2"})
    assert "layer fc1; layer fc2 (ocd-layer2)" in table_of(folder).groups[0].notes[0]


def test_the_note_of_a_dataset_holds_for_its_corrupted_variants(tmp_path: Path):
    folder = make_run(tmp_path / "run", groups=[("images", "mnist+blur-3")], info={"notes": {"images-mnist": "a subset"}})
    assert "a subset" in table_of(folder).groups[0].notes


def test_plugin_columns(tmp_path: Path):
    seen = []

    def columns(cells):
        seen.append([entry["seed"] for entry in cells])
        return [None, {"energy": f"{len(cells)} J"}] if cells[0]["method"] == "ocd" else []

    table = table_of(make_run(tmp_path / "run"), columns=columns)
    assert table.fields[-1] == "energy"
    assert table.groups[0].rows[1].extra == {"energy": "3 J"}
    assert seen == [[0, 1, 2]] * 3
    assert "| energy |" in render(table, "markdown")
    assert "3 J" in render_text(table, 120)

    def broken(cells):
        raise RuntimeError("no")

    table = table_of(tmp_path / "run", columns=broken)
    assert "a plugin's columns are left out: RuntimeError: no" in table.notes


def test_caption(tmp_path: Path):
    assert table_of(make_run(tmp_path / "run")).caption == "OCD-Bench 0.1.0, preset quick, seeds 0, 1, 2, cpu (Test CPU)"


def test_oracles_are_marked_as_upper_bounds(tmp_path: Path):
    table = table_of(make_run(tmp_path / "run", {"base": 0.0, "oracle": 3.0}))
    assert any("fitted to the test labels" in note for note in table.notes)


# -- numbers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "values", "number", "text"),
    [
        ("fraction", [0.98], 0.98754, "98.75"),
        ("dB", [12.0], 12.345, "12.35"),
        ("nats", [0.04, 0.03, 12.0], 0.0401, "0.04010"),
        ("", [0.5], 0.51234, "0.5123"),
        ("", [1234.0], 1234.5, "1234"),
        ("", [1e-6], 1.234e-6, "1.234e-06"),
        ("", [0.0], 0.0, "0.000"),
    ],
)
def test_digits(unit: str, values: list[float], number: float, text: str):
    assert style_for(unit, values).value(number) == text


def test_signs():
    style = style_for("fraction", [])
    assert [style.signed(x) for x in (0.0042, -0.001, 0.0, -1e-9)] == ["+0.42", "-0.10", "0.00", "0.00"]
    assert style.difference(Estimate(0.01, 0.001, 0.02)) == "+1.00 [+0.10, +2.00]"
    assert style.difference(Estimate(0.01)) == "+1.00"
    assert (style.unit, style.difference_unit) == ("%", "points")
    assert Style(decimals=2).spread(1.0, None) == "1.00"


def test_quantities_and_seeds():
    assert [quantity(x) for x in (None, 0, 0.0002, 0.1234, 4.567, 78.91, 1234.4)] == [
        "–",
        "0",
        "0.0002",
        "0.123",
        "4.57",
        "78.9",
        "1,234",
    ]
    assert [seeds_text(x) for x in ([0], [1, 0, 7], range(10))] == ["seed 0", "seeds 0, 1, 7", "seeds 0 to 9"]


# -- formats ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 140, 200])
def test_the_terminal_table_keeps_to_its_width(tmp_path: Path, width: int):
    text = render_text(table_of(mixed_run(tmp_path / "run")), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for word in ("images, mnist", "n/a: bn_adapt: no norm | layer", "failed: RuntimeError", "2,000 of 60,000"):
        assert word in text
    assert "\x1b" not in text
    assert ("columns left out" in text) == (width <= 100)


def test_colour_only_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = table_of(make_run(tmp_path / "run"))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in render_text(table, 120)


def test_ascii_is_used_if_stdout_cannot_encode_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = table_of(make_run(tmp_path / "run"))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    text = render_text(table, 120)
    assert text.isascii()
    assert "+/-" in text


def test_a_reason_cannot_send_commands_to_the_terminal(tmp_path: Path):
    folder = make_run(tmp_path / "run", {"base": 0.0})
    for seed in range(3):
        edit_cell(folder, f"images-mnist-base-s{seed}", status="failed", reason="a\x1b[2Jb\nc [bold]x[/bold]", metrics={})
    text = render_text(table_of(folder), 100)
    assert "\x1b" not in text
    assert "[bold]x[/bold]" in text


def test_markdown_cells_cannot_break_out(tmp_path: Path):
    text = render(table_of(mixed_run(tmp_path / "run")), "markdown")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    borders = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert len(borders) == 1
    assert r"- n/a: bn\_adapt: no norm \| layer &lt;b&gt;here&lt;/b&gt;" in text
    assert "**ocd**" in text
    assert "**tent**" not in text
    assert escape_markdown("@you <!-- x -->\n[a](b)") == r"&#64;you &lt;!-- x --&gt; \[a\](b)"
    assert len(text) < 65_536


def oracle_run(
    folder: Path, seeds: tuple[int, ...] = (0, 1, 2), detail: Mapping[str, object] = MappingProxyType({}), **info: object
) -> Path:
    """A method that chose gain 0, one that is better, two that do not apply, and an oracle that is far better.

    Args:
        detail: more that the first one says of itself.
    """
    scores = accuracy_scores({"base": 0.0, "oracle": 3.0, "ocd": 0.0, "good": 1.5}, seeds, n=200)
    for seed in seeds:
        scores["ocd", seed] = scores["base", seed]
    cells = [cell("images", "mnist", m, s, arrays) for (m, s), arrays in scores.items()]
    for found in cells:
        if found["method"] == "ocd":
            found["detail"] = {"gain": 0.0, "gain_candidates": [0.0, 1.0], "gain_losses": [1.5, 1.4], **detail}
    for name in ("tent", "memo"):
        cells += [cell("images", "mnist", name, s, status="not-applicable", reason="no norm layer") for s in seeds]
    return write_run(folder, cells, {("images", "mnist", m, s): a for (m, s), a in scores.items()}, **info)


def test_an_oracle_stands_apart_and_is_never_bold(tmp_path: Path):
    folder = oracle_run(tmp_path / "run")
    (group,) = table_of(folder).groups
    assert group.blocks == [[0, 2, 3], [1]]
    rows = {row.method: row for row in group.rows}
    assert rows["oracle"].delta.wide[0] > 0
    assert (rows["good"].verdict, rows["oracle"].verdict) == ("better", "")
    lines = render_text(table_of(folder), 140).splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("oracle"))
    assert set(lines[place - 1]) == {"─"}
    row = render(table_of(folder), "markdown").split("| *oracle* |")[1].splitlines()[0]
    assert "**" not in row
    assert row.startswith(" *")
    latex = render(table_of(folder), "latex")
    assert latex.index(r"\midrule" + "\noracle") > latex.index(r"\textbf{good}")


def test_which_method_is_an_oracle_is_what_the_run_says(tmp_path: Path):
    (group,) = table_of(oracle_run(tmp_path / "run", oracles=["good"])).groups
    assert {row.method for row in group.rows if row.oracle} == {"good"}


def test_a_gain_of_zero_is_said_in_the_row(tmp_path: Path):
    table = table_of(oracle_run(tmp_path / "run"))
    row = next(line for line in render_text(table, 140).splitlines() if line.startswith("ocd"))
    assert "gain 0: equal to base" in row
    assert "gain 0, equal to base: no other gain was clearly better on validation samples (ocd)" in table.groups[0].notes
    line = next(x for x in csv.DictReader(io.StringIO(render(table, "csv"))) if x["method"] == "ocd" and x["delta"])
    assert float(line["delta"]) == 0


@pytest.mark.parametrize(("gains", "same"), [([0.0, 0.0], True), ([1.5, 0.0], False), ("strange", True)])
def test_a_method_of_several_layers_equals_base_if_every_gain_is_zero(tmp_path: Path, gains: object, same: bool):
    folder = oracle_run(tmp_path / "run", detail={"gains": gains})
    (group,) = table_of(folder).groups
    assert next(row for row in group.rows if row.method == "ocd").equals_base == same
    assert any("gain 0" in note for note in group.notes) == same


def test_rows_that_do_not_apply_are_one_line_per_reason(tmp_path: Path):
    table = table_of(oracle_run(tmp_path / "run"))
    for format in ("table", "markdown", "latex", "html"):
        assert render(table, format).count("no norm layer") == 1, format
    assert "n/a: tent, memo: no norm layer" in render_text(table, 140)
    assert render(table, "csv").count("no norm layer") == 2


def test_settings_that_differ_from_the_preset_are_in_the_head(tmp_path: Path):
    request = {"overrides": {"ocd.steps": 50, "ocd.conditions": ["x", "y"], "base.augment": True}}
    table = table_of(oracle_run(tmp_path / "run", request=request))
    changed = "preset quick, ocd.steps=50, ocd.conditions=x,y, base.augment=true, seeds 0, 1, 2"
    assert changed in render_text(table, 200)
    for format in ("markdown", "html"):
        assert "ocd.steps=50" in render(table, format)


def test_settings_of_some_tasks_only_are_said_with_their_names(tmp_path: Path):
    table = table_of(oracle_run(tmp_path / "run"))

    def found(**changed: dict[str, object]) -> list[str]:
        tasks = {name: {"config": {"base": {}, "ocd": {}}, "changed": values} for name, values in changed.items()}
        del tasks["speech"]["config"]["ocd"]
        return replace(table, info={**table.info, "tasks": tasks}).changed_settings

    same = {"base.lr": 0.1}
    assert found(images={"ocd.steps": 50, **same}, speech=same) == ["ocd.steps=50", "base.lr=0.1"]
    assert found(images=same, speech={"base.lr": 0.2}) == ["base.lr=0.1 (images)", "base.lr=0.2 (speech)"]
    assert found(images={}, nlp={"ocd.steps": 50}, speech={}) == ["ocd.steps=50 (nlp)"]


def test_csv_has_raw_numbers(tmp_path: Path):
    folder = mixed_run(tmp_path / "run")
    lines = list(csv.DictReader(io.StringIO(render(table_of(folder), "csv"))))
    assert len(lines) == 3 * 2 + 2
    ocd = next(line for line in lines if line["method"] == "ocd" and line["primary"] == "true")
    run = read_run(folder)
    values = [c["metrics"]["accuracy"]["value"] for k, c in run.cells.items() if k.method == "ocd"]
    assert float(ocd["mean"]) == np.mean(values)
    assert float(ocd["delta_low"]) > 0
    assert (ocd["verdict"], ocd["seeds"], ocd["n_test"]) == ("better", "0 1 2", "120")
    memo = next(line for line in lines if line["method"] == "memo$")
    assert (memo["status"], memo["mean"]) == ("failed", "")


def test_csv_holds_no_formulas(tmp_path: Path):
    folder = make_run(tmp_path / "run", {"base": 0.0}, seeds=(0,))
    edit_cell(folder, "images-mnist-base-s0", status="failed", reason="=cmd|' /C calc'!A0", metrics={})
    assert "'=cmd" in render(table_of(folder), "csv")


def test_latex_is_balanced_and_escaped(tmp_path: Path):
    text = render(table_of(mixed_run(tmp_path / "run")), "latex")
    assert re.sub(r"\\[{}]", "", text).count("{") == re.sub(r"\\[{}]", "", text).count("}")
    assert r"n/a: bn\_adapt: no norm | layer \textless{}b\textgreater{}here" in text
    assert r"memo\$" in text
    assert r"50\% \& more\_of\_it" in text
    assert r"\toprule" in text
    assert not re.search(r"[±Δ↑↓–]", text)
    width = text.split(r"\begin{tabular}{")[1].split("}")[0]
    lines = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(width) - 1}
    assert escape_latex("--a – ---") == "-{}-a -- -{}-{}-"
    assert escape_latex("a\\b~^") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}"


def test_an_unknown_format_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="unknown format 'pdf'"):
        render(table_of(make_run(tmp_path / "run")), "pdf")


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_run_and_one_of_failures_render_in_every_format(tmp_path: Path, format: str):
    empty = write_run(tmp_path / "empty", [], {})
    assert render(table_of(empty), format).strip()
    failed = write_run(tmp_path / "failed", [cell("a", "b", "ocd", 0, status="failed", reason="why")], {})
    assert "why" in render(table_of(failed), format)


# -- the command --------------------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "120")
    one = str(make_run(tmp_path / "one", seeds=(0,), n=60))
    two = str(make_run(tmp_path / "two", seeds=(1,), n=60))
    assert main(["report", one, two]) == 0
    assert "seeds 0, 1; 60 test samples" in capsys.readouterr().out
    for format in FORMATS:
        out = tmp_path / f"out.{format}"
        assert main(["report", one, "--format", format, "--out", str(out)]) == 0
        assert "images" in out.read_text(encoding="utf-8")
    assert capsys.readouterr().out == ""


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", str(tmp_path / "none")]) == 2
    failed = write_run(tmp_path / "failed", [cell("a", "b", "ocd", 0, status="failed", reason="why")], {})
    assert main(["report", str(failed)]) == 4
    one = make_run(tmp_path / "one", seeds=(0,), n=60)
    two = make_run(tmp_path / "two", seeds=(0,), n=60, stream=3)
    assert main(["report", str(one), str(two)]) == 2
    assert "differs in" in capsys.readouterr().err
    assert main(["report", str(one), "--out", str(tmp_path / "no" / "x")]) == 2


def test_several_runs_are_shown_as_one(tmp_path: Path):
    one = read_run(make_run(tmp_path / "one", n=60))
    two = read_run(make_run(tmp_path / "two", n=60, groups=[("nlp", "news")]))
    table = build_table(merge_runs([one, two]))
    assert [(group.task, group.dataset) for group in table.groups] == [("images", "mnist"), ("nlp", "news")]
    assert json.dumps(dict(table.info))


def test_runs_of_one_machine_stay_on_one_machine(tmp_path: Path):
    one = read_run(make_run(tmp_path / "one", seeds=(0,), n=60))
    for change, caption in (({"git": "def"}, "cpu (Test CPU)"), ({"cpu": "Another"}, "several machines")):
        folder = make_run(tmp_path / caption, seeds=(1,), n=60, info={"environment": {**ENVIRONMENT, **change}})
        merged = merge_runs([one, read_run(folder)])
        assert build_table(merged).caption.endswith(caption)
        assert (change.get("cpu", "def")) in render(build_table(merged), "html")
