"""The reference row ``xgboost``."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from ocd_bench import Context, NotApplicable, Request, Task, Unavailable
from ocd_bench.samples import Samples, Splits
from ocd_bench_tabular import Tabular, XGBoost
from ocd_bench_tabular.settings import TabularSettings
from ocd_bench_tabular.trees import XGBoostSettings

QUICK = XGBoostSettings(**XGBoostSettings.presets["quick"])


def context(dataset: str, task: Task | None = None, settings: XGBoostSettings = QUICK) -> tuple[Context, Samples]:
    task = task or Tabular()
    request = Request("tabular", dataset, TabularSettings(width=8))
    splits = Tabular().load_data(request)
    torch.manual_seed(0)
    base = Tabular().base_model(splits, request).eval().requires_grad_(False)
    hidden = Splits(splits.train, splits.val, splits.val, extras=splits.extras)
    sections: dict[str, Any] = {"xgboost": settings}
    return Context(
        task=task,
        request=request,
        splits=hidden,
        base=base,
        layer="layer1",
        device=torch.device("cpu"),
        settings=sections.get,
        batch_size=50,
        ranking=list,
    ), splits.test


def test_beats_the_mean_on_diabetes() -> None:
    given, test = context("diabetes")
    task = given.task
    predictor = XGBoost().fit(given)
    output = predictor(test.inputs)
    assert output.shape == (len(test), 1)
    assert output.dtype == torch.float32
    error = task.metrics(output, test.targets)["rmse"].mean()
    constant = task.metrics(torch.zeros(len(test), 1), test.targets)["rmse"].mean()
    assert error < 0.75 * constant
    assert predictor.parameters > 50
    # The validation score is that of the trees that are kept.
    again = task.loss(predictor(given.val.inputs), given.val.targets).mean().sqrt().item()
    assert predictor.detail["validation"] == pytest.approx(again, rel=1e-5)
    assert predictor.detail["max_depth"] in QUICK.depths


@pytest.mark.parametrize("dataset", ["wine", "breast-cancer"])
def test_classes_come_as_log_probabilities(dataset: str) -> None:
    given, test = context(dataset)
    predictor = XGBoost().fit(given)
    output = predictor(test.inputs)
    torch.testing.assert_close(output.exp().sum(-1), torch.ones(len(test)), atol=1e-5, rtol=0)
    assert given.task.metrics(output, test.targets)["accuracy"].mean() > 0.85


def test_repeatable_and_chosen_on_validation() -> None:
    wide = XGBoostSettings(depths=(2, 6), min_child_weights=(1.0, 20.0), learning_rate=0.2, rounds=60, patience=10)
    given, test = context("diabetes", settings=wide)
    first, second = XGBoost().fit(given), XGBoost().fit(given)
    assert torch.equal(first(test.inputs), second(test.inputs))
    alone = [
        XGBoost()
        .fit(context("diabetes", settings=XGBoostSettings((depth,), (weight,), learning_rate=0.2, rounds=60, patience=10))[0])
        .detail["validation"]
        for depth in wide.depths
        for weight in wide.min_child_weights
    ]
    assert first.detail["validation"] == min(alone)


class Elsewhere(Task):
    name = "images"
    primary_metric: ClassVar[str] = "accuracy"


def test_it_is_not_applicable_to_other_inputs() -> None:
    given, _ = context("diabetes", task=Elsewhere())
    with pytest.raises(NotApplicable, match="only for tabular inputs"):
        XGBoost().fit(given)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "xgboost", None)
    given, _ = context("diabetes")
    with pytest.raises(Unavailable, match="pip install xgboost"):
        XGBoost().fit(given)
