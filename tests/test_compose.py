"""``A+B``: the second method on the model that the first adapts, against independent computations."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ocd_bench import Predictor
from ocd_bench.cli import main
from ocd_bench.compose import Composed, Composite, Leader, led
from ocd_bench.engine.capture import TargetLayer
from ocd_bench.method import Context, Method
from ocd_bench.methods import builtin
from ocd_bench.plugin.manager import Manager, load_plugins
from ocd_bench.runner.fingerprints import object_print
from ocd_bench.samples import Samples
from ocd_bench.testing.toy import BATCH, ToyClasses, toy_context

SMALL = {"ocd.steps": 2, "ocd.batch_size": 16, "ocd.width": 16, "ocd.depth": 1, "ocd.evaluations": 1, "ocd.gains": "1"}
LEADERS = [method.name for method in builtin() if method.leads]


@pytest.fixture(scope="module")
def manager() -> Manager:
    return load_plugins(only=())


def fitted(method: Method, **overrides: Any) -> tuple[Any, Context, Samples]:
    learns = "ocd" in (method.section, *method.reads)
    context, test = toy_context(ToyClasses(), method, {**(SMALL if learns else {}), **overrides})
    return method.fit(context), context, test


def predict(predictor: Any, inputs: torch.Tensor) -> torch.Tensor:
    if hasattr(predictor, "reset"):
        predictor.reset()
    return torch.cat([predictor(batch.clone()) for batch in inputs.split(BATCH)])


# -- what the second method sees at test time -------------------------------------------------------------------------------
@pytest.mark.parametrize("first", LEADERS)
def test_with_base_as_the_second_it_is_the_first_bit_for_bit(manager: Manager, first: str) -> None:
    """Online learning goes on from batch to batch, and begins anew at a reset. The last batch has one sample."""
    both, _, test = fitted(manager.method(f"{first}+base"))
    alone, context, _ = fitted(manager.method(first))
    expected = predict(alone, test.inputs)
    assert predict(both, test.inputs).equal(expected)
    assert predict(both, test.inputs).equal(expected)
    assert not expected.equal(context.base(test.inputs))


def fixed(base: nn.Module, batch: torch.Tensor) -> nn.Module:
    """The base with the mean and variance of one batch in its norm layer, by their formulas."""
    model = copy.deepcopy(base)
    channels = model.conv(batch).movedim(1, 0).flatten(1)  # (C, N * H * W)
    mean = channels.sum(1) / channels.shape[1]
    model.norm.running_mean.copy_(mean)
    model.norm.running_var.copy_((channels - mean[:, None]).square().sum(1) / channels.shape[1])
    return model


def test_bn_adapt_and_ocd_are_a_naive_loop_over_samples(manager: Manager) -> None:
    both, context, test = fitted(manager.method("bn-adapt+ocd"), **{"ocd.gains": "100"})
    fit = both.follower.fitted
    expected = []
    with torch.no_grad():
        for batch in test.inputs.split(BATCH):
            model = fixed(context.base, batch)
            layer = TargetLayer(model, context.layer)
            alone = dataclasses.replace(fit, problem=dataclasses.replace(fit.problem, layer=layer))
            for sample in batch.split(1):
                (delta,) = alone.draw(layer.trace(sample), start=len(expected))
                own = copy.deepcopy(model)
                own.get_submodule(context.layer).weight += 100 * delta.matrix()[0]
                expected.append(own(sample))
    found = predict(both, test.inputs)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-5)
    assert (found - predict(both.leader.predictor, test.inputs)).abs().max() > 1e-2  # the weights did change


# -- what it is fitted on ---------------------------------------------------------------------------------------------------
def test_in_the_fit_samples_come_in_batches_of_the_size_of_a_test_batch(manager: Manager) -> None:
    context, _ = toy_context(ToyClasses(), manager.method("tent"))
    model = Leader(manager.method("tent"), context).model
    inputs = context.train.inputs
    with torch.no_grad():
        expected = torch.cat([fixed(context.base, batch)(batch) for batch in inputs[: 2 * BATCH].split(BATCH)])
        torch.testing.assert_close(model(inputs[: 2 * BATCH]), expected, rtol=1e-4, atol=1e-5)
        # A few samples are completed: their statistics are neither their own nor those of training.
        few = inputs[:3]
        found = model(few)
        assert found.equal(model(few.clone()))
        assert (found - fixed(context.base, few)(few)).abs().max() > 1e-2
        assert (found - context.base(few)).abs().max() > 1e-2


def test_the_engine_keeps_the_state_of_each_trace(manager: Manager) -> None:
    """A trace is replayed after others have been made: it must have the statistics of its own batch."""
    context, _ = toy_context(ToyClasses(), manager.method("bn-adapt"))
    leader = Leader(manager.method("bn-adapt"), context)
    layer = TargetLayer(leader.model, "conv")  # its change passes through the norm layer
    first, second = layer.traces(context.train.inputs[: 2 * BATCH])
    shift = torch.ones_like(first.response)
    expected = fixed(context.base, first.inputs)
    with torch.no_grad():
        expected.conv.bias += 1
        torch.testing.assert_close(first.replay(shift), expected(first.inputs), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(second.replay(0 * shift), second.output)


def test_the_first_method_runs_once_for_all_samples_that_a_training_step_traces(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take a whole batch for each of them, one after the other."""
    sizes: list[int] = []
    original = Leader._state_for
    monkeypatch.setattr(Leader, "_state_for", lambda self, inputs: sizes.append(len(inputs)) or original(self, inputs))
    fitted(manager.method("bn-adapt+ocd"), **{"ocd.steps": 6, "ocd.passes": 1, "ocd.task_batch": 3, "ocd.batch_size": 5})
    small = [size for size in sizes if size < BATCH]
    assert small[-11:] == [3] * 11  # six training steps, and 24 validation samples five at a time, of which three are traced


def test_numbers_do_not_depend_on_other_methods(manager: Manager) -> None:
    """Methods with the same first part share its predictor, and methods with the same second part none of their fits."""
    context, test = toy_context(ToyClasses(), manager.method("bn-adapt+ocd"), SMALL)
    for other in ("ocd", "bn-adapt+ocd-x5"):
        predict(manager.method(other).fit(context), test.inputs)
    after = predict(manager.method("bn-adapt+ocd").fit(context), test.inputs)
    alone, _, _ = fitted(manager.method("bn-adapt+ocd"))
    assert after.equal(predict(alone, test.inputs))
    plain, _, _ = fitted(manager.method("ocd"))
    assert not after.equal(predict(plain, test.inputs))


class Shifted(Method):
    """Moves the last layer's bias by the batch's mean output: a change of another layer than a norm layer."""

    name, leads = "shifted", True

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def fit(self, context: Context) -> Predictor:
        factor = self.factor

        class Shift(Predictor):
            model = context.fresh_base()

            def hand_over(self) -> nn.Module:
                return self.model

            def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
                with torch.no_grad():
                    self.model.classifier.bias.copy_(context.base.classifier.bias - factor * context.base(inputs).mean(0))
                    return self.model(inputs)

        return Shift()


def test_a_first_method_of_a_third_party_may_change_any_weight(manager: Manager) -> None:
    both, context, test = fitted(Composite(Shifted(), manager.method("ocd")), **{"ocd.gains": "0"})
    batches = test.inputs.split(BATCH)
    with torch.no_grad():
        expected = torch.cat([context.base(batch) - context.base(batch).mean(0) for batch in batches])
    torch.testing.assert_close(predict(both, test.inputs), expected, rtol=1e-4, atol=1e-5)


def test_a_method_that_copies_the_base_is_refused(manager: Manager) -> None:
    both, _, test = fitted(manager.method("bn-adapt+base"))
    context, _ = toy_context(ToyClasses(), manager.method("tent"))
    leader = Leader(manager.method("bn-adapt"), context)
    with pytest.raises(Exception, match="the second needs a copy"):
        manager.method("tent").fit(led(context, "bn-adapt", leader.model, {}))
    assert isinstance(both, Composed)
    assert len(test)


# -- names, settings, fingerprints ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tnet+ocd", "unknown method 'tnet' (did you mean 'tent'?)"),
        ("tent+odc", "unknown method 'odc' (did you mean 'ocd'?)"),
        ("memo+ocd", "'memo' cannot be the first of two; these can: finetune, base-longer, bn-adapt, tent, "),
        ("bn-adapt+tent", "'tent' cannot be the second of two; these can: base, ocd, "),
        ("tent+ocd+ocd", "expected two methods, A+B, such as tent+ocd"),
        ("tent+", "expected two methods"),
        ("tent + oracle", "'oracle' cannot be the second of two"),
    ],
)
def test_refusals(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--task", "images", "--methods", f"base,{name}", "--preset", "quick"]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_its_settings_and_its_choices_are_those_of_both(manager: Manager) -> None:
    both = manager.method("tent+ocd")
    assert (both.reads, both.chosen, both.default) == (("tent", "ocd"), "validation", False)
    assert manager.method("tent+base").chosen == "fixed"


def test_its_fingerprint_covers_both_parts(manager: Manager) -> None:
    ocd = manager.method("ocd")
    prints = {
        object_print(method)[0]
        for method in (
            Composite(Shifted(), ocd),
            Composite(Shifted(0.5), ocd),
            Composite(Shifted(), manager.method("capacity")),
            manager.method("tent+ocd"),
        )
    }
    assert len(prints) == 4


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    plugin = tmp_path / "toys.py"
    plugin.write_text(
        "import ocd_bench\nfrom ocd_bench.testing.toy import ToyClasses, ToyValues\n"
        "@ocd_bench.hookimpl\ndef ocd_bench_register_tasks(register):\n    register(ToyClasses())\n    register(ToyValues())\n"
    )
    words = ["run", "--plugin", str(plugin), "--task", "toy-classes,toy-values", "--preset", "quick", "--quiet"]
    words += ["--methods", "base,bn-adapt,bn-adapt+base,bn-adapt+ocd", "--set", "ocd.steps=5", "--out", str(tmp_path / "run")]
    assert main([*words, "--json"]) == 0
    cells = {(c["task"], c["method"]): c for c in json.loads(capsys.readouterr().out)["cells"]}
    assert cells["toy-values", "bn-adapt+ocd"]["status"] == "not-applicable"
    assert "BatchNorm" in cells["toy-values", "bn-adapt+ocd"]["reason"]
    values = {name: cells["toy-classes", name]["metrics"]["cross_entropy"]["value"] for name in ("bn-adapt", "bn-adapt+base")}
    assert values["bn-adapt"] == values["bn-adapt+base"]
    assert cells["toy-classes", "bn-adapt+ocd"]["status"] == "ok"
    assert "gain" in cells["toy-classes", "bn-adapt+ocd"]["detail"]
    chosen = {method: (cell["chosen"], cell["set_by_user"]) for (task, method), cell in cells.items() if task == "toy-classes"}
    assert chosen["bn-adapt+ocd"] == ("validation", ["ocd.steps"])
    assert chosen["base"] == chosen["bn-adapt"] == chosen["bn-adapt+base"] == ("fixed", [])
    assert main(["report", str(tmp_path / "run"), "--format", "csv"]) == 0
    (line, *_) = [line for line in capsys.readouterr().out.splitlines() if ",bn-adapt+ocd,ok" in line]
    assert "validation; set by user: ocd.steps" in line
    assert json.loads((tmp_path / "run" / "run.json").read_text())["tasks"]["toy-classes"]["config"]["ocd"]["steps"] == 5
    assert main(words) == 0  # every cell is there already
    assert "bn-adapt+ocd" in capsys.readouterr().out


def test_the_page_of_methods_says_which_can_be_first_and_second():
    page = Path(__file__).parents[1].joinpath("docs/methods.md").read_text()
    section = page.partition("## Methods that build on one another")[2]
    first, second = (re.findall("`([a-z0-9-]+)`", re.search(rf"^- {place}: (.*)", section, re.M)[1]) for place in "AB")
    assert first == LEADERS
    rows = re.findall(r"^\| `(ocd[a-z0-9-]*)` \|", page, re.M)
    assert sorted({*second, *rows} - {"ocd-norms"}) == sorted(method.name for method in builtin() if method.follows)
