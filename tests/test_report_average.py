"""The mean over datasets: values by hand, intervals against their known law, what is left out and why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ocd_bench.merging import merge_runs
from ocd_bench.report import FORMATS, build_table, render
from ocd_bench.report.average import averages
from ocd_bench.results import Key, read_run
from ocd_bench.stats import Paired, estimate
from tests.runs import accuracy_scores, cell, edit_cell, make_run, write_run

FRACTION = {"unit": "fraction", "higher_is_better": True}


def averaged(folder: Path, **task: object) -> Path:
    """The run, its task declared to be averaged."""
    path = folder / "run.json"
    info = json.loads(path.read_text())
    for entry in info["tasks"].values():
        entry.update({"average": FRACTION, **task})
    path.write_text(json.dumps(info))
    return folder


def three_sets(folder: Path, **options: object) -> Path:
    return averaged(make_run(folder, groups=[("nlp", "a"), ("nlp", "b"), ("nlp", "c")], n=120, own=0.05, **options))


def test_mean_within_a_seed_then_spread_over_seeds(tmp_path: Path) -> None:
    run = read_run(three_sets(tmp_path / "run"))
    table = build_table(run)
    assert [group.dataset for group in table.groups] == ["a", "b", "c", "average of 3 datasets"]
    last = table.groups[-1]

    def values(method: str) -> np.ndarray:
        sets = [
            [run.cells[Key("nlp", name, method, seed)]["metrics"]["accuracy"]["value"] for seed in (0, 1, 2)] for name in "abc"
        ]
        return np.mean(sets, axis=0)

    base, ocd, _ = last.rows
    for row in (base, ocd):
        assert row.metrics["average"] == (
            pytest.approx(values(row.method).mean()),
            pytest.approx(values(row.method).std(ddof=1)),
        )
    assert base.delta is None
    assert ocd.delta is not None
    assert ocd.delta.value == pytest.approx((values("ocd") - values("base")).mean())
    assert ocd.verdict == "better"
    assert last.n_test == 360
    assert last.notes == ("mean over datasets of accuracy (a, b, c), within each seed; seeds 0, 1, 2; 360 test samples",)


def test_the_interval_is_that_of_independent_test_sets() -> None:
    """Means of 300 normal differences: SD s / sqrt(300) each, so the mean of two sets has s / sqrt(600)."""
    random = np.random.default_rng(0)
    base = random.normal(size=(2, 300))
    other = base + random.normal(0.2, 1.0, size=(2, 300))
    sets = [Paired({("base", 0): base[i], ("m", 0): other[i]}, "mean") for i in range(2)]
    found = estimate([part.part("m", "base") for part in sets])
    assert found.low is not None
    assert found.high is not None
    change = other - base
    half = 1.96 * np.sqrt((change.var(axis=1, ddof=1) / 300).sum()) / 2
    assert found.value == pytest.approx(change.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)
    assert (found.high + found.low) / 2 == pytest.approx(found.value, abs=0.1 * half)


def test_metrics_of_different_kinds_are_averaged_without_scaling(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    cells, scores = [], {}
    for seed, method, right in ((s, m, r) for s in range(3) for m, r in (("base", 0.7), ("ocd", 0.9))):
        target = random.integers(0, 2, 200)
        predicted = np.where(random.random(200) < right, target, 1 - target)
        for dataset, arrays in (
            ("counterfactual", {"matthews": (2 * target + predicted).astype(float)}),
            ("news", {"accuracy": (predicted == target).astype(float)}),
        ):
            cells.append(cell("nlp", dataset, method, seed, arrays))
            scores["nlp", dataset, method, seed] = arrays
    run = read_run(averaged(write_run(tmp_path / "run", cells, scores)))
    group = build_table(run).groups[-1]
    for row in group.rows:
        both = [run.cells[Key("nlp", *pair, row.method, 0)]["metrics"] for pair in (("counterfactual",), ("news",))]
        assert row.by_seed["average"][0] == pytest.approx((both[0]["matthews"]["value"] + both[1]["accuracy"]["value"]) / 2)
    assert "matthews (counterfactual) and accuracy (news)" in group.notes[0]
    assert group.metrics[0].heading == "average [%] ↑"
    assert group.rows[1].verdict == "better"


def test_a_row_without_some_dataset_has_no_mean(tmp_path: Path) -> None:
    folder = three_sets(tmp_path / "run")
    for seed in (0, 1, 2):
        edit_cell(folder, f"nlp-b-tent-s{seed}", status="not-applicable", reason="no", metrics={}, cost={})
    edit_cell(folder, "nlp-c-ocd-s1", status="failed", reason="no", metrics={}, cost={})
    group = build_table(read_run(folder)).groups[-1]
    base, ocd, tent = group.rows
    assert tent.problem == "n/a: no seed has a number on all of a, b, c"
    assert (base.seeds, ocd.seeds) == ((0, 1, 2), (0, 2))
    assert "ocd: seeds 0, 2 only" in group.notes
    assert ocd.delta is not None
    assert ocd.delta.low is not None


def test_variants_are_averaged_apart_and_without_scores_there_is_no_interval(tmp_path: Path) -> None:
    names = ["a", "b", "a+noise-3", "b+noise-3", "c+noise-3"]
    folder = averaged(make_run(tmp_path / "run", groups=[("nlp", name) for name in names], n=60, with_scores=False))
    clean, noisy = averages(read_run(folder))["nlp"]
    assert (clean.dataset, noisy.dataset) == ("average of 2 datasets", "average of 3 datasets+noise-3")
    assert noisy.rows[1].delta is not None
    assert noisy.rows[1].delta.low is None


def test_there_is_a_mean_only_if_declared_and_with_several_datasets(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain", groups=[("images", "mnist"), ("images", "cifar10")], n=40)
    assert len(build_table(read_run(plain)).groups) == 2
    single = averaged(make_run(tmp_path / "single", groups=[("nlp", "a")], n=40))
    assert len(build_table(read_run(single)).groups) == 1


def test_kinds_in_training_s_copies_have_a_mean_of_their_own(tmp_path: Path) -> None:
    kinds = ["blur", "fog", "rotate", "salt", "shear"]
    folder = make_run(tmp_path / "run", groups=[("images", f"mnist+{kind}-3") for kind in kinds], n=60)
    run = read_run(folder)
    whole = [group for group in build_table(run).groups if ":" in group.dataset]
    assert [group.dataset for group in whole] == ["mnist: 5 corruptions, severity 3"]

    def mean(group, names):
        cells = [run.cells[Key("images", f"mnist+{name}-3", "ocd", seed)] for name in names for seed in group.rows[1].seeds]
        return np.mean([cell["metrics"]["accuracy"]["value"] for cell in cells])

    def mark(*names):
        for key in run.cells:
            edit_cell(folder, f"images-{key.dataset}-{key.method}-s{key.seed}", in_copies=key.dataset[6:-2] in names)
        groups = build_table(read_run(folder)).groups
        noted = [group.dataset for group in groups if any("contain this kind" in note for note in group.notes)]
        assert noted == [f"mnist+{name}-3" for name in names]
        return [group for group in groups if ":" in group.dataset]

    copied, others = mark("rotate", "shear")
    assert copied.dataset == "mnist: 5 corruptions, severity 3: 2 kinds in training's copies"
    assert others.dataset == "mnist: 5 corruptions, severity 3: 3 other kinds"
    assert copied.rows[1].metrics["average"][0] == pytest.approx(mean(copied, ["rotate", "shear"]))
    assert others.rows[1].metrics["average"][0] == pytest.approx(mean(others, ["blur", "fog", "salt"]))
    (others,) = mark("rotate")
    assert others.dataset == "mnist: 5 corruptions, severity 3: 4 other kinds"
    assert "left out, since training's copies contain it: rotate-3" in others.notes


def test_every_format_shows_it_and_merging_keeps_it(tmp_path: Path) -> None:
    parts = []
    for name in ("a", "b"):
        scores = accuracy_scores({"base": 0.0, "ocd": 0.5}, (0, 1), n=80)
        cells = [cell("nlp", name, m, s, arrays) for (m, s), arrays in scores.items()]
        arrays = {("nlp", name, m, s): entry for (m, s), entry in scores.items()}
        parts.append(read_run(averaged(write_run(tmp_path / name, cells, arrays))))
    other = read_run(make_run(tmp_path / "other", groups=[("images", "mnist")], n=40))
    table = build_table(merge_runs([other, *parts]))
    assert table.groups[-1].dataset == "average of 2 datasets"
    for format in FORMATS:
        assert "average of 2 datasets" in render(table, format)


def corrupted(folder: Path, **options: object) -> Path:
    names = ("mnist", "mnist+fog-3", "mnist+blur-3", "mnist+fog-5")
    return make_run(folder, groups=[("images", name) for name in names], n=120, **options)


def test_the_mean_over_kinds_of_corruption_is_a_score_of_the_sample(tmp_path: Path) -> None:
    run = read_run(corrupted(tmp_path / "run"))
    table = build_table(run)
    title = "mnist: 2 corruptions, severity 3"
    assert [group.dataset for group in table.groups] == ["mnist", "mnist+fog-3", "mnist+blur-3", "mnist+fog-5", title]
    group = table.groups[-1]
    scores = {}
    for method in ("base", "ocd", "tent"):
        for seed in (0, 1, 2):
            kinds = [run.scores(Key("images", f"mnist+{kind}-3", method, seed), "accuracy") for kind in ("fog", "blur")]
            scores[method, seed] = np.stack(kinds)
    row = next(row for row in group.rows if row.method == "ocd")
    assert list(row.by_seed["average"]) == pytest.approx([scores["ocd", seed].mean() for seed in (0, 1, 2)])
    expected = Paired(scores, "mean").difference("ocd", "base")
    assert (row.delta.value, row.delta.low, row.delta.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert row.delta.low > 0
    assert group.notes == ("mean over 2 kinds of corruption of accuracy; seeds 0, 1, 2; 120 test samples",)


def test_a_named_set_has_a_mean_of_its_own_and_the_rest_another(tmp_path: Path) -> None:
    names = ("mnist", "mnist+fog-3", "mnist+blur-3", "mnist+dust-3", "mnist+rust-3")
    folder = make_run(tmp_path / "run", groups=[("images", name) for name in names], n=120)
    info = json.loads((folder / "run.json").read_text())
    info["tasks"]["images"]["corruption_sets"] = {"weather:3": ["+fog-3", "+blur-3"], "sea:3": ["+salt-3", "+fog-3"]}
    (folder / "run.json").write_text(json.dumps(info))
    groups = build_table(read_run(folder)).groups
    assert [group.dataset for group in groups[5:]] == [
        "mnist: weather, 2 corruptions, severity 3",
        "mnist: 2 corruptions, severity 3",
    ]
    run = read_run(folder)
    for group, kinds in zip(groups[5:], (("fog", "blur"), ("dust", "rust")), strict=True):
        row = next(row for row in group.rows if row.method == "base")
        values = [run.scores(Key("images", f"mnist+{kind}-3", "base", 0), "accuracy").mean() for kind in kinds]
        assert row.by_seed["average"][0] == pytest.approx(np.mean(values))


def test_a_seed_counts_only_if_it_has_every_kind(tmp_path: Path) -> None:
    folder = corrupted(tmp_path / "run")
    edit_cell(folder, "images-mnist+fog-3-tent-s1", status="failed", reason="lost")
    group = build_table(read_run(folder)).groups[-1]
    assert {row.method: row.seeds for row in group.rows} == {"base": (0, 1, 2), "ocd": (0, 1, 2), "tent": (0, 2)}
    assert "tent: seeds 0, 2 only" in group.notes


@pytest.mark.parametrize("missing", ["scores", "mean"])
def test_without_scores_or_for_values_that_are_not_means_there_is_no_mean(tmp_path: Path, missing: str) -> None:
    folder = corrupted(tmp_path / "run", with_scores=missing != "scores")
    if missing == "mean":
        for path in folder.glob("cells/*.json"):
            content = json.loads(path.read_text())
            content["metrics"]["accuracy"]["reduce"] = "root_mean"
            path.write_text(json.dumps(content))
    assert [group.dataset for group in build_table(read_run(folder)).groups][-1] == "mnist+fog-5"
