"""``temperature`` against scipy's minimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from ocd_bench.errors import NotApplicable
from ocd_bench.methods.temperature import LIMIT, Temperature, best_factor
from tests.toy import ToyClasses, ToyValues, held_out, make_context


def scipys(logits: np.ndarray, labels: np.ndarray) -> float:
    """The factor of least cross entropy against labels smoothed as Platt has it."""
    count, classes = logits.shape
    wanted = np.full((count, classes), 1 / (count + 2) / (classes - 1))
    wanted[np.arange(count), labels] = (count + 1) / (count + 2)

    def loss(log_factor: float) -> float:
        z = np.exp(log_factor) * logits
        return float((np.logaddexp.reduce(z, 1) - (wanted * z).sum(1)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x))


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 7])
def test_the_factor_is_the_one_of_least_cross_entropy(truth: float, classes: int):
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(3000, classes, generator=draw)
    labels = torch.multinomial((truth * logits).softmax(1), 1, generator=draw)[:, 0]
    found = best_factor(logits, labels)
    assert found == pytest.approx(scipys(logits.double().numpy(), labels.numpy()), rel=1e-5)
    assert found == pytest.approx(truth, rel=0.15)


def test_the_factor_is_moderate_where_validation_has_no_error():
    logits = 4 * torch.eye(3).repeat(10, 1)
    labels = torch.arange(30) % 3
    # All samples are alike: the best probability of the right class is the smoothed 31 / 32, log odds ln(31 / 0.5) over 4.
    assert best_factor(logits, labels) == pytest.approx(np.log(31 / 0.5) / 4, rel=1e-6)
    assert best_factor(1e-3 * logits, labels) == pytest.approx(LIMIT)


def test_no_answer_changes_and_the_cross_entropy_falls():
    context = make_context(ToyClasses(), steps=400)  # overfitted: too sure
    test, predictor = held_out(context.task), Temperature().fit(context)
    before, after = context.base(test.inputs), predictor(test.inputs)
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert predictor.detail["temperature"] > 1
    assert context.task.loss(after, test.targets).mean() < context.task.loss(before, test.targets).mean()


class Labelled(ToyClasses):
    """Its outputs are twice the logits."""

    name = "labelled"

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        return output / 2


def test_it_needs_plain_class_logits():
    with pytest.raises(NotApplicable, match="no class posterior"):
        Temperature().fit(make_context(ToyValues()))
    with pytest.raises(NotApplicable, match="not plain class logits"):
        Temperature().fit(make_context(Labelled()))
