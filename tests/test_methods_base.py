"""The built-in methods together: registration, and requirements for all of them."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from ocd_bench.errors import NotApplicable
from ocd_bench.method import Method
from ocd_bench.methods import base, bn, eata, lame, memo, sar, t3a, tent
from tests.toy import ToyClasses, ToyValues, held_out, make_context

MODULES = base, bn, tent, memo, t3a, eata, sar, lame
METHODS = [method for module in MODULES for method in module.METHODS if method.name != "base-anew"]  # see test_stored_bases
ids = [method.name for method in METHODS]


def stream(predictor, inputs: torch.Tensor, size: int) -> torch.Tensor:
    """Outputs for a test set in batches, after a reset."""
    if hasattr(predictor, "reset"):
        predictor.reset()
    return torch.cat([predictor(part) for part in inputs.split(size)])


def test_importing_the_package_imports_no_torch():
    code = "import sys, ocd_bench.methods; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_row_is_registered_once_in_table_order():
    from ocd_bench.methods import ocd_bench_register_methods
    from ocd_bench.methods.catalogue import CARDS

    registered: list[Method] = []
    ocd_bench_register_methods(registered.append)
    assert tuple(method.name for method in registered) == tuple(card.name for card in CARDS)
    assert [m.name for m in registered if m.uses_test_labels] == ["oracle", "oracle-all"]
    default = {method.name for method in registered if method.default}
    assert {
        "base",
        "ocd",
        "tent",
        "tent-episodic",
        "tent-norm",
        "tent-layer",
        "bn-adapt",
        "memo",
        "t3a",
        "eata",
        "sar",
    } <= default
    assert not {"ocd-noscale", "ocd-layer2", "ocd-paper"} & default
    assert all(m.description for m in registered)


def test_methods_of_one_section_share_one_settings_class():
    from ocd_bench.methods import builtin

    classes: dict[str, set[type]] = {}
    for method in builtin():
        assert (method.section is None) == (method.Settings is None)
        if method.section:
            classes.setdefault(method.section, set()).add(method.Settings)
    assert all(len(found) == 1 for found in classes.values())


def test_base_returns_the_models_own_output():
    context = make_context(ToyClasses())
    inputs = held_out(context.task).inputs
    assert torch.equal(base.Base().fit(context)(inputs), context.base(inputs))


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_the_base_is_never_changed_and_a_reset_repeats_the_stream(method: Method):
    context = make_context(ToyClasses(), steps=20)
    before = copy.deepcopy(context.base.state_dict())
    inputs = held_out(context.task).inputs[:33]  # two batches of 16 and a last one of a single sample
    predictor = method.fit(context)
    torch.manual_seed(1)
    first = stream(predictor, inputs, 16)
    drawn = torch.rand(1)
    again = stream(predictor, inputs, 16)
    torch.manual_seed(1)
    fresh = stream(method.fit(context), inputs, 16)
    assert first.shape == (33, 3)
    assert torch.isfinite(first).all()
    assert not first.requires_grad
    assert torch.equal(first, again)
    assert torch.equal(first, fresh)
    assert torch.equal(drawn, torch.rand(1)), "the global random stream was used"
    assert not context.base.training
    for name, value in context.base.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(not p.requires_grad and p.grad is None for p in context.base.parameters())


@pytest.mark.parametrize("method", METHODS[1:], ids=ids[1:])
def test_each_method_changes_something(method: Method):
    context = make_context(ToyClasses())
    inputs = held_out(context.task).inputs
    settings = {
        "eata": eata.EataSettings(lr=0.1, distance=2.0),
        "sar": sar.SarSettings(lr=0.1),
        "tent": tent.TentSettings(),
        "memo": memo.MemoSettings(copies=4),
    }
    context = make_context(ToyClasses(), settings=settings)
    output = stream(method.fit(context), inputs, 16)
    assert (output - context.base(inputs)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bn-adapt", "no BatchNorm1d/BatchNorm2d/BatchNorm3d layer in Sequential"),
        ("tent", "no class posterior: task 'toy-values'"),
        ("tent-episodic", "no class posterior"),
        ("tent-norm", "no class posterior"),
        ("tent-layer", "no class posterior.*, and no test_time_loss"),
        ("memo", "no class posterior"),
        ("t3a", "no class posterior"),
        ("eata", "no class posterior"),
        ("sar", "no class posterior"),
        ("lame", "no class posterior"),
    ],
)
def test_no_number_for_a_regression_without_norm_layers(name: str, reason: str):
    method = next(method for method in METHODS if method.name == name)
    with pytest.raises(NotApplicable, match=reason):
        method.fit(make_context(ToyValues(), steps=2))


class Plain(ToyClasses):
    """Classes from a perceptron without norm layers."""

    def base_model(self, splits, request):
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))

    def select_layer(self, model, request):
        return "1"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bn-adapt", "no BatchNorm1d/BatchNorm2d/BatchNorm3d layer in Sequential"),
        ("tent", "^no BatchNorm2d layer in Sequential$"),
        ("tent-episodic", "^no BatchNorm2d layer in Sequential$"),
        ("tent-norm", "LayerNorm/GroupNorm layer in Sequential$"),
        ("eata", "^no BatchNorm2d layer in Sequential$"),
        ("sar", "^no BatchNorm2d/LayerNorm/GroupNorm layer in Sequential$"),
    ],
)
def test_no_number_for_a_classifier_without_the_norm_layer(name: str, reason: str):
    method = next(method for method in METHODS if method.name == name)
    with pytest.raises(NotApplicable, match=reason):
        method.fit(make_context(Plain(), steps=2))


@pytest.mark.parametrize("name", ["tent-layer", "memo", "t3a", "lame"])
def test_methods_that_need_no_norm_layer_run_without(name: str):
    method = next(method for method in METHODS if method.name == name)
    context = make_context(Plain(), steps=10)
    assert stream(method.fit(context), held_out(context.task).inputs, 20).shape == (45, 3)
