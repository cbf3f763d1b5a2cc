"""T3A against a loop over classes, with everything kept in plain lists."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ocd_bench.errors import NotApplicable, UsageError
from ocd_bench.methods.t3a import T3a, T3aSettings, lowest_per_class
from tests.toy import ToyClasses, held_out, make_context


def t3a_loop(base: nn.Module, parts: list[torch.Tensor], keep: int) -> torch.Tensor:
    """Supports as lists of (entropy, unit feature) per class."""

    def entropy_of(logits):
        return float(torch.distributions.Categorical(logits=logits).entropy())

    def unit(z):
        return z / z.norm()

    weight = base.classifier.weight
    supports = [[(entropy_of(base.classifier(row)), unit(row))] for row in weight]
    outputs = []
    for part in parts:
        features = base[:-1](part)
        for z in features:
            logits = base.classifier(z)
            supports[int(logits.argmax())].append((entropy_of(logits), unit(z)))
        if keep:
            supports = [sorted(members, key=lambda item: item[0])[:keep] for members in supports]
        prototypes = torch.stack([unit(torch.stack([z for _, z in members]).sum(0)) for members in supports])
        outputs.append(features @ prototypes.T)
    return torch.cat(outputs)


@pytest.mark.parametrize("keep", [1, 4, 0])
def test_equals_the_loop_over_the_stream(keep: int):
    context = make_context(ToyClasses(), settings={"t3a": T3aSettings(filter=keep)}, dtype=torch.float64)
    parts = list(held_out(context.task).inputs.double().split(16))
    predictor = T3a().fit(context)
    output = torch.cat([predictor(part) for part in parts])
    torch.testing.assert_close(output, t3a_loop(context.base, parts, keep))
    assert len(predictor._supports) <= (3 * keep if keep else 3 + 45)


def test_single_samples_are_enough():
    context = make_context(ToyClasses(), dtype=torch.float64)
    inputs = held_out(context.task).inputs[:10].double()
    predictor = T3a().fit(context)
    output = torch.cat([predictor(row[None]) for row in inputs])
    torch.testing.assert_close(output, t3a_loop(context.base, [row[None] for row in inputs], 100))


def test_lowest_per_class():
    entropies = torch.tensor([0.5, 0.1, 0.3, 0.2, 0.1, 0.9])
    labels = torch.tensor([0, 0, 0, 1, 0, 2])
    assert lowest_per_class(entropies, labels, 4, 2).tolist() == [1, 3, 4, 5]
    assert lowest_per_class(entropies, labels, 4, 1).tolist() == [1, 3, 5]
    assert lowest_per_class(entropies, labels, 4, 9).tolist() == [0, 1, 2, 3, 4, 5]


def refuse(task, match: str):
    with pytest.raises(NotApplicable, match=match):
        T3a().fit(make_context(task, steps=1, layer="0"))


def test_logits_that_no_linear_layer_gives_are_refused():
    class Convolutional(ToyClasses):
        def base_model(self, splits, request):
            return nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    refuse(Convolutional(), "do not come from a Linear layer")

    class Rescaled(ToyClasses):
        def base_model(self, splits, request):
            return nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.LogSoftmax(1))

    refuse(Rescaled(), "do not come from a Linear layer")


def test_outputs_that_are_not_the_logits_themselves_are_refused():
    class Probabilities(ToyClasses):
        def base_model(self, splits, request):
            return nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Softmax(1))

        def logits(self, output):
            return output.log()

    refuse(Probabilities(), "are not plain class logits")


def test_the_last_linear_layer_need_not_be_the_last_module():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 3)
            self.body = nn.Linear(36, 8)

        def forward(self, x):
            return self.head(torch.tanh(self.body(x.flatten(1))))

    class Odd(ToyClasses):
        def base_model(self, splits, request):
            return Inner()

        def select_layer(self, model, request):
            return "body"

    predictor = T3a().fit(make_context(Odd(), steps=1))
    assert predictor._classifier.layer.in_features == 8


def test_invalid_settings_are_refused():
    with pytest.raises(UsageError, match="filter"):
        T3aSettings(filter=-1)


def test_a_start_support_belongs_to_the_class_that_the_layer_gives_it() -> None:
    """As in the authors' code: with a large bias every weight vector is classified as that class."""
    context = make_context(ToyClasses())
    with torch.no_grad():
        context.base.classifier.bias[1] += 100
    try:
        predictor = T3a().fit(context)
        assert predictor._labels.tolist() == [1, 1, 1]
    finally:
        with torch.no_grad():
            context.base.classifier.bias[1] -= 100
