"""EATA against its equations, implemented with autograd on a copy of the model."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from ocd_bench.errors import UsageError
from ocd_bench.methods.eata import Eata, EataSettings
from ocd_bench.methods.tent import Tent, TentSettings
from tests.toy import ToyClasses, held_out, make_context

SETTINGS = EataSettings(lr=0.1, margin=0.6, distance=0.9, alpha=3.0, fisher_batch=8)


def reference(context, parts: list[torch.Tensor], settings: EataSettings) -> tuple[list[torch.Tensor], int]:
    """Outputs, and the number of samples that were used for updates."""
    model = copy.deepcopy(context.base).train()
    weights = [model.norm.weight.requires_grad_(), model.norm.bias.requires_grad_()]
    start = [w.detach().clone() for w in weights]
    fisher = [torch.zeros_like(w) for w in weights]
    val = context.val.inputs.split(settings.fisher_batch)
    for part in val:
        logits = model(part)
        slopes = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, logits.argmax(1)), weights)
        fisher = [f + s**2 / len(val) for f, s in zip(fisher, slopes, strict=True)]
    optimizer = torch.optim.SGD(weights, settings.lr, settings.momentum)
    e0, mean, outputs, count = settings.margin * math.log(3), None, [], 0
    for part in parts:
        output = model(part)
        p = output.softmax(1)
        entropies = -(p * p.log()).sum(1)
        loss, kept = 0.0, []
        for row, h in zip(p, entropies, strict=True):
            cosine = 0.0 if mean is None else float((row @ mean / row.norm() / mean.norm()).detach())
            if h < e0 and abs(cosine) < settings.distance:
                loss = loss + h / torch.exp(h.detach() - e0)
                kept.append(row.detach())
        if kept:
            new = torch.stack(kept).mean(0)
            mean = new if mean is None else 0.9 * mean + 0.1 * new
            penalty = sum((f * (w - s) ** 2).sum() for f, w, s in zip(fisher, weights, start, strict=True))
            optimizer.zero_grad()
            (loss / len(kept) + settings.alpha * penalty).backward()
            optimizer.step()
        count += len(kept)
        outputs.append(output.detach())
    return outputs, count


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        EataSettings(lr=0.1, margin=0.6, distance=0.9, alpha=0.0),
        EataSettings(lr=0.1, margin=0.6, distance=0.9, alpha=300.0, fisher_batch=30),
        EataSettings(lr=0.1, margin=0.9, distance=0.6, alpha=3.0, fisher_batch=15),
    ],
)
def test_equals_the_equations_over_the_stream(settings: EataSettings):
    context = make_context(ToyClasses(), settings={"eata": settings}, dtype=torch.float64)
    parts = list(held_out(context.task).inputs.double().split(9))
    outputs, count = reference(context, parts, settings)
    predictor = Eata().fit(context)
    for part, output in zip(parts, outputs, strict=True):
        torch.testing.assert_close(predictor(part), output, rtol=1e-9, atol=1e-9)
    assert predictor.detail["learnt_from"] == count
    assert 9 < count < 45, "the filters must bite, or this test shows little"


def test_without_reliable_samples_there_is_no_update():
    context = make_context(ToyClasses(), settings={"eata": EataSettings(lr=0.1, margin=0.0)})
    predictor = Eata().fit(context)
    before = copy.deepcopy(predictor.model.model.state_dict())
    predictor(held_out(context.task).inputs)
    assert all(torch.equal(value, before[name]) for name, value in predictor.model.model.state_dict().items())
    assert predictor.detail["learnt_from"] == 0


def test_first_output_is_tents_and_a_reset_forgets_the_running_mean():
    context = make_context(ToyClasses(), settings={"eata": SETTINGS, "tent": TentSettings()})
    inputs = held_out(context.task).inputs
    predictor = Eata().fit(context)
    first = predictor(inputs)
    assert torch.equal(first, Tent().fit(context)(inputs))
    second = predictor(inputs)
    assert not torch.equal(first, second)
    predictor.reset()
    assert predictor._mean is None
    assert torch.equal(predictor(inputs), first)


def test_a_strong_penalty_holds_the_weights():
    def moved(alpha: float) -> float:
        settings = EataSettings(lr=0.01, momentum=0.0, margin=1.0, distance=2.0, alpha=alpha)
        context = make_context(ToyClasses(), settings={"eata": settings}, dtype=torch.float64)
        predictor = Eata().fit(context)
        for part in held_out(context.task).inputs.double().split(9) * 4:
            predictor(part)
        fisher = predictor._importance(context)
        terms = zip(fisher, predictor.weights, predictor._source, strict=True)
        return sum(float((f * (w - s).detach() ** 2).sum()) for f, w, s in terms)

    assert moved(50.0) < moved(0.0)


def test_invalid_settings_are_refused():
    with pytest.raises(UsageError, match="fisher_batch"):
        EataSettings(fisher_batch=0)


def test_what_is_left_open_depends_on_the_number_of_classes() -> None:
    few, many = (EataSettings().resolved(classes) for classes in (10, 1000))
    assert (few.distance, few.alpha, few.lr) == (0.4, 1.0, 5e-3)
    assert (many.distance, many.alpha, many.lr) == (0.05, 2000.0, 2.5e-4)
    assert EataSettings(lr=0.0, distance=0.2, alpha=0.0).resolved(10) == EataSettings(lr=0.0, distance=0.2, alpha=0.0)


def test_with_the_defaults_a_stream_of_few_classes_is_learnt_from() -> None:
    context = make_context(ToyClasses())
    predictor = Eata().fit(context)
    for part in held_out(context.task).inputs.split(16):
        predictor(part)
    assert {name: predictor.detail[name] for name in ("lr", "distance", "alpha")} == {"lr": 5e-3, "distance": 0.4, "alpha": 1.0}
    assert predictor.detail["learnt_from"] > 0
