"""The condition: its features, their units, and that it is a sum of linear maps of its parts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ocd_bench.engine.capture import Describe, TargetLayer, flat, pool
from ocd_bench.engine.condition import Condition, Standardise
from ocd_bench.engine.hypernetwork import time_embedding


def test_time_embedding_is_that_of_the_transformer():
    found = time_embedding(torch.tensor([0, 3, 999]), 6)
    rates = [10_000 ** (-k / 3) for k in range(3)]
    expected = [[f(t * rate) for f in (math.sin, math.cos) for rate in rates] for t in (0, 3, 999)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_features_of_a_layer_with_one_position_are_its_own_input_and_output():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Softmax(-1))
    x = torch.randn(6, 4)
    found = Describe()(TargetLayer(model, "2").trace(x))
    assert set(found) == {"input", "activation", "output"}
    hidden = model[:2](x)
    torch.testing.assert_close(found["input"], hidden)
    torch.testing.assert_close(found["activation"], model[2](hidden))
    torch.testing.assert_close(found["output"], model(x))


def test_several_positions_are_pooled_to_mean_and_deviation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.Flatten(), nn.Linear(80, 3))
    x = torch.randn(6, 2, 4, 4)
    found = Describe(output=lambda output: output.argmax(-1, keepdim=True))(TargetLayer(model, "0").trace(x))
    patches = nn.functional.unfold(x, 3, padding=1)  # (N, I, P)
    torch.testing.assert_close(found["input"], torch.cat([patches.mean(2), patches.std(2, correction=0)], 1))
    response = model[0](x).flatten(2)
    torch.testing.assert_close(found["activation"], torch.cat([response.mean(2), response.std(2, correction=0)], 1))
    assert torch.equal(found["output"], model(x).argmax(-1, keepdim=True).float())
    # The size of the features does not depend on the size of a sample.
    rows = torch.randn(3, 9, 7)
    assert pool(rows).shape == pool(rows[:, :4]).shape == (3, 14)


def test_fixed_features_of_the_sample_are_added():
    model = nn.Sequential(nn.Linear(4, 3))
    x = torch.randn(5, 4)
    found = Describe(fixed=lambda inputs: inputs[:, :2].unsqueeze(2))(TargetLayer(model, "0").trace(x))
    assert torch.equal(found["sample"], x[:, :2])


def test_standardised_by_training_statistics_which_are_saved():
    values = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 20.0, 5.0]) + 7
    standard = Standardise(3)
    standard.calibrate(values)
    found = standard(values)
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, 1:].std(0, correction=0), torch.ones(2))
    again = Standardise(3)
    again.load_state_dict(standard.state_dict())
    assert torch.equal(again(values), found)


def test_a_feature_that_was_constant_in_training_stays_bounded():
    values = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    values[:, 0] = 4.0
    standard = Standardise(2)
    standard.calibrate(values)
    assert float(standard(torch.tensor([[4.0, 0.0]]))[0, 0]) == 0
    assert float(standard(torch.tensor([[4.1, 0.0]]))[0, 0]) < 2
    assert float(standard(torch.tensor([[-1e9, 0.0]]))[0, 0]) == -10
    nothing = Standardise(2)
    nothing.calibrate(torch.ones(5, 2))
    assert torch.equal(nothing(torch.ones(1, 2)), torch.zeros(1, 2))


def make(encoder: nn.Module | None = None) -> tuple[Condition, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    values = {"input": torch.randn(20, 4) * 3 + 1, "output": torch.randn(20, 2)}
    condition = Condition({name: value.shape[1] for name, value in values.items()}, 8, encoder, 6)
    condition.calibrate(values)
    return condition, values


def test_the_condition_is_the_sum_of_one_linear_map_per_feature():
    condition, values = make()
    expected = sum(
        (value - value.mean(0)) / value.std(0, correction=0) @ condition.linear[name].weight.T + condition.linear[name].bias
        for name, value in values.items()
    )
    torch.testing.assert_close(condition(values), expected)


def test_an_encoder_of_the_sample_adds_a_fourth_term_and_is_trained():
    encoder = nn.Sequential(nn.Linear(3, 6), nn.Unflatten(1, (2, 3)))
    condition, values = make(encoder)
    plain = Condition({"input": 4, "output": 2}, 8)
    plain.load_state_dict({k: v for k, v in condition.state_dict().items() if not k.startswith(("encode", "contrast"))})
    x = torch.randn(20, 3)
    found = condition(values, x)
    torch.testing.assert_close(found, plain(values) + condition.encoded(flat(encoder(x))))
    found.sum().backward()
    assert encoder[0].weight.grad is not None


def test_the_output_of_an_untrained_encoder_is_standardised():
    encoder = nn.Linear(3, 6)
    nn.init.constant_(encoder.bias, 50.0)  # nearly the same for all samples
    x = torch.randn(40, 3)
    condition = Condition({}, 8, encoder, 6)
    condition.calibrate({}, x)
    said = encoder(x)
    expected = condition.encoded((said - said.mean(0)) / said.std(0, correction=0))
    torch.testing.assert_close(condition({}, x), expected, rtol=1e-3, atol=1e-3)
    assert encoder.training


def test_features_of_another_size_are_refused_with_their_name():
    condition, values = make()
    with pytest.raises(ValueError, match=r"feature 'output' has \(5,\) numbers per sample, in training it had \(2,\)"):
        condition({**values, "output": torch.zeros(20, 5)})


def test_dropout_is_for_training_only():
    condition = Condition({"a": 3}, 64, dropout=0.5)
    value = {"a": torch.ones(2, 3)}
    trained, used = condition.train()(value), condition.eval()(value)
    assert 0 < int((trained == 0).sum()) < trained.numel()
    assert bool((used != 0).all())
