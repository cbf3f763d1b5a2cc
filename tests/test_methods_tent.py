"""Tent against formulas and against a plain loop; its variants against their descriptions."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from ocd_bench.errors import NotApplicable, UsageError
from ocd_bench.methods.bn import BnAdapt
from ocd_bench.methods.eata import Eata
from ocd_bench.methods.sar import Sar
from ocd_bench.methods.settings import EataSettings, SarSettings
from ocd_bench.methods.tent import Tent, TentEpisodic, TentLayer, TentNorm, TentSettings
from tests.toy import ToyClasses, ToyValues, held_out, make_context

LR = 0.05


def settings(**values) -> dict[str, TentSettings]:
    return {"tent": TentSettings(**{"lr": LR, "layer_lr": LR, **values})}


def batches(context, size: int = 16, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return list(held_out(context.task).inputs.to(dtype).split(size))


def mean_entropy(logits: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Categorical(logits=logits).entropy().mean()


def plain_loop(model: nn.Module, weights: list[nn.Parameter], parts: list[torch.Tensor], lr: float, steps: int = 1):
    """A direct implementation of the algorithm. It returns the output of the last forward pass."""
    optimizer = torch.optim.Adam(weights, lr=lr)
    outputs = []
    for part in parts:
        for _ in range(steps):
            output = model(part)
            optimizer.zero_grad()
            mean_entropy(output).backward()
            optimizer.step()
        outputs.append(output.detach())
    return outputs


class TinyNet(ToyClasses):
    """Batch norm of two channels, mean over the picture, one linear layer: small enough for formulas."""

    def load_data(self, request):
        splits = super().load_data(request)
        parts = (splits.train, splits.val, splits.test)
        return type(splits)(*((torch.cat([s.inputs, s.inputs.square()], 1), s.targets) for s in parts))

    def base_model(self, splits, request):
        return nn.Sequential(
            OrderedDict(norm=nn.BatchNorm2d(2), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), last=nn.Linear(2, 3))
        )

    def select_layer(self, model, request):
        return "last"


def test_two_batches_by_hand():
    """dH/dl_k = −p_k (log p_k + H); through the linear layer and the spatial mean to γ and β; Adam's first step in full."""
    context = make_context(TinyNet(), settings=settings(), dtype=torch.float64)
    first, second = batches(context, dtype=torch.float64)[:2]
    gamma, beta = (p.detach().numpy().copy() for p in (context.base.norm.weight, context.base.norm.bias))
    matrix, bias = (p.detach().numpy() for p in (context.base.last.weight, context.base.last.bias))

    def pooled(x):  # mean over space of the normalised picture, (N, 2)
        x = x.numpy()
        mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        return ((x - mean) / np.sqrt(variance + 1e-5)).mean((2, 3))

    def forward(m):
        return (gamma * m + beta) @ matrix.T + bias

    m = pooled(first)
    logits = forward(m)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropies = -(p * np.log(p)).sum(1, keepdims=True)
    slope = (-p * (np.log(p) + entropies) / len(p)) @ matrix
    predictor = Tent().fit(context)
    np.testing.assert_allclose(predictor(first).numpy(), logits, rtol=1e-9)
    for value, gradient in ((gamma, (slope * m).sum(0)), (beta, slope.sum(0))):
        first_moment, second_moment = 0.1 * gradient, 0.001 * gradient**2
        value -= LR * (first_moment / (1 - 0.9)) / (np.sqrt(second_moment / (1 - 0.999)) + 1e-8)
    np.testing.assert_allclose(predictor(second).numpy(), forward(pooled(second)), rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 3])
def test_equals_the_plain_loop_over_the_stream(steps: int):
    context = make_context(ToyClasses(), settings=settings(steps=steps))
    parts = batches(context)
    model = copy.deepcopy(context.base).train()
    weights = [model.norm.weight.requires_grad_(), model.norm.bias.requires_grad_()]
    expected = plain_loop(model, weights, parts, LR, steps)
    predictor = Tent().fit(context)
    for part, output in zip(parts, expected, strict=True):
        torch.testing.assert_close(predictor(part), output, rtol=1e-5, atol=1e-6)


def test_default_settings_are_the_published_ones():
    values = TentSettings()
    assert (values.lr, values.betas, values.weight_decay, values.steps) == (1e-3, (0.9, 0.999), 0.0, 1)


def test_only_batch_norm_2d_affine_is_adapted_in_train_mode_without_running_statistics():
    context = make_context(ToyClasses(), settings=settings())
    predictor = Tent().fit(context)
    model = predictor.model.model
    before = copy.deepcopy(model.state_dict())
    for part in batches(context):
        predictor(part)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"norm.weight", "norm.bias"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"norm.weight", "norm.bias"}
    assert all(module.training for module in model.modules())
    assert model.norm.running_mean is None
    assert model.norm.running_var is None
    assert not model.norm.track_running_stats
    assert predictor.detail["adapted_parameters"] == 8


def test_the_first_output_precedes_the_first_update():
    """A property of canonical Tent: on the first batch it is batch norm adaptation, bit for bit."""
    context = make_context(ToyClasses(), settings=settings())
    first, second = batches(context)[:2]
    tent, adapted = Tent().fit(context), BnAdapt().fit(context)
    assert torch.equal(tent(first), adapted(first))
    assert not torch.equal(tent(second), adapted(second))


def test_episodic_forgets_and_is_not_batch_norm_adaptation():
    context = make_context(ToyClasses(), settings=settings())
    first, second = batches(context)[:2]
    predictor, adapted = TentEpisodic().fit(context), BnAdapt().fit(context)
    alone = predictor(second)
    predictor(first)
    assert torch.equal(predictor(second), alone)
    assert not torch.equal(alone, adapted(second))
    model = copy.deepcopy(context.base).train()
    weights = [model.norm.weight.requires_grad_(), model.norm.bias.requires_grad_()]
    (expected,) = plain_loop(model, weights, [second], LR, steps=2)
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-6)
    assert mean_entropy(alone) < mean_entropy(adapted(second))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"episodic_steps": 1}, "episodic_steps=1: expected 2 or more"),
        ({"steps": 0}, "steps"),
        ({"betas": (0.9,)}, "expected 2 values"),
    ],
)
def test_invalid_settings_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        TentSettings(**values)


class WithDropout(ToyClasses):
    def base_model(self, splits, request):
        model = super().base_model(splits, request)
        return nn.Sequential(OrderedDict([*list(model.named_children())[:-1], ("drop", nn.Dropout(0.5)), ("last", model[-1])]))


def test_dropout_is_active_in_tent_and_off_in_tent_norm():
    context = make_context(WithDropout(), settings=settings())
    first = batches(context)[0]
    adapted = BnAdapt().fit(context)(first)
    tent = Tent().fit(context)
    noisy = tent(first)
    assert not torch.allclose(noisy, adapted)
    tent.reset()
    torch.manual_seed(99)
    assert torch.equal(tent(first), noisy), "the draw belongs to the batch, not to the global stream"
    assert torch.equal(TentNorm().fit(context)(first), adapted)


@pytest.mark.parametrize(("method", "kind"), [(Tent, TentSettings), (Eata, EataSettings), (Sar, SarSettings)])
def test_without_dropout_the_whole_stream_is_that_of_the_network_with_a_share_of_zero(method, kind):
    def stream(dropout: bool, share: float = 0.5) -> list[torch.Tensor]:
        context = make_context(WithDropout(), settings={kind.section: kind(lr=LR, dropout=dropout)})
        context.base.drop.p = share
        predictor = method().fit(context)
        return [predictor(part) for part in batches(context)]

    plain = stream(dropout=True, share=0.0)
    assert all(map(torch.equal, stream(dropout=False), plain))
    assert not any(map(torch.equal, stream(dropout=True), plain))
    unadapted = BnAdapt().fit(context := make_context(WithDropout()))
    assert not torch.equal(plain[-1], unadapted(batches(context)[-1])), "nothing was adapted"


class Mixed(ToyClasses):
    """Every kind of norm layer; batch norm 1d sees one value per channel."""

    def base_model(self, splits, request):
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(1, 4, 3), n2=nn.BatchNorm2d(4), group=nn.GroupNorm(2, 4), flat=nn.Flatten(),
                hidden=nn.Linear(64, 6), n1=nn.BatchNorm1d(6), relu=nn.ReLU(), layer=nn.LayerNorm(6),
                bare=nn.LayerNorm(6, elementwise_affine=False),
                last=nn.Linear(6, 3),
            )
        )  # fmt: skip


def test_tent_norm_adapts_every_kind_of_norm_layer():
    context = make_context(Mixed(), settings=settings())
    predictor = TentNorm().fit(context)
    model = predictor.model.model
    expected = {f"{layer}.{part}" for layer in ("n2", "group", "n1", "layer") for part in ("weight", "bias")}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected
    assert not any(module.training for module in model.modules())
    parts = batches(context)[:2]
    reference = copy.deepcopy(context.base)
    for norm in (reference.n2, reference.n1):
        norm.train()
    weights = [p.requires_grad_() for name, p in reference.named_parameters() if name in expected]
    for part, output in zip(parts, plain_loop(reference, weights, parts, LR), strict=True):
        torch.testing.assert_close(predictor(part), output, rtol=1e-4, atol=1e-5)


def test_running_statistics_that_tent_leaves_to_batch_norm_1d_are_restored():
    context = make_context(Mixed(), settings=settings())
    predictor = Tent().fit(context)
    mean = predictor.model.model.n1.running_mean.clone()
    predictor(batches(context)[0])
    assert not torch.equal(predictor.model.model.n1.running_mean, mean)
    predictor.reset()
    assert torch.equal(predictor.model.model.n1.running_mean, mean)


@pytest.mark.parametrize("method", [Tent(), TentNorm(), BnAdapt()], ids=lambda method: method.name)
def test_a_lone_last_sample_is_run_with_the_one_before_it(method):
    context = make_context(Mixed(), settings=settings())
    inputs = held_out(context.task).inputs
    predictor = method.fit(context)
    predictor(inputs[:8])
    alone = predictor(inputs[8:9])
    assert alone.shape == (1, 3)
    other = method.fit(context)
    other(inputs[:8])
    if method.name == "bn-adapt":
        assert torch.equal(alone, other(inputs[7:9])[1:])
    predictor.reset()
    with pytest.raises(NotApplicable, match="single sample"):
        predictor(inputs[8:9])


def test_tent_layer_adapts_the_weight_of_the_chosen_layer_only():
    context = make_context(ToyClasses(), settings=settings())
    parts = batches(context)
    predictor = TentLayer().fit(context)
    model = copy.deepcopy(context.base)
    expected = plain_loop(model, [model.hidden.weight.requires_grad_()], parts, LR)
    for part, output in zip(parts, expected, strict=True):
        torch.testing.assert_close(predictor(part), output, rtol=1e-5, atol=1e-6)
    base = context.base.state_dict()
    changed = {name for name, value in predictor.model.model.state_dict().items() if not torch.equal(value, base[name])}
    assert changed == {"hidden.weight"}


class Smooth(ToyValues):
    """A regression with an unsupervised loss."""

    def test_time_loss(self, output, inputs):
        return (output - inputs.mean(1, keepdim=True)).square().flatten(1).mean(1)


def test_tent_layer_takes_the_test_time_loss_where_there_is_no_posterior():
    context = make_context(Smooth(), settings=settings())
    parts = batches(context)
    model = copy.deepcopy(context.base)
    optimizer = torch.optim.Adam([model.first.weight.requires_grad_()], lr=LR)
    predictor = TentLayer().fit(context)
    for part in parts:
        output = model(part)
        optimizer.zero_grad()
        (output - part.mean(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        torch.testing.assert_close(predictor(part), output.detach(), rtol=1e-5, atol=1e-6)


def test_one_logit_has_no_posterior():
    class OneLogit(ToyValues):
        def logits(self, output):
            return output

    with pytest.raises(NotApplicable, match="one logit"):
        Tent().fit(make_context(OneLogit(), settings=settings(), steps=1))


def test_runs_inside_no_grad():
    context = make_context(ToyClasses(), settings=settings())
    part = batches(context)[0]
    free, inside = Tent().fit(context), Tent().fit(context)
    with torch.no_grad():
        outputs = inside(part), inside(part)
    assert torch.equal(outputs[0], free(part))
    assert torch.equal(outputs[1], free(part))
