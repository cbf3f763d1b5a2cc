"""``ocd-bench compare``: regressions, runs that cannot be compared, thresholds, formats, exit codes."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ocd_bench.cli import main
from ocd_bench.comparison import Thresholds, compare_runs, read_thresholds
from ocd_bench.comparison.evidence import Evidence
from ocd_bench.comparison.lean import Lean, lean_of, leaning
from ocd_bench.comparison.machine import render_junit
from ocd_bench.comparison.output import p_text, render_text
from ocd_bench.comparison.page import render_markdown
from ocd_bench.comparison.spread import Spread, independent_directions, moderate
from ocd_bench.comparison.thresholds import Effect
from ocd_bench.errors import UsageError
from ocd_bench.results import read_run
from tests.runs import ENVIRONMENT, accuracy_scores, cell, edit_cell, make_run, sha, write_run

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


def edit_value(folder: Path, stem: str, value: float) -> None:
    """Change the number of a stored cell."""
    path = folder / "cells" / f"{stem}.json"
    entry = json.loads(path.read_text())
    entry["metrics"]["accuracy"]["value"] = value
    path.write_text(json.dumps(entry))


def compared(one: Path, two: Path, **options):
    return compare_runs(read_run(one), read_run(two), **options)


# -- verdicts -----------------------------------------------------------------------------------------------------------


def test_a_run_compared_with_itself_has_no_change(tmp_path: Path):
    run = make_run(tmp_path / "run")
    comparison = compared(run, run)
    assert comparison.counts == {"identical": 3}
    assert comparison.exit_code("cannot-tell") == 0
    for row in comparison.rows:
        assert (row.evidence.change, row.evidence.p, row.evidence.design) == (0.0, 1.0, "same base")


def test_a_loss_under_the_same_seeds_is_found_in_its_row_alone(tmp_path: Path):
    comparison = compared(make_run(tmp_path / "one"), worse_run(tmp_path / "two"))
    assert verdicts(comparison) == {"base": "identical", "ocd": "regression", "tent": "identical"}
    assert comparison.exit_code() == 1
    assert comparison.exit_code("never") == 0
    row = comparison.rows[1]
    assert row.evidence.design == "same base"
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
    """Over samples it is significant, but a single bad fit under one seed is part of the variation over seeds."""
    one = make_run(tmp_path / "one")
    scores = accuracy_scores(METHODS, (0, 1, 2))
    scores["ocd", 1]["accuracy"] = scores["ocd", 1]["accuracy"] * (np.arange(400) % 10 > 0)
    cells = [cell("images", "mnist", m, s, a) for (m, s), a in scores.items()]
    two = write_run(tmp_path / "two", cells, {("images", "mnist", m, s): a for (m, s), a in scores.items()})
    row = compared(one, two).rows[1]
    assert row.p_holm < 0.001
    assert row.evidence.p_refit > 0.02
    assert row.verdict == "no change"
    assert row.seen_from > -row.evidence.change


def test_bit_identical_rows_do_not_count_in_holms_adjustment(tmp_path: Path):
    """Their fits are unchanged: the refitting test is adjusted over the rows whose scores differ."""
    rows = compared(make_run(tmp_path / "one"), worse_run(tmp_path / "two")).rows
    assert [row.evidence.p_refit is None for row in rows] == [True, False, True]
    assert rows[1].evidence.p_refit < 0.02


def test_one_seed_under_the_same_conditions_is_compared_by_its_samples(tmp_path: Path):
    one, two = make_run(tmp_path / "one", seeds=(0,)), tmp_path / "two"
    scores = accuracy_scores(METHODS, (0,))
    scores["ocd", 0]["accuracy"] = scores["ocd", 0]["accuracy"] * (np.arange(400) % 8 > 0)
    cells = [cell("images", "mnist", m, s, a) for (m, s), a in scores.items()]
    write_run(two, cells, {("images", "mnist", m, s): a for (m, s), a in scores.items()})
    assert verdicts(compared(one, two)) == {"base": "identical", "ocd": "regression", "tent": "identical"}


@pytest.mark.parametrize("change", [{"cpu": "Another"}, {"torch": "3.0"}, {"threads": 8}, {"device": "NVIDIA H100"}])
def test_on_the_same_base_the_machine_does_not_matter(tmp_path: Path, change: dict):
    one, two = make_run(tmp_path / "one"), worse_run(tmp_path / "two")
    info = json.loads((two / "run.json").read_text())
    (two / "run.json").write_text(json.dumps({**info, "environment": {**ENVIRONMENT, **change}}))
    comparison = compared(one, two)
    assert verdicts(comparison) == {"base": "identical", "ocd": "regression", "tent": "identical"}
    assert comparison.notes == ()


def test_rows_with_few_changed_answers_cost_the_others_nothing(tmp_path: Path):
    """Three changed answers are never significant, so the row is not counted in Holm's adjustment."""
    one, two = make_run(tmp_path / "one"), worse_run(tmp_path / "two", 0.05)
    alone = compared(one, two).rows[1].p_holm
    scores = np.load(two / "scores" / "images-mnist-tent-s0.npz")["accuracy"]
    scores[:3] = 1 - scores[:3]
    np.savez_compressed(two / "scores" / "images-mnist-tent-s0.npz", accuracy=scores)
    edit_value(two, "images-mnist-tent-s0", float(scores.mean()))
    rows = compared(one, two).rows
    assert rows[2].verdict == "no change"
    assert rows[2].evidence.least == 1 / 8
    assert rows[1].p_holm == alone


# -- another base -------------------------------------------------------------------------------------------------------


def other_base(folder: Path, loss: float = 0.0, **law) -> Path:
    """The run of ``make_run`` with other base models, worse by ``loss`` on the latent scale."""
    methods = {name: advantage - loss for name, advantage in METHODS.items()}
    return make_run(folder, methods, cell_options={"base": "other"}, stream=5, **law)


def test_where_the_base_changed_seeds_and_samples_are_paired(tmp_path: Path):
    comparison = compared(make_run(tmp_path / "one"), other_base(tmp_path / "two"))
    assert {row.evidence.design for row in comparison.rows} == {"same seeds"}
    (note,) = comparison.notes
    assert note.startswith("images mnist: base models differ")
    assert comparison.exit_code() == 0


def test_seeds_are_paired_where_each_has_data_of_its_own(tmp_path: Path):
    """Test sets of unequal difficulty: the values vary by seed, their changes do not."""

    def run(folder: Path, loss: float, base: str) -> Path:
        scores, entries = {}, []
        for seed, level in enumerate((-2.0, 0.0, 2.0)):
            values = np.random.default_rng(seed).normal(level, 1.0, 200)
            noise = np.random.default_rng([seed, len(base)]).normal(0, 0.1, 200)
            scores["t", "d", "base", seed] = arrays = {"psnr": 20 + values + noise - loss}
            entries.append(cell("t", "d", "base", seed, arrays, data=f"data {seed}", base=base))
        return write_run(folder, entries, scores)

    row = compared(run(tmp_path / "one", 0.0, "one"), run(tmp_path / "two", 1.0, "other")).rows[0]
    assert row.evidence.design == "same seeds"
    assert row.verdict == "regression"
    assert row.evidence.high - row.evidence.low < 0.2


def test_a_loss_in_every_seed_is_found_although_the_base_changed(tmp_path: Path):
    comparison = compared(make_run(tmp_path / "one", n=1000), other_base(tmp_path / "two", 2.0, n=1000))
    assert set(verdicts(comparison).values()) == {"regression"}
    for row in comparison.rows:
        assert row.evidence.low < row.evidence.change < row.evidence.high < 0


def test_the_printed_change_lies_in_the_middle_of_its_interval(tmp_path: Path):
    """Both are of one quantity, in every design."""
    pairs = [
        (make_run(tmp_path / "a"), other_base(tmp_path / "b", 0.4)),
        (tmp_path / "a", make_run(tmp_path / "c", seeds=(3, 4, 5), shared=0.2)),
        (tmp_path / "a", worse_run(tmp_path / "d")),
    ]
    for one, two in pairs:
        for row in compared(one, two).rows:
            assert row.candidate.mean - row.baseline.mean == pytest.approx(row.evidence.change)
            assert (row.evidence.low + row.evidence.high) / 2 == pytest.approx(row.evidence.change)


def test_a_large_loss_that_cannot_be_judged_fails_and_says_what_would_have_been_seen(tmp_path: Path, capsys):
    """The seeds' losses vary too much for three of them: nothing, 5 % and 30 % of the right answers."""
    one = make_run(tmp_path / "one", n=150)
    scores = accuracy_scores(METHODS, (0, 1, 2), n=150)
    for (_, seed), arrays in scores.items():
        arrays["accuracy"] = arrays["accuracy"] * (np.arange(150) % 20 >= (0, 1, 6)[seed])
    cells = [cell("images", "mnist", m, s, a, base="other") for (m, s), a in scores.items()]
    two = write_run(tmp_path / "two", cells, {("images", "mnist", m, s): a for (m, s), a in scores.items()})
    comparison = compared(one, two)
    row = comparison.rows[0]
    assert row.verdict == "cannot tell"
    assert -row.evidence.change >= 0.05
    assert row.seen_from > -row.evidence.change
    assert comparison.exit_code() == 1
    assert comparison.exit_code("never") == 4
    assert main(["compare", str(one), str(two)]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert f"only a loss of {100 * row.seen_from:.2f} points or more would have been seen; so large a loss fails" in printed
    assert "base models differ" in printed


def test_a_row_that_cannot_be_judged_and_lost_little_fails_only_if_asked_to(tmp_path: Path):
    one = make_run(tmp_path / "one", {"base": 0.0, "ocd": 0.0}, shared=1.0, n=150)
    scores = accuracy_scores({"base": 0.0, "ocd": 0.0}, (0, 1, 2), shared=1.0, n=150)
    swapped = {(m, s): scores[m, (1, 0, 2)[s]] for m, s in scores}  # the same numbers, under other seeds
    cells = [cell("images", "mnist", m, s, a, base="other") for (m, s), a in swapped.items()]
    two = write_run(tmp_path / "three", cells, {("images", "mnist", m, s): a for (m, s), a in swapped.items()})
    comparison = compared(one, two)
    assert set(verdicts(comparison).values()) == {"cannot tell"}
    assert [comparison.exit_code(how) for how in ("regression", "cannot-tell", "never")] == [4, 1, 4]
    with pytest.raises(UsageError, match="fail_on"):
        comparison.exit_code("sometimes")


def test_one_seed_with_another_base_cannot_be_judged(tmp_path: Path):
    one, two = make_run(tmp_path / "one", seeds=(0,)), make_run(tmp_path / "two", seeds=(0,), cell_options={"base": "other"})
    (tmp_path / "two" / "scores" / "images-mnist-base-s0.npz").unlink()
    edit_value(two, "images-mnist-base-s0", 0.5)
    row = compared(one, two).rows[0]
    assert (row.verdict, row.note) == ("cannot tell", "one seed, whose base models differ")


def test_the_base_that_was_trained_elsewhere_is_a_row_of_its_own(tmp_path: Path):
    """The candidate ran on the baseline's bases, and shows the one that its machine trains."""
    one = make_run(tmp_path / "one")
    scores = accuracy_scores(METHODS, (0, 1, 2))
    for (name, seed), arrays in accuracy_scores({"base-anew": 0.0}, (0, 1, 2), stream=4).items():
        scores[name, seed] = arrays
    cells = [cell("images", "mnist", m, s, a, base="anew" if m == "base-anew" else None) for (m, s), a in scores.items()]
    two = write_run(tmp_path / "two", cells, {("images", "mnist", m, s): a for (m, s), a in scores.items()})
    for seed in range(3):  # a cell's configuration has no name of a method in it
        path = two / "cells" / f"images-mnist-base-anew-s{seed}.json"
        path.write_text(path.read_text().replace(sha("config", "base-anew"), sha("config", "base")))
    comparison = compared(one, two)
    assert {m: row.evidence.design for m, row in zip(verdicts(comparison), comparison.rows, strict=True)} == {
        "base": "same base", "ocd": "same base", "tent": "same base", "base-anew": "same seeds"
    }  # fmt: skip
    assert verdicts(comparison)["base"] == "identical"
    assert verdicts(comparison)["base-anew"] not in ("new", "identical")


# -- other seeds --------------------------------------------------------------------------------------------------------


def test_other_seeds_are_not_paired_by_sample(tmp_path: Path):
    one = make_run(tmp_path / "one", seeds=(0, 1, 2), shared=0.1, own=0.05)
    two = make_run(tmp_path / "two", seeds=(3, 4, 5), shared=0.1, own=0.05)
    comparison = compared(one, two)
    assert {row.evidence.design for row in comparison.rows} == {"other seeds"}
    assert "no common seeds" in comparison.notes[0]
    assert "regression" not in comparison.counts


def test_a_large_loss_is_found_under_other_seeds(tmp_path: Path):
    one = make_run(tmp_path / "one", seeds=(0, 1, 2, 3, 4), n=1000)
    two = make_run(tmp_path / "two", {**METHODS, "ocd": -0.8}, seeds=(5, 6, 7, 8, 9), n=1000)
    comparison = compared(one, two)
    assert verdicts(comparison) == {"base": "no change", "ocd": "regression", "tent": "no change"}


def test_one_seed_each_of_different_seeds_cannot_be_judged(tmp_path: Path):
    one, two = make_run(tmp_path / "one", seeds=(0,)), make_run(tmp_path / "two", seeds=(1,))
    comparison = compared(one, two)
    assert comparison.counts == {"cannot tell": 3}
    assert comparison.exit_code() == 4
    assert "one seed in each run" in comparison.rows[0].note


def test_a_reference_table_without_scores_is_compared_by_its_seeds(tmp_path: Path):
    one = make_run(tmp_path / "one", seeds=(0, 1, 2, 3), shared=0.05, with_scores=False)
    two = make_run(tmp_path / "two", {**METHODS, "ocd": -3.0}, seeds=(0, 1, 2, 3), shared=0.05)
    comparison = compared(one, two)
    assert verdicts(comparison) == {"base": "identical", "ocd": "regression", "tent": "identical"}


def test_without_scores_and_without_spread_there_is_no_test(tmp_path: Path):
    def run(folder: Path, right: int) -> Path:
        entries = [cell("images", "mnist", "base", s, {"accuracy": np.arange(50) < right}) for s in range(3)]
        return write_run(folder, entries, {})

    row = compared(run(tmp_path / "one", 40), run(tmp_path / "two", 39)).rows[0]
    assert row.verdict == "cannot tell"
    assert "no spread over seeds" in row.note


# -- the error rates, in small; benchmarks/compare_error_rates.py has the table -----------------------------------------


def benchmark(name: str):
    path = Path(__file__).parent.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_null_comparisons_raise_no_alarm_and_a_large_loss_is_found():
    rates = benchmark("compare_error_rates")
    random = np.random.default_rng(0)
    law = rates.Law("test", n=200, shared=0.05, own=0.02)
    alarms = sum(
        compare_runs(rates.make_run(law, (0, 1, 2), random), rates.make_run(law, (3, 4, 5), random)).exit_code() == 1
        for _ in range(10)
    )
    assert alarms == 0
    assert rates.found(law, 5, 0.4, 4, random, "other seeds") >= 0.75


def test_on_the_same_base_a_loss_of_one_point_is_found():
    """A small form of benchmarks/gate_power.py."""
    gate = benchmark("gate_power")
    random = np.random.default_rng(0)
    assert sum(gate.compared(0.02, 0.0, 0.0, 3, random).exit_code() for _ in range(5)) == 0
    assert gate.found(0.02, 0.01, 0.0, 3, 10, random, others=False) >= 0.8
    assert gate.found(0.02, 0.0, 0.0, 3, 5, random, others=False) == 0.0


def test_the_lean_ratio_is_one_for_answers_that_change_alone_and_large_for_those_of_a_seed():
    random = np.random.default_rng(0)
    gate = benchmark("gate_power")

    def ratio(lean: float) -> float:
        before = (random.random(1000) < 0.9).astype(float)
        found = []
        for _ in range(100):
            pulls = [gate.changed(before, 0.02, 0.0, lean, random) - before for _ in range(3)]
            means = np.array([pull.mean() for pull in pulls])
            found.append(lean_of(means, [pull - pull.mean() for pull in pulls], [None] * 3).ratio)
        return float(np.mean(found))

    assert ratio(0.0) == pytest.approx(1.0, abs=0.3)
    assert ratio(0.01) > 3
    shrunk = leaning([Lean(1.0, 2)] * 9 + [Lean(30.0, 2)])
    assert shrunk[0][0] == pytest.approx((16 * (16 + 18 + 60) / 36 + 2) / 18)
    assert shrunk[0][0] < shrunk[9][0] < 30


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


def other_settings(folder: Path, **options) -> Path:
    tasks = {"images": {"dataset": ["mnist"], "config": {"base": {"epochs": 30, "lr": 0.001}}}}
    return make_run(folder, cell_options={"config": "other"}, info={"tasks": tasks}, **options)


def test_another_configuration_is_not_compared_and_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, two = make_run(tmp_path / "one"), other_settings(tmp_path / "two")
    out = tmp_path / "c.md"
    assert main(["compare", str(one), str(two)]) == 2
    assert capsys.readouterr().out.count("settings differ: base.epochs 3 and 30") == 1
    assert main(["compare", str(one), str(two), "--format", "markdown", "--out", str(out)]) == 2
    assert "not compared: images mnist (3 rows): settings differ" in out.read_text()


def test_settings_are_compared_across_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, two = make_run(tmp_path / "one"), other_settings(tmp_path / "two")
    assert main(["compare", str(one), str(two), "--across-settings"]) == 0
    printed = capsys.readouterr().out
    assert "settings differ (images): base.epochs 3 and 30" in printed
    assert "3 identical" in printed


def test_one_task_that_is_another_experiment_does_not_stop_the_others(tmp_path: Path):
    groups = (("images", "mnist"), ("speech", "voices"))
    one, two = make_run(tmp_path / "one", groups=groups), make_run(tmp_path / "two", groups=groups)
    for path in (two / "cells").glob("speech*.json"):
        entry = json.loads(path.read_text())
        path.write_text(json.dumps({**entry, "fingerprint": {**entry["fingerprint"], "data": "0" * 64}}))
    comparison = compared(one, two)
    assert comparison.counts == {"incomparable": 3, "identical": 3}
    assert [comparison.exit_code(how) for how in ("regression", "never")] == [2, 0]
    assert "not compared: speech voices (3 rows): data differ (seed 0)" in render_text(comparison, 120)


def test_other_data_are_not_compared(tmp_path: Path):
    one = make_run(tmp_path / "one")
    for name, options in (("two", {}), ("three", {"seeds": (3, 4, 5)})):
        comparison = compared(one, make_run(tmp_path / name, cell_options={"data": "other"}, **options))
        assert comparison.counts == {"incomparable": 3}
        assert comparison.rows[0].note.startswith("data differ")
        assert comparison.exit_code() == 2


def test_another_schema_is_refused(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    edit_cell(two, "images-mnist-ocd-s0", schema=2)
    assert main(["compare", str(one), str(two)]) == 2


def test_a_metric_of_another_direction_is_not_compared(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    for path in (two / "cells").glob("*.json"):
        path.write_text(path.read_text().replace('"higher_is_better": true', '"higher_is_better": false'))
    comparison = compared(one, two)
    assert comparison.counts == {"incomparable": 3}
    assert comparison.rows[0].note == "higher_is_better of accuracy differs"


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


def test_a_missing_seed_is_broken_and_named(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    for seed in (1, 2):
        (two / "cells" / f"images-mnist-ocd-s{seed}.json").unlink()
    comparison = compared(one, two)
    row = comparison.rows[1]
    assert (row.verdict, row.note) == ("broken", "seeds 1, 2 missing in the candidate")
    assert row.baseline.seeds == row.candidate.seeds == (0,)
    assert row.baseline.mean == row.candidate.mean
    assert comparison.exit_code() == 1
    assert comparison.exit_code(allow_missing=True) == 0
    assert compared(two, one).exit_code() == 0


def test_a_row_without_a_number_in_either_run_is_left_alone(tmp_path: Path):
    entries = [cell("a", "b", "tent", 0, status="not-applicable", reason="no norm layer")]
    one, two = (write_run(tmp_path / name, entries, {}) for name in ("one", "two"))
    comparison = compared(one, two)
    assert comparison.counts == {"no number": 1}
    assert "a b tent: no number: n/a: no norm layer" in render_text(comparison, 100, all_rows=True).splitlines()
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
    assert verdicts(comparison) == {"base": "identical", "ocd": "no change", "tent": "ignored"}
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


@pytest.mark.parametrize("change", [{"cpu": "Another"}, {"threads": 8}, {"cpu": None}])
def test_costs_of_another_machine_are_not_compared(tmp_path: Path, change: dict):
    slow = {"fit_s": 30.0, "adapt_s": 0.5, "peak_memory_mb": 300.0}
    info = {"environment": {**ENVIRONMENT, **change}}
    comparison = compared(make_run(tmp_path / "one"), make_run(tmp_path / "two", cell_options={"cost": slow}, info=info))
    assert "advisory" not in render_text(comparison, 120)


def test_costs_that_differ_by_milliseconds_are_not_compared(tmp_path: Path):
    fast, slow = ({"fit_s": 0.0, "adapt_s": seconds, "peak_memory_mb": 300.0} for seconds in (0.001, 0.2))
    runs = [make_run(tmp_path / name, cell_options={"cost": cost}) for name, cost in (("one", fast), ("two", slow))]
    assert "advisory" not in render_text(compared(*runs), 120)


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
    assert "1 regression, 2 identical" in printed
    assert "tent" not in printed
    assert "2 rows unchanged (2 identical): --all-rows shows them" in printed
    assert main(["compare", one, two, "--all-rows"]) == 1
    assert "\ntent" in capsys.readouterr().out
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


def test_each_row_is_one_line_below_its_task_dataset_and_metric(tmp_path: Path):
    groups = [("images", "mnist+gaussian_noise-3"), ("speech", "voices")]
    one = make_run(tmp_path / "one", {"base": 0.0, "ocd-layer-random": 0.4}, groups=groups)
    two = make_run(tmp_path / "two", {"base": 0.0, "ocd-layer-random": 0.1}, groups=groups)
    for path in (two / "cells").glob("speech-voices-base-*"):
        path.unlink()
    comparison = compared(one, two)
    lines = render_text(comparison, 80).splitlines()
    places = [lines.index(f"{task}, {dataset}: accuracy [%] ↑") for task, dataset in groups]
    assert lines[places[0] + 1].split() == [*_row(comparison, groups[0]), "regression"]
    assert lines[places[0] + 2] == ""
    assert [line.split()[0] for line in lines[places[1] + 1 : places[1] + 3]] == ["base", "ocd-layer-random"]
    assert lines[places[1] + 1].endswith("vanished")
    assert lines[places[1] + 2].split() == [*_row(comparison, groups[1]), "regression"]
    assert "columns left out (terminal too narrow): seen from, p" in lines
    wide = render_text(comparison, 120)
    assert "left out" not in wide
    assert "  seen from  " in wide


def _row(comparison, group: tuple[str, str]) -> list[str]:
    row = next(row for row in comparison.rows if row.name == (*group, "ocd-layer-random"))
    sides = [word for side in (row.baseline, row.candidate) for word in (f"{100 * side.mean:.2f}", "±", f"{100 * side.sd:.2f}")]
    change = [f"{100 * row.evidence.change:+.2f}", f"[{100 * row.evidence.low:+.2f},", f"{100 * row.evidence.high:+.2f}]"]
    return ["ocd-layer-random", *sides, *change]


def test_with_all_metrics_each_metric_has_its_rows(tmp_path: Path):
    one, two = make_run(tmp_path / "one"), worse_run(tmp_path / "two")
    lines = render_text(compared(one, two, metrics="all"), 100, all_rows=True).splitlines()
    for title in ("images, mnist: accuracy [%] ↑", "images, mnist: cross_entropy [nats] ↓"):
        place = lines.index(title)
        assert [line.split()[0] for line in lines[place + 1 : place + 4]] == ["base", "ocd", "tent"]


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, two = str(make_run(tmp_path / "one")), str(worse_run(tmp_path / "two"))
    assert main(["compare", one, two, "--format", "json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == 1
    assert answer["exit_code"] == 1
    assert answer["counts"] == {"regression": 1, "identical": 2}
    row = answer["rows"][1]
    assert (row["task"], row["dataset"], row["method"], row["metric"]) == ("images", "mnist", "ocd", "accuracy")
    assert row["candidate"]["mean"] - row["baseline"]["mean"] == pytest.approx(row["change"])
    assert row["interval"][1] < 0
    assert row["p_holm"] >= row["p"]
    assert 0 < row["seen_from"] < 0.1


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
    apart = compared(one, make_run(tmp_path / "three", cell_options={"data": "other"}))
    assert ElementTree.fromstring(render_junit(apart).encode()).get("errors") == "3"
    assert len(ElementTree.fromstring(render_junit(compared(one, one)).encode()).findall(".//failure")) == 0


def test_markdown_folds_what_did_not_change(tmp_path: Path):
    text = render_markdown(compared(make_run(tmp_path / "one"), worse_run(tmp_path / "two")))
    news, rest = text.split("<details>")
    assert "| images mnist ocd |" in news
    assert "| images mnist tent |" in rest
    assert text.startswith("### OCD-Bench: 1 regression, 2 identical")


def test_markdown_fits_into_a_comment(tmp_path: Path):
    groups = [(f"task{number}", "a-dataset-with-a-name+gaussian_noise-3") for number in range(200)]
    one, two = (make_run(tmp_path / name, seeds=(0,), groups=groups, n=20) for name in ("one", "two"))
    comparison = compared(one, two)
    text = render_markdown(comparison)
    assert len(text) < 31_000
    assert "600 rows unchanged (600 identical); too many for a comment" in text
    slow = [replace(row, note="a remark " * 10, verdict="cannot tell") for row in comparison.rows]
    text = render_markdown(replace(comparison, rows=tuple(slow)))
    assert len(text) < 31_000
    assert re.search(r"\d+ more rows: see the job's log", text)
    assert re.search(r"- \d+ more remarks: see the job's log", text)


def test_p_values_as_text():
    assert [p_text(p) for p in (None, 0.0, 0.00099, 0.0321, 1.0)] == ["–", "<0.001", "<0.001", "0.032", "1.000"]
    assert Evidence(0.0, ((), ())).p is None


# -- hostile and damaged input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["table", "markdown", "html", "json", "junit"])
def test_hostile_texts_of_a_run_stay_texts(tmp_path: Path, format: str):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    reason = "<script>alert(1)</script> \x1b[31m \x00 | `x` ]]>"
    for seed in range(3):
        edit_cell(two, f"images-mnist-ocd-s{seed}", status="failed", reason=reason, metrics={})
    text = compared(one, two).table(format)
    text.encode()
    assert "\x1b" not in text
    assert "\x00" not in text
    if format in ("html", "markdown"):
        assert "<script>" not in text
    if format == "junit":
        ElementTree.fromstring(text.encode())
    if format == "json":
        assert json.loads(text)["counts"] == {"broken": 1, "identical": 2}


@pytest.mark.parametrize("format", ["table", "markdown", "html", "json", "junit"])
@pytest.mark.parametrize("damage", ["none", "foreign", "scores", "cell"])
def test_a_run_that_cannot_be_read_gives_one_line_and_a_file_that_says_so(tmp_path: Path, capsys, format: str, damage: str):
    one, two, out = make_run(tmp_path / "one"), tmp_path / "<b>two", tmp_path / "out"
    if damage != "none":
        make_run(two)
    if damage == "foreign":
        (two / "run.json").write_text('{"hello": 1}')
    if damage == "scores":
        (two / "scores" / "images-mnist-ocd-s0.npz").write_bytes(b"PK no archive")
    if damage == "cell":
        (two / "cells" / "images-mnist-ocd-s0.json").write_text("{")
    assert main(["compare", str(one), str(two), "--format", format, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "two" in error
    text = out.read_text()
    assert "two" in text
    if format == "json":
        assert json.loads(text)["exit_code"] == 2
    if format == "junit":
        assert ElementTree.fromstring(text.encode()).find(".//error") is not None
    if format in ("html", "markdown"):
        assert "<b>" not in text


def test_the_page_is_one_file_with_every_row(tmp_path: Path):
    text = compared(make_run(tmp_path / "one"), worse_run(tmp_path / "two")).table("html")
    assert text.startswith("<!doctype html>")
    assert all(f"images mnist {name}" in text for name in METHODS)
    assert "http" not in text
