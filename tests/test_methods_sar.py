"""SAR against its two-step update, implemented with autograd on a copy of the model."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict

import pytest
import torch
from torch import nn

from ocd_bench.errors import UsageError
from ocd_bench.methods.bn import BnAdapt
from ocd_bench.methods.sar import Sar, SarSettings
from tests.toy import ToyClasses, held_out, make_context


def entropies_of(logits: torch.Tensor) -> torch.Tensor:
    p = logits.softmax(1)
    return -(p * p.log()).sum(1)


def reference(context, parts: list[torch.Tensor], settings: SarSettings) -> tuple[list[torch.Tensor], int]:
    """Outputs and number of recoveries, momentum buffers kept by hand."""
    model = copy.deepcopy(context.base).train()
    weights = [model.norm.weight.requires_grad_(), model.norm.bias.requires_grad_()]
    start = [w.detach().clone() for w in weights]
    velocity: list[torch.Tensor] | None = None
    e0, average, recoveries, outputs = settings.margin * math.log(3), None, 0, []
    for part in parts:
        output = model(part)
        outputs.append(output.detach())
        h = entropies_of(output)
        mask = h < e0
        if not mask.any():
            continue
        slopes = torch.autograd.grad(h[mask].mean(), weights)
        length = math.sqrt(sum(float((s**2).sum()) for s in slopes))
        moved = [(w + settings.rho * s / length).detach().requires_grad_() for w, s in zip(weights, slopes, strict=True)]
        climbed = torch.func.functional_call(model, {"norm.weight": moved[0], "norm.bias": moved[1]}, (part,))
        h = entropies_of(climbed)[mask]
        h = h[h < e0]
        if not len(h):
            continue
        slopes = torch.autograd.grad(h.mean(), moved)
        velocity = [settings.momentum * v + s for v, s in zip(velocity or [0.0] * 2, slopes, strict=True)]
        with torch.no_grad():
            for w, v in zip(weights, velocity, strict=True):
                w -= settings.lr * v
        now = float(h.detach().mean())
        average = now if average is None else 0.9 * average + 0.1 * now
        if average < settings.recover:
            recoveries, average, velocity = recoveries + 1, None, None
            with torch.no_grad():
                for w, s in zip(weights, start, strict=True):
                    w.copy_(s)
    return outputs, recoveries


@pytest.mark.parametrize(
    ("settings", "recovers"),
    [(SarSettings(lr=0.1, margin=0.6, recover=0.0), False), (SarSettings(lr=0.5, margin=0.8, rho=0.3, recover=0.4), True)],
)
def test_equals_the_equations_over_the_stream(settings: SarSettings, recovers: bool):
    context = make_context(ToyClasses(), settings={"sar": settings}, dtype=torch.float64)
    parts = list(held_out(context.task).inputs.double().split(9)) * 3
    outputs, recoveries = reference(context, parts, settings)
    predictor = Sar().fit(context)
    for part, output in zip(parts, outputs, strict=True):
        torch.testing.assert_close(predictor(part), output, rtol=1e-8, atol=1e-8)
    assert predictor.detail["recoveries"] == recoveries
    assert (recoveries > 0) == recovers


def test_the_perturbation_of_the_weights_is_undone():
    """With a learning rate of zero, the weights must be unchanged after the sharpness-aware step."""
    context = make_context(ToyClasses(), settings={"sar": SarSettings(lr=0.0, margin=1.0)})
    predictor = Sar().fit(context)
    before = copy.deepcopy(predictor.model.model.state_dict())
    predictor(held_out(context.task).inputs)
    assert all(torch.equal(value, before[name]) for name, value in predictor.model.model.state_dict().items())


def test_without_reliable_samples_there_is_no_update():
    context = make_context(ToyClasses(), settings={"sar": SarSettings(lr=1.0, margin=0.0)})
    predictor, adapted = Sar().fit(context), BnAdapt().fit(context)
    for part in held_out(context.task).inputs.split(16):
        assert torch.equal(predictor(part), adapted(part))


class Deep(ToyClasses):
    """Four norm layers of three kinds."""

    def base_model(self, splits, request):
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(1, 4, 3), a=nn.BatchNorm2d(4), b=nn.GroupNorm(2, 4), flat=nn.Flatten(), c=nn.LayerNorm(64),
                hidden=nn.Linear(64, 6), d=nn.LayerNorm(6), last=nn.Linear(6, 3),
            )
        )  # fmt: skip


@pytest.mark.parametrize(("share", "layers"), [(0.75, "abc"), (1.0, "abcd"), (0.1, "a")])
def test_the_top_norm_layers_are_left_out(share: float, layers: str):
    context = make_context(Deep(), settings={"sar": SarSettings(share=share)}, steps=5)
    model = Sar().fit(context).model.model
    assert {name[0] for name, p in model.named_parameters() if p.requires_grad} == set(layers)


def test_invalid_settings_are_refused():
    with pytest.raises(UsageError, match=r"sar\.share"):
        SarSettings(share=0.0)


def test_the_rate_depends_on_classes_and_on_norm_layers() -> None:
    assert SarSettings().resolved(10, False).lr == 5e-3
    assert SarSettings().resolved(1000, False).lr == 2.5e-4
    assert SarSettings().resolved(10, True).lr == 1e-3
    assert SarSettings().resolved(1000, False).recover == pytest.approx(0.2)
    assert SarSettings().resolved(10, False).recover == pytest.approx(0.2 / 3)
    assert SarSettings(lr=0.0).resolved(10, False).lr == 0.0
    assert Sar().fit(make_context(ToyClasses())).detail["lr"] == 5e-3
