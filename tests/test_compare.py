"""``ocd-bench compare``: regressions, runs that cannot be compared, thresholds, formats, exit codes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ocd_bench.cli import main
from ocd_bench.comparison import Thresholds, compare_runs, read_thresholds
from ocd_bench.comparison.evidence import Evidence
from ocd_bench.comparison.machine import render_junit
from ocd_bench.comparison.output import p_text, render_text
from ocd_bench.comparison.page import render_markdown
from ocd_bench.comparison.spread import Spread, independent_directions, moderate
from ocd_bench.comparison.thresholds import Effect
from ocd_bench.errors import UsageError
from ocd_bench.results import read_run
from tests.runs import ENVIRONMENT, accuracy_scores, cell, edit_cell, make_run, write_run

METHODS = {"base": 0.0, "ocd": 0.4, "tent": 0.0}


def verdicts(comparison) -> dict[str, str]:
    return {row.name.method: row.verdict for row in comparison.rows}


def worse_run(folder: Path, share: float = 0.1, method: str = "ocd", **options) -> Path:
    """The run of ``make_run``, in which one method now fails on a ``share`` of the samples that it had right."""
    scores = accuracy_scores(METHODS, (0, 1, 2), stream=0)
    random = np.random.default_rng(1)
    for seed in (0, 1, 2):
        entry = scores[method, seed]
        entry["accuracy"] = np.where(random.random(len(entry["accuracy"])) < share, 0.0, entry["accuracy"])
    cells = [cell("images", "mnist", m, s, arrays, **options) for (m, s), arrays in scores.items()]
    return write_run(folder, cells, {("images", "mnist", m, s): arrays for (m, s), arrays in scores.items()})


def compared(one: Path, two: Path, **options):
    return compare_runs(read_run(one), read_run(two), **options)


# -- verdicts -----------------------------------------------------------------------------------------------------------


def test_a_run_compared_with_itself_has_no_change(tmp_path: Path):
    run = make_run(tmp_path / "run")
    comparison = compared(run, run)
    assert comparison.counts == {"no change": 3}
    assert comparison.exit_code() == 0
    for row in comparison.rows:
        assert (row.evidence.change, row.evidence.p, row.evidence.design) == (0.0, 1.0, "same seeds")


def test_a_loss_under_the_same_seeds_is_found_in_its_row_alone(tmp_path: Path):
    comparison = compared(make_run(tmp_path / "one"), worse_run(tmp_path / "two"))
    assert verdicts(comparison) == {"base": "no change", "ocd": "regression", "tent": "no change"}
    assert comparison.exit_code() == 1
    assert comparison.exit_code("never") == 0
    row = comparison.rows[1]
    assert row.evidence.design == "same seeds"
    assert row.evidence.low <= row.evidence.change <= row.evidence.high < 0
    assert row.minimal_effect == 0.002


def test_a_gain_is_an_improvement(tmp_path: Path):
    comparison = compared(worse_run(tmp_path / "one"), make_run(tmp_path / "two"))
    assert verdicts(comparison)["ocd"] == "improvement"
    assert comparison.exit_code() == 0


def test_lower_is_better_for_an_error(tmp_path: Path):
    def run(folder: Path, factor: float) -> Path:
        scores = accuracy_scores(METHODS, (0, 1, 2))
        arrays = {key: {"rmse": value["cross_entropy"] * (factor if key[0] == "ocd" else 1)} for key, value in scores.items()}
        cells = [cell("tabular", "housing", m, s, a) for (m, s), a in arrays.items()]
        return write_run(folder, cells, {("tabular", "housing", m, s): a for (m, s), a in arrays.items()})

    one, two = run(tmp_path / "one", 1.0), run(tmp_path / "two", 1.2)
    assert verdicts(compared(one, two))["ocd"] == "regression"
    assert verdicts(compared(two, one))["ocd"] == "improvement"
    assert compared(one, two).rows[1].minimal_effect == pytest.approx(0.01 * compared(one, two).rows[1].baseline.mean)


def test_a_significant_loss_that_is_too_small_to_matter_is_no_regression(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), worse_run(tmp_path / "two")
    rules = {"images": Effect(0.2)}
    assert verdicts(compared(one, two, thresholds=Thresholds(rules=rules)))["ocd"] == "no change"


def test_a_loss_in_one_seed_of_three_is_within_the_spread_over_seeds(tmp_path: Path):
    """Over samples it is highly significant, but a single bad fit under one seed is part of the variation over seeds."""
    one = make_run(tmp_path / "one")
    scores = accuracy_scores(METHODS, (0, 1, 2))
    scores["ocd", 1]["accuracy"] = scores["ocd", 1]["accuracy"] * 0.0
    cells = [cell("images", "mnist", m, s, a) for (m, s), a in scores.items()]
    two = write_run(tmp_path / "two", cells, {("images", "mnist", m, s): a for (m, s), a in scores.items()})
    row = compared(one, two).rows[1]
    assert row.p_holm < 0.001
    assert row.evidence.p_refit > 0.02
    assert row.verdict == "no change"


def test_bit_identical_rows_do_not_count_in_holms_adjustment(tmp_path: Path):
    """Their fits are unchanged: the refitting test is adjusted over the rows whose scores differ."""
    rows = compared(make_run(tmp_path / "one"), worse_run(tmp_path / "two")).rows
    assert [row.evidence.p_refit is None for row in rows] == [True, False, True]
    assert rows[1].evidence.p_refit < 0.02


def test_equal_changes_in_both_seeds_do_not_mean_zero_variance(tmp_path: Path):
    """Two refits lose equally many right answers, on different samples. The spread over seeds is zero by coincidence."""

    def run(folder: Path, stream: int, right: int) -> Path:
        entries, scores = [], {}
        for method in ("base", "ocd"):
            for seed in (0, 1):
                random = np.random.default_rng([stream if method == "ocd" else 0, seed])
                array = (random.permutation(400) < (right if method == "ocd" else 300)).astype(float)
                entries.append(cell("images", "mnist", method, seed, {"accuracy": array}))
                scores["images", "mnist", method, seed] = {"accuracy": array}
        return write_run(folder, entries, scores)

    row = compared(run(tmp_path / "one", 1, 330), run(tmp_path / "two", 2, 320)).rows[1]
    assert row.evidence.change == pytest.approx(-0.025)
    assert row.evidence.p_refit > 0.02


def test_one_seed_under_the_same_conditions_is_compared_by_its_samples(tmp_path: Path):
    one, two = make_run(tmp_path / "one", seeds=(0,)), tmp_path / "two"
    scores = accuracy_scores(METHODS, (0,))
    scores["ocd", 0]["accuracy"] = scores["ocd", 0]["accuracy"] * (np.arange(400) % 8 > 0)
    cells = [cell("images", "mnist", m, s, a) for (m, s), a in scores.items()]
    write_run(two, cells, {("images", "mnist", m, s): a for (m, s), a in scores.items()})
    assert verdicts(compared(one, two)) == {"base": "no change", "ocd": "regression", "tent": "no change"}


# -- other seeds --------------------------------------------------------------------------------------------------------


def test_other_seeds_are_not_paired_by_sample(tmp_path: Path):
    one = make_run(tmp_path / "one", seeds=(0, 1, 2), shared=0.1, own=0.05)
    two = make_run(tmp_path / "two", seeds=(3, 4, 5), shared=0.1, own=0.05)
    comparison = compared(one, two)
    assert {row.evidence.design for row in comparison.rows} == {"seeds and samples"}
    assert comparison.exit_code() == 0


def test_a_large_loss_is_found_under_other_seeds(tmp_path: Path):
    one = make_run(tmp_path / "one", seeds=(0, 1, 2, 3, 4), n=1000)
    two = make_run(tmp_path / "two", {**METHODS, "ocd": -0.8}, seeds=(5, 6, 7, 8, 9), n=1000)
    comparison = compared(one, two)
    assert verdicts(comparison) == {"base": "no change", "ocd": "regression", "tent": "no change"}


@pytest.mark.parametrize(
    "change",
    [{"device": "NVIDIA H100"}, {"cpu": "Another"}, {"torch": "3.0"}, {"threads": 8}],
    ids=lambda change: next(iter(change)),
)
def test_the_same_seeds_on_another_machine_are_other_seeds(tmp_path: Path, change: dict):
    one = make_run(tmp_path / "one")
    two = make_run(tmp_path / "two", info={"environment": {**ENVIRONMENT, **change}})
    assert {row.evidence.design for row in compared(one, two).rows} == {"seeds and samples"}


def test_the_same_seeds_with_another_base_model_are_other_seeds(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", cell_options={"base": "other"})
    assert {row.evidence.design for row in compared(one, two).rows} == {"seeds and samples"}


def test_the_change_of_the_base_is_subtracted(tmp_path: Path):
    """Both runs have the same distribution. The second run's seeds shift all methods together by coincidence."""
    options = {"seeds": (0, 1, 2), "n": 1000, "noise": 0.0, "own": 0.0}
    one = make_run(tmp_path / "one", **options, shared=0.3, stream=1)
    two = make_run(tmp_path / "two", **options, shared=0.3, stream=2, cell_options={"base": "other"})
    row = compared(one, two).rows[1]
    assert abs(row.evidence.adjusted) < abs(row.evidence.change)


def test_one_seed_each_of_different_seeds_cannot_be_tested(tmp_path: Path):
    one, two = make_run(tmp_path / "one", seeds=(0,)), make_run(tmp_path / "two", seeds=(1,))
    comparison = compared(one, two)
    assert comparison.counts == {"untested": 3}
    assert comparison.exit_code() == 4
    assert "one seed in each run" in comparison.rows[0].note


def test_a_reference_table_without_scores_is_compared_by_its_seeds(tmp_path: Path):
    one = make_run(tmp_path / "one", seeds=(0, 1, 2, 3), shared=0.05, with_scores=False)
    two = make_run(tmp_path / "two", {**METHODS, "ocd": -3.0}, seeds=(0, 1, 2, 3), shared=0.05)
    comparison = compared(one, two)
    assert {row.evidence.design for row in comparison.rows} == {"seeds"}
    assert verdicts(comparison)["ocd"] == "regression"


def test_without_scores_and_without_spread_there_is_no_test(tmp_path: Path):
    def run(folder: Path, right: int) -> Path:
        entries = [cell("images", "mnist", "base", s, {"accuracy": np.arange(50) < right}) for s in range(3)]
        return write_run(folder, entries, {})

    row = compared(run(tmp_path / "one", 40), run(tmp_path / "two", 39)).rows[0]
    assert row.verdict == "untested"
    assert "no spread over seeds" in row.note


# -- the error rates, in small; benchmarks/compare_error_rates.py has the table -----------------------------------------


def test_null_comparisons_raise_no_alarm_and_a_large_loss_is_found():
    import importlib.util

    path = Path(__file__).parent.parent / "benchmarks" / "compare_error_rates.py"
    spec = importlib.util.spec_from_file_location("compare_error_rates", path)
    rates = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = rates  # dataclasses look their module up
    spec.loader.exec_module(rates)
    random = np.random.default_rng(0)
    law = rates.Law("test", n=200, shared=0.05, own=0.02)
    alarms = sum(
        compare_runs(rates.make_run(law, (0, 1, 2), random), rates.make_run(law, (3, 4, 5), random)).exit_code() == 1
        for _ in range(25)
    )
    assert alarms == 0
    assert rates.found(law, 5, 0.3, 5, random, same_seeds=False) >= 0.8
    assert rates.found(law, 3, 0.1, 5, random, same_seeds=True) >= 0.8
    assert rates.redrawn(law, 3, 10, 0.1, random) == 0.0


def spreads(ratios, residuals) -> list[Spread]:
    return [
        Spread(("a", "b"), ratio, 4, {(i // 3, i % 3): value for i, value in enumerate(row)})
        for ratio, row in zip(ratios, residuals, strict=True)
    ]


def test_moderation_draws_ratios_together_and_adds_degrees_of_freedom():
    random = np.random.default_rng(0)
    rows = spreads(random.chisquare(4, 12) / 4, random.normal(size=(12, 6)))
    moderated = moderate(rows)
    before, after = np.array([row.ratio for row in rows]), np.array([ratio for ratio, _ in moderated])
    assert after.std() < 0.7 * before.std()
    assert all(4 < freedom <= 8 for _, freedom in moderated)
    assert (np.argsort(before) == np.argsort(after)).all()


def test_correlated_rows_add_no_weight_to_the_prior():
    one = np.random.default_rng(0).normal(size=6)
    rows = spreads(np.full(10, 0.3), np.tile(one, (10, 1)))
    assert independent_directions(rows) == pytest.approx(1.0)
    assert moderate(rows) == [(pytest.approx(0.3), pytest.approx(4.0))] * 10
    assert moderate(rows[:1]) == [(0.3, 4.0)]


def test_a_row_with_large_variance_keeps_half_of_its_own_variance():
    ratios = [0.2] * 11 + [40.0]
    moderated = moderate(spreads(ratios, np.random.default_rng(0).normal(size=(12, 6))))
    assert moderated[-1][0] >= 20.0


# -- what cannot be compared --------------------------------------------------------------------------------------------


def test_another_configuration_is_refused_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = make_run(tmp_path / "one")
    tasks = {"images": {"dataset": ["mnist"], "config": {"base": {"epochs": 30, "lr": 0.001}}}}
    two = make_run(tmp_path / "two", cell_options={"config": "other"}, info={"tasks": tasks})
    assert main(["compare", str(one), str(two)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "images mnist base: configuration differs (base.epochs 3 and 30)" in captured.err


def test_other_data_are_refused(tmp_path: Path):
    one = make_run(tmp_path / "one")
    with pytest.raises(UsageError, match="images mnist base: data differ"):
        compared(one, make_run(tmp_path / "two", cell_options={"data": "other"}))
    with pytest.raises(UsageError, match="images mnist base: data differ"):
        compared(one, make_run(tmp_path / "three", cell_options={"data": "other"}, seeds=(3, 4, 5)))


def test_another_schema_is_refused(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    edit_cell(two, "images-mnist-ocd-s0", schema=2)
    assert main(["compare", str(one), str(two)]) == 2


def test_a_metric_of_another_direction_is_refused(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    for path in (two / "cells").glob("*.json"):
        path.write_text(path.read_text().replace('"higher_is_better": true', '"higher_is_better": false'))
    with pytest.raises(UsageError, match="higher_is_better of accuracy differs"):
        compared(one, two)


# -- rows that come and go ----------------------------------------------------------------------------------------------


def test_a_vanished_row_is_an_error_unless_allowed(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", {"base": 0.0, "ocd": 0.4})
    comparison = compared(one, two)
    assert verdicts(comparison)["tent"] == "vanished"
    assert comparison.exit_code() == 2
    assert comparison.exit_code(allow_missing=True) == 0
    assert comparison.exit_code("never") == 0
    back = compared(two, one)
    assert verdicts(back)["tent"] == "new"
    assert back.exit_code() == 0


def test_a_row_that_fails_now_is_a_finding(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    for seed in range(3):
        edit_cell(two, f"images-mnist-ocd-s{seed}", status="failed", reason="RuntimeError: no", metrics={})
    comparison = compared(one, two)
    assert verdicts(comparison)["ocd"] == "broken"
    assert comparison.rows[1].note == "failed: RuntimeError: no"
    assert comparison.exit_code() == 1
    back = compared(two, one)
    assert verdicts(back)["ocd"] == "repaired"
    assert back.exit_code() == 0


def test_a_row_that_fails_in_one_seed_is_a_finding_too(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    edit_cell(two, "images-mnist-ocd-s1", status="failed", reason="why", metrics={})
    comparison = compared(one, two)
    assert verdicts(comparison)["ocd"] == "broken"
    assert "seed 1 failed: why" in comparison.rows[1].note
    assert comparison.exit_code() == 1


def test_a_row_without_a_number_in_either_run_is_left_alone(tmp_path: Path):
    entries = [cell("a", "b", "tent", 0, status="not-applicable", reason="no norm layer")]
    one, two = (write_run(tmp_path / name, entries, {}) for name in ("one", "two"))
    comparison = compared(one, two)
    assert comparison.counts == {"no number": 1}
    assert comparison.exit_code() == 4


# -- options ------------------------------------------------------------------------------------------------------------


def test_thresholds_from_a_file(tmp_path: Path):
    path = tmp_path / "thresholds.toml"
    path.write_text(
        'alpha = 0.05\n[minimal-effect]\n"*" = "3 %"\n"images/*/ocd" = 0.25\n"*/*/tent/accuracy" = "ignore"\n"nlp" = 1\n'
    )
    thresholds = read_thresholds(path)
    assert thresholds.alpha == 0.05
    assert thresholds.effect("images/mnist/ocd/accuracy", "fraction").of(0.9) == 0.25
    assert thresholds.effect("images/mnist/ocd-x5/accuracy", "fraction").of(0.9) == pytest.approx(0.027)
    assert thresholds.effect("images/mnist/tent/accuracy", "fraction").ignored
    comparison = compared(make_run(tmp_path / "one"), worse_run(tmp_path / "two"), thresholds=thresholds)
    assert comparison.counts == {"untested": 1, "no change": 2}
    assert comparison.notes == ("thresholds: 'nlp' matches no row",)
    assert Thresholds().effect("a/b/c/psnr", "dB").of(20.0) == 0.05


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("alpha = 2", "between 0 and 1"),
        ("beta = 2", "unknown key 'beta'"),
        ('[minimal-effect]\n"a" = "much"', "expected a number"),
        ('[minimal-effect]\n"a" = -1', "expected a number"),
        ("alpha", "not valid TOML"),
    ],
)
def test_invalid_thresholds_are_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / "t.toml").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_thresholds(tmp_path / "t.toml")


def test_all_metrics(tmp_path: Path):
    comparison = compared(make_run(tmp_path / "one"), make_run(tmp_path / "two"), metrics="all")
    assert [row.metric for row in comparison.rows] == ["accuracy", "cross_entropy"] * 3


def test_costs_are_advisory(tmp_path: Path):
    slow = {"fit_s": 30.0, "adapt_s": 0.5, "peak_memory_mb": 300.0}
    comparison = compared(make_run(tmp_path / "one"), make_run(tmp_path / "two", cell_options={"cost": slow}))
    assert comparison.exit_code() == 0
    assert "fit time × 20.00 (advisory)" in render_text(comparison, 120)


# -- output -------------------------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, two = str(make_run(tmp_path / "one")), str(worse_run(tmp_path / "two"))
    assert main(["compare", one, two]) == 1
    printed = capsys.readouterr().out
    assert "1 regression, 2 no change" in printed
    assert "\x1b" not in printed
    assert main(["compare", one, two, "--fail-on", "never", "--format", "markdown", "--out", str(tmp_path / "c.md")]) == 0
    assert capsys.readouterr().out == ""
    assert "**regression**" in (tmp_path / "c.md").read_text()
    assert main(["compare", one, two, "--out", str(tmp_path / "no" / "c.md")]) == 2
    assert main(["compare", one, str(tmp_path / "none")]) == 2
    assert main(["compare", one, two, "--thresholds", str(tmp_path / "none.toml")]) == 2


@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_table_keeps_to_the_terminal(tmp_path: Path, width: int):
    text = render_text(compared(make_run(tmp_path / "one"), worse_run(tmp_path / "two")), width)
    assert max(len(line) for line in text.splitlines()[1:]) <= width
    assert "regression" in text


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, two = str(make_run(tmp_path / "one")), str(worse_run(tmp_path / "two"))
    assert main(["compare", one, two, "--format", "json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == 1
    assert answer["exit_code"] == 1
    assert answer["counts"] == {"regression": 1, "no change": 2}
    row = answer["rows"][1]
    assert (row["task"], row["dataset"], row["method"], row["metric"]) == ("images", "mnist", "ocd", "accuracy")
    assert row["candidate"]["mean"] - row["baseline"]["mean"] == pytest.approx(row["change"])
    assert row["interval"][1] < 0
    assert row["p_holm"] >= row["p"]


def test_junit(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), worse_run(tmp_path / "two")
    (two / "cells" / "images-mnist-tent-s0.json").unlink()
    for seed in (1, 2):
        edit_cell(two, f"images-mnist-tent-s{seed}", status="failed", reason="bad \x07 <byte>", metrics={})
    text = render_junit(compared(one, two))
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    assert {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3", "failures": "2", "errors": "0", "skipped": "0"
    }  # fmt: skip
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert cases["ocd accuracy"].find("failure").get("type") == "regression"
    assert cases["tent"].find("failure").get("type") == "broken"
    assert cases["base accuracy"].find("failure") is None
    assert len(ElementTree.fromstring(render_junit(compared(one, one)).encode()).findall(".//failure")) == 0


def test_markdown_folds_what_did_not_change(tmp_path: Path):
    text = render_markdown(compared(make_run(tmp_path / "one"), worse_run(tmp_path / "two")))
    news, rest = text.split("<details>")
    assert "| images mnist ocd |" in news
    assert "| images mnist tent |" in rest
    assert text.startswith("### OCD-Bench: 1 regression, 2 no change")


def test_markdown_fits_into_a_comment(tmp_path: Path):
    groups = [(f"task{number}", "a-dataset-with-a-name+gaussian_noise-3") for number in range(200)]
    one, two = (make_run(tmp_path / name, seeds=(0,), groups=groups, n=20) for name in ("one", "two"))
    comparison = compared(one, two)
    text = render_markdown(comparison)
    assert len(text) < 31_000
    assert "600 rows without change are too many for a comment" in text
    slow = [replace(row, note="a remark " * 10) for row in comparison.rows]
    text = render_markdown(replace(comparison, rows=tuple(slow)))
    assert len(text) < 31_000
    assert re.search(r"- \d+ more remarks: see the job's log", text)
    assert "±: SD over seeds" in text


def test_p_values_as_text():
    assert [p_text(p) for p in (None, 0.0, 0.00099, 0.0321, 1.0)] == ["–", "<0.001", "<0.001", "0.032", "1.000"]
    assert Evidence(0.0, 0.0).p is None
