"""Calibration: what the runner stores, the error against torchmetrics, what the report draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ocd_bench.report import build_table
from ocd_bench.report.calibration import reliability
from ocd_bench.report.figures import result_figures
from ocd_bench.results import read_run
from ocd_bench.runner.measure import certainty
from tests.runs import cell, make_run, write_run
from tests.toy import ToyClasses, ToyValues


def test_the_error_is_that_of_torchmetrics():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 4, generator=random)
    targets = torch.randint(4, (500,), generator=random)
    confidence, correct = certainty(ToyClasses(), logits, targets).values()
    found = reliability(confidence.double().numpy(), correct.double().numpy())
    wanted = classification.multiclass_calibration_error(logits.softmax(-1), targets, num_classes=4, n_bins=15, norm="l1")
    assert found.error == pytest.approx(wanted.item(), abs=1e-5)
    assert sum(count for _, _, count in found.curve) == 500


def test_the_error_equals_a_value_computed_by_hand():
    found = reliability(np.array([0.9, 0.9, 0.9, 0.9, 0.55, 0.55]), np.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0]), bins=10)
    assert found.curve == ((pytest.approx(0.55), 1.0, 2), (pytest.approx(0.9), 0.75, 4))
    assert found.error == pytest.approx((4 * 0.15 + 2 * 0.45) / 6)
    assert reliability(np.array([0.0, 1.0]), np.array([0.0, 1.0])).error == 0.0


def test_only_class_posteriors_have_a_certainty():
    logits, labels = torch.tensor([[0.0, 2.0], [float("nan"), 0.0]]), torch.tensor([1, 0])
    known = certainty(ToyClasses(), logits, labels)
    assert known["confidence"].tolist() == [pytest.approx(torch.sigmoid(torch.tensor(2.0)).item()), 0.0]
    assert bool(known["correct"][0])
    assert certainty(ToyClasses(), logits, labels.float()) == {}
    assert certainty(ToyValues(), logits, labels) == {}


def overconfident(folder: Path) -> Path:
    """A calibrated base, and a method with a constant confidence of 99 %. Both are right on three samples in four."""
    entries, scores = [], {}
    random = np.random.default_rng(0)
    for method, sure in (("base", 0.75), ("ocd", 0.99), ("oracle", 0.75)):
        for seed in (0, 1):
            right = (random.permutation(400) < 300).astype(float)
            entries.append(cell("images", "mnist", method, seed, {"accuracy": right}))
            scores["images", "mnist", method, seed] = {
                "accuracy": right, "confidence": np.full(400, sure), "correct": right
            }  # fmt: skip
    return write_run(folder, entries, scores)


def test_the_report_shows_overconfidence(tmp_path: Path):
    group = build_table(read_run(overconfident(tmp_path / "run"))).groups[0]
    errors = {row.method: row.reliability.error for row in group.rows}
    assert errors == {"base": pytest.approx(0.0), "ocd": pytest.approx(0.24), "oracle": pytest.approx(0.0)}
    plots = dict(result_figures(group))
    assert "ocd 24.00" in plots["Expected calibration error, all seeds together; 0 is best"]
    curve = next(plot for caption, plot in plots.items() if caption.startswith("Reliability"))
    assert ">ocd<" in curve
    assert ">oracle<" not in curve


def test_runs_without_confidences_have_no_such_plot(tmp_path: Path):
    group = build_table(read_run(make_run(tmp_path / "run"))).groups[0]
    assert all(row.reliability is None for row in group.rows)
    assert not any("alibration" in caption for caption, _ in result_figures(group))


def test_a_run_stores_them_beside_the_metrics(tmp_path: Path):
    from ocd_bench.cli import main
    from tests.test_run import PLUGIN

    (tmp_path / "dots.py").write_text(PLUGIN)
    out = tmp_path / "run"
    words = ["run", "--plugin", str(tmp_path / "dots.py"), "--task", "dots", "--preset", "quick", "--methods", "base"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
        assert main([*words, "--out", str(out), "--quiet"]) == 0
    stored = json.loads((out / "cells" / "dots-default-base-s0.json").read_text())
    assert list(stored["metrics"]) == ["accuracy", "cross_entropy"]
    with np.load(out / "scores" / "dots-default-base-s0.npz", allow_pickle=False) as scores:
        assert (scores["correct"] == scores["accuracy"]).all()
        assert ((scores["confidence"] > 0.5) & (scores["confidence"] <= 1)).all()
        # Where the answer is right, the cross-entropy is that of the confidence.
        right = scores["correct"] == 1
        np.testing.assert_allclose(np.exp(-scores["cross_entropy"][right]), scores["confidence"][right], rtol=1e-5)
