"""The conformance kit: valid tasks and methods pass, and each kind of fault is found by the check of its name."""

import dataclasses
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

import pytest
import torch
from torch import nn

from ocd_bench import DataMissing, Dataset, Metric, NotApplicable, Predictor, Samples, Splits, Task
from ocd_bench.method import Method
from ocd_bench.methods import builtin
from ocd_bench.methods.catalogue import CARDS
from ocd_bench.testing import CheckResult, MethodConformance, TaskConformance, assert_conforms, check_method, check_task
from ocd_bench.testing.method_checks import METHOD_CHECKS
from ocd_bench.testing.task_checks import TASK_CHECKS
from ocd_bench.testing.toy import ToyClasses, ToyValues, toy_context


class TestClasses(TaskConformance):
    task = ToyClasses()


class TestValues(TaskConformance):
    task = ToyValues()


class Mean(Predictor):
    """The base's output and its mean over the training set, half and half."""

    def __init__(self, context: Any) -> None:
        self.base, self.mean = context.base, context.base(context.train.inputs).mean(0)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return (self.base(inputs) + self.mean) / 2


class Shrink(Method):
    name = "shrink"

    def fit(self, context: Any) -> Any:
        return Mean(context)


class TestShrink(MethodConformance):
    method = Shrink()


def test_there_is_one_pytest_test_for_each_check() -> None:
    for kind, checks in ((TaskConformance, TASK_CHECKS), (MethodConformance, METHOD_CHECKS)):
        names = {name.removeprefix("test_") for name in dir(kind) if name.startswith("test_")}
        assert names == {name.replace("-", "_") for name in checks}


def failures(results: list[CheckResult]) -> dict[str, str]:
    return {result.check: result.message for result in results if result.status == "failed"}


# -- tasks --------------------------------------------------------------------------------------------------------------
def splits_with(change: Callable[[Splits], Splits]) -> dict[str, Any]:
    return {"load_data": lambda self, request: change(ToyValues.load_data(self, request))}


def leak(splits: Splits, count: int) -> Splits:
    inputs = splits.test.inputs.clone()
    inputs[:count] = splits.train.inputs[:count]
    return dataclasses.replace(splits, test=Samples(inputs, splits.test.targets, splits.test.groups))


class Mixing(nn.Sequential):
    """Subtracts the mean of the batch, so row j depends on the others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x - x.mean(0))


class Writing(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.mul_(2))


class Noisy(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + torch.randn_like(x))


class Squeezing(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).squeeze(0)


class Hidden(nn.Sequential):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.offset = torch.zeros(1)


class Stateful(nn.Sequential):
    """Its output depends on a number that is not in the state dict."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.offset = torch.randn(1).item()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.offset


def model(kind: type[nn.Sequential], *layers: Callable[[], nn.Module]) -> dict[str, Any]:
    layers = layers or (lambda: nn.Linear(4, 8), nn.Tanh, lambda: nn.Linear(8, 1))
    return {
        "base_model": lambda self, splits, request: kind(*(layer() for layer in layers)),
        "select_layer": lambda self, model, request: None,
    }


def error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean(1)


class Counting(nn.Linear):
    """Its initial weights come from a counter, not from torch's generator."""

    made = 0

    def __init__(self) -> None:
        super().__init__(4, 1)
        Counting.made += 1
        nn.init.constant_(self.weight, Counting.made)


TASK_FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no datasets": ("declaration", {"datasets": lambda self: ()}, "datasets() is empty"),
    "dataset name": ("declaration", {"datasets": lambda self: (Dataset("a/b", embedded=True),)}, "dataset 'a/b'"),
    "unknown setting in presets": ("declaration", {"presets": {"quick": {"base.epoch": 1}}}, "did you mean 'epochs'"),
    "name": ("declaration", {"name": "Toy"}, "its name is 'Toy'"),
    "requires": ("requires", {"requires": ("no_such_module",)}, "unavailable: pip install no_such_module"),
    "raises": ("load_data", {"load_data": lambda self, request: 1 / 0}, "raised ZeroDivisionError: division by zero (test_"),
    "tuple of splits": ("load_data", {"load_data": lambda self, request: (1, 2, 3)}, "return ocd_bench.Splits"),
    "nan": ("load_data", splits_with(lambda s: dataclasses.replace(s, val=Samples(s.val.inputs / 0, s.val.targets))), "finite"),
    "dtype": (
        "load_data",
        splits_with(lambda s: dataclasses.replace(s, test=Samples(s.test.inputs.double(), s.test.targets))),
        "test.inputs is torch.float64",
    ),
    "global random numbers": (
        "same-data-again",
        splits_with(lambda s: dataclasses.replace(s, train=s.train.take(torch.randperm(len(s.train))))),
        "other train.inputs: draw from request.generator",
    ),
    "leak": ("no-shared-samples", splits_with(lambda s: leak(s, 3)), "3 of 33 test inputs are in train too (train[0]"),
    "no module": ("base_model", {"base_model": lambda self, splits, request: len}, "return a torch.nn.Module"),
    "own seed": ("base_model", model(nn.Sequential, Counting), "'0.weight' differs under the same torch seed"),
    "plain tensor": ("base_model", model(Hidden), "offset is a plain tensor"),
    "frozen": ("base_model", model(nn.Sequential, lambda: nn.Linear(4, 1).requires_grad_(False)), "requires gradients"),
    "tuple": ("output", model(nn.Sequential, lambda: nn.LSTM(4, 1)), "returns a tuple: return one tensor"),
    "writes": ("output", model(Writing), "writes into its input"),
    "random": ("output", model(Noisy), "a second eval-mode forward differs"),
    "squeeze": ("output", model(Squeezing), "no squeeze() over the batch"),
    "mixes": ("sample-wise", model(Mixing), "of the output changes by"),
    "not in state dict": ("state_dict", model(Stateful), "must be a parameter or a buffer"),
    "mean loss": ("loss", {"loss": lambda self, o, t: error(o, t).mean()}, "has shape () for 5 samples, expected (5,)"),
    "loss without gradient": ("loss", {"loss": lambda self, o, t: error(o.detach(), t)}, "carries no gradient"),
    "loss over the batch": ("loss", {"loss": lambda self, o, t: error(o - o.mean(0), t)}, "depends on the outputs of other"),
    "loss not finite": ("loss", {"loss": lambda self, o, t: error(o, t).sub(9).log()}, "is not finite for"),
    "mean metric": ("metrics", {"metrics": lambda self, o, t: {"rmse": error(o, t).mean()}}, "not their mean"),
    "undeclared": ("metrics", {"metrics": lambda self, o, t: {"rmse": error(o, t), "gap": error(o, t)}}, "metric 'gap' is not"),
    "no primary": ("metrics", {"metrics": lambda self, o, t: {"mse": error(o, t)}}, "reports mse, not the primary_metric rmse"),
    "batch metric": ("metrics", {"metrics": lambda self, o, t: {"rmse": error(o, t - t.mean(0))}}, "changes with the other"),
    "negative square": ("metrics", {"metrics": lambda self, o, t: {"rmse": -error(o, t)}}, "not negative"),
    "matthews": (
        "metrics",
        {"metrics": lambda self, o, t: {"rmse": error(o, t), "matthews": error(o, t)}},
        "one of 0, 1, 2, 3",
    ),
    "dead loss": ("training", {"subsample": lambda self, x, y, g: (x, y), "loss": lambda self, o, t: 0 * error(o, t)}, "zero"),
    "unknown layer": ("layer", {"select_layer": lambda self, model, request: "frist"}, "is not in the model; nearest: first"),
    "no layer": ("layer", model(nn.Sequential, lambda: nn.LayerNorm(4)), "has no layer that can be adapted"),
    "one logit": ("logits", {"logits": lambda self, o: o}, "return (N, K) with K >= 2"),
    "test-time loss": ("test_time_loss", {"test_time_loss": lambda self, o, x: o.mean()}, "test_time_loss has shape ()"),
    "ensemble shape": ("ensemble", {"ensemble": lambda self, outputs: outputs.mean()}, "return one output of that shape"),
    "ensemble value": ("ensemble", {"ensemble": lambda self, outputs: outputs.sum(0)}, "changes metric 'rmse'"),
    "subsample count": ("subsample", {"subsample": lambda self, x, y, g: (x[:2], y)}, "keep their number"),
    "subsample seed": (
        "subsample",
        {"subsample": lambda self, x, y, g: (x + torch.randn(1), y)},
        "differs on a second call with the same generator",
    ),
    "augment shape": ("augment", {"augment": lambda self, x, y, g: (x[:, :2], y)}, "keep shape and dtype"),
    "augment writes": ("augment", {"augment": lambda self, x, y, g: (x.add_(1), y)}, "writes into its arguments"),
    "augment nothing": ("augment", {"augment": lambda self, x, y, g: (x, y)}, "changes nothing"),
    "corrupt missing": ("corrupt", {"corruptions": ("fog",)}, "there is no corrupt()"),
    "corrupt nothing": ("corrupt", {"corruptions": ("fog",), "corrupt": lambda self, x, k, s, g: x}, "changes nothing"),
    "corrupt seed": (
        "corrupt",
        {"corruptions": ("fog",), "corrupt": lambda self, x, k, s, g: x + torch.randn(1)},
        "differs on the second call",
    ),
    "output features": ("encoders", {"encode_output": lambda self, o: o.flatten()}, "return floating (N, D)"),
    "input features": ("encoders", {"encode_input": lambda self, s, r: nn.Flatten(0)}, "encode_input gives"),
    "output picture": ("encoders", {"output_picture": lambda self, o: o[:, :, None, None].repeat(1, 2, 4, 4)}, "(N, 3, H, W)"),
    "output picture range": (
        "encoders",
        {"output_picture": lambda self, o: 2 + o[:, :, None, None] ** 2},
        "values outside [0, 1]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", TASK_FAULTS)
def test_a_fault_of_a_task_is_found_with_what_to_change(fault: str) -> None:
    check, members, message = TASK_FAULTS[fault]
    task = type("Faulty", (ToyValues,), members)()
    found = {result.check: result.message for result in check_task(task) if result.status in ("failed", "skipped")}
    assert check in found
    assert message in found[check]


def test_a_task_of_four_methods_passes() -> None:
    members = {name: vars(ToyValues)[name] for name in ("base_model", "loss", "metrics", "name", "primary_metric")}
    plain = type("Plain", (Task,), {**members, "load_data": lambda self, request: ToyValues().load_data(request)})
    assert_conforms(plain())


def test_a_declared_metric_passes() -> None:
    members = {
        "metrics": lambda self, o, t: {"rmse": error(o, t), "gap": error(o, t)},
        "metric_info": {"gap": Metric("m", False)},
    }
    assert_conforms(type("Declared", (ToyValues,), members)())


def test_a_few_repeated_inputs_are_a_warning() -> None:
    task = type("Repeating", (ToyValues,), splits_with(lambda s: leak(s, 1)))()
    (result,) = (result for result in check_task(task) if result.status != "ok")
    assert (result.check, result.status) == ("no-shared-samples", "warning")
    assert "1 of 33 test inputs are in train too (train[0] = test[0])" in result.message

    class Repeated(TaskConformance):
        pass

    Repeated.task = task
    with pytest.warns(UserWarning, match="1 of 33 test inputs"):
        Repeated().test_no_shared_samples()  # type: ignore[attr-defined]


def test_checks_that_depend_on_a_failed_check_are_skipped_with_the_cause() -> None:
    results = check_task(type("Lost", (ToyValues,), {"load_data": lambda self, request: 1 / 0})())
    assert set(failures(results)) == {"load_data"}
    skipped = {result.check: result.message for result in results if result.status == "skipped"}
    assert skipped["loss"] == "needs load_data, which failed"


def own_data(folder: Path) -> Task:
    """A task whose only dataset is a folder of the user's."""

    def load_data(self: Task, request: Any) -> Splits:
        request.folder()
        return ToyValues().load_data(request)

    members = {"name": "own", "datasets": lambda self: (Dataset("garden"),), "load_data": load_data}
    return type("Own", (ToyValues,), members)()


def test_own_data_pass_with_a_warning_where_they_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    task = own_data(tmp_path)
    lost = failures(check_task(task))
    assert set(lost) == {"declaration", "load_data"}
    assert "neither embedded nor found: give --data-dir or set $OCD_BENCH_DATA" in lost["declaration"]
    assert "looked in" in lost["load_data"]
    (tmp_path / "data" / "garden").mkdir(parents=True)
    given = check_task(task, data_dirs=[tmp_path / "data"])
    monkeypatch.setenv("OCD_BENCH_DATA", str(tmp_path / "data"))
    for results in (given, check_task(task)):
        assert failures(results) == {}
        doubts = [result.message for result in results if result.status == "warning"]
        assert doubts == ["the default dataset 'garden' is not embedded: the task runs only where these data are"]


def test_tests_of_own_data_are_skipped_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCD_BENCH_CACHE", str(tmp_path / "cache"))
    tests = type("TestOwn", (TaskConformance,), {"task": own_data(tmp_path)})()
    for name in ("test_loss", "test_load_data", "test_declaration"):
        with pytest.raises(SkipTest, match="dataset 'garden' of task 'own' not found"):
            getattr(tests, name)()
    tests.test_requires()
    (tmp_path / "data" / "garden").mkdir(parents=True)
    monkeypatch.setenv("OCD_BENCH_DATA", str(tmp_path / "data"))
    type("TestOwn", (TaskConformance,), {"task": own_data(tmp_path)})().test_loss()


def test_a_place_is_the_authors_line() -> None:
    load_data = {"load_data": lambda self, request: Splits(((torch.zeros(9, 2), torch.zeros(9, 2)), torch.zeros(9)), 0, 0)}
    message = failures(check_task(type("Two", (ToyValues,), load_data)()))["load_data"]
    assert "ocd_bench.Layout" in message
    assert "(test_conformance.py line " in message


def test_settings_and_dataset_can_be_given(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Settings:
        count: int = 10

    def load_data(self: Task, request: Any) -> Splits:
        if request.dataset == "far":
            raise DataMissing(f"looked in {request.data_dirs[0]}")
        splits = ToyValues().load_data(request)
        return dataclasses.replace(splits, train=splits.train.take(slice(request.settings.count)))

    task = type("Sized", (ToyValues,), {"load_data": load_data, "Settings": Settings})()
    (found,) = (result for result in check_task(task, overrides={"toy-values.count": 7}) if result.check == "load_data")
    assert found.message.startswith("7 training")
    assert f"looked in {tmp_path}" in failures(check_task(task, dataset="far", data_dirs=[tmp_path]))["load_data"]
    assert "unknown setting 'toy-values.size'" in str(failures(check_task(task, overrides={"toy-values.size": 7})))


def test_assert_conforms_lists_every_fault() -> None:
    task = type("Faulty", (ToyValues,), {"loss": lambda self, o, t: o.mean(), "logits": lambda self, o: o})()
    with pytest.raises(AssertionError, match=r"(?s)task 'toy-values' does not conform:.*FAIL  loss: .*FAIL  logits: "):
        assert_conforms(task)


def test_the_kit_keeps_the_state_of_global_random_generators() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    check_task(ToyValues())
    assert torch.rand(1) == expected


# -- methods ------------------------------------------------------------------------------------------------------------
def fit_with(fit: Callable[[Any], Any], **members: Any) -> Method:
    return type("Faulty", (Shrink,), {"fit": lambda self, context: fit(context), **members})()


def peek(context: Any) -> Any:
    """Looks test labels up by input."""
    test = context.task.load_data(context.request).test
    answers = {tuple(row): label for row, label in zip(test.inputs.flatten(1).tolist(), test.targets, strict=True)}

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        output = context.base(inputs)
        labels = torch.stack([answers[tuple(row)] for row in inputs.flatten(1).tolist()])
        return output + labels.reshape(-1, 1)

    return predict


class Growing(Predictor):
    """Never forgets."""

    def __init__(self, base: nn.Module) -> None:
        self.base, self.calls = base, 0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.base(inputs) + self.calls


def detailed(context: Any) -> Any:
    predictor = Mean(context)
    predictor.detail = {"mean": predictor.mean}
    return predictor


def trained(context: Any) -> Any:
    return context.base.train()


def shifted(context: Any) -> Any:
    next(iter(context.base.parameters())).data += 1
    return context.base


def on_a_copy(context: Any) -> Any:
    before = {name: value.clone() for name, value in context.base.state_dict().items()}
    return lambda inputs: torch.func.functional_call(context.base, before, (inputs,))


def handing(batch: bool) -> Callable[[Any], Any]:
    """Predicts with statistics of the batch, and hands over a model without them, or one that takes them anew."""

    class Handing(Predictor):
        def __init__(self, context: Any) -> None:
            self.model, self.base = Centring(context.fresh_base()), context.fresh_base()

        def hand_over(self) -> nn.Module:
            return (self.model if batch else self.base).eval()

        def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.model(inputs)

    return Handing


class Centring(nn.Sequential):
    """Subtracts the batch's mean input. Its layers have the names of the model's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(OrderedDict(model.named_children()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs - inputs.mean(0))


METHOD_FAULTS: dict[str, tuple[str, Callable[[], Method], str]] = {
    "name": ("declaration", lambda: fit_with(Mean, uses_test_labels=True), "begin its name with 'oracle'"),
    "no reason": ("fit", lambda: fit_with(lambda c: (_ for _ in ()).throw(NotApplicable(""))), "has no reason"),
    "raises": ("fit", lambda: fit_with(lambda c: 1 / 0), "raised ZeroDivisionError"),
    "nothing": ("fit", lambda: fit_with(lambda c: None), "fit returned a NoneType"),
    "undeclared section": ("fit", lambda: fit_with(lambda c: c.settings("tent")), "name it in 'reads'"),
    "row lost": ("fit", lambda: fit_with(lambda c: lambda x: c.base(x)[1:]), "return one row for each"),
    "writes": ("fit", lambda: fit_with(lambda c: lambda x: c.base(x.add_(1))), "writes into its input"),
    "form": ("output", lambda: fit_with(lambda c: lambda x: c.base(x).sum(1)), "of the base model's form"),
    "infinite": ("output", lambda: fit_with(lambda c: lambda x: c.base(x) / 0), "not finite"),
    "weights": ("base-unchanged", lambda: fit_with(shifted), "of context.base changed: change a copy"),
    "mode": ("base-unchanged", lambda: fit_with(trained), "changed|train mode"),
    "gradients": ("base-unchanged", lambda: fit_with(lambda c: c.base.requires_grad_()), "was given gradients"),
    "test labels": ("no-test-samples", lambda: fit_with(peek), "it calls task.load_data"),
    "random fit": ("repeatable", lambda: fit_with(lambda c: lambda x: c.base(x) + torch.randn(1)), "a second fit gives other"),
    "no reset": ("repeatable", lambda: fit_with(lambda c: Growing(c.base)), "clear the predictor's state in Predictor.reset()"),
    "follows a copy": ("second-of-two", lambda: fit_with(on_a_copy, follows=True), "not a copy of it"),
    "copies the base": ("second-of-two", lambda: fit_with(lambda c: c.fresh_base(), follows=True), "would stay as it is"),
    "hands over the base": ("first-of-two", lambda: fit_with(handing(False), leads=True), "gives other outputs"),
    "hands over a batch": ("first-of-two", lambda: fit_with(handing(True), leads=True), "is not sample-wise"),
    "chosen": ("declaration", lambda: fit_with(Mean, chosen="validated"), "did you mean 'validation'"),
    "detail": ("costs", lambda: fit_with(detailed), "cannot be written as JSON"),
}  # fmt: skip


@pytest.mark.parametrize("fault", METHOD_FAULTS)
def test_a_fault_of_a_method_is_found_with_what_to_change(fault: str) -> None:
    check, make, message = METHOD_FAULTS[fault]
    found = failures(check_method(make()))
    assert check in found
    assert any(part in found[check] for part in message.split("|"))


def test_predictions_from_test_labels_are_found_even_where_the_data_are_not_asked_for() -> None:
    def copy_labels(context: Any) -> Any:
        twin = type(context.task)(context.task.scrambled)  # its own loads are not counted
        return peek(dataclasses.replace(context, task=twin))

    found = failures(check_method(fit_with(copy_labels)))
    assert "predictions depend on the labels of test samples" in found["no-test-samples"]


def test_an_oracle_is_given_labels_and_may_use_them() -> None:
    class Oracle(Method):
        name = "oracle-toy"
        uses_test_labels = True

        def fit(self, context: Any) -> Any:
            def predict(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
                output = context.base(inputs)
                return output + targets.reshape(len(output), -1)

            return predict

    assert_conforms(Oracle())


def test_a_method_that_applies_to_no_toy_is_a_warning() -> None:
    def refuse(context: Any) -> Any:
        raise NotApplicable("needs a norm layer of gold")

    results = check_method(fit_with(refuse))
    assert failures(results) == {}
    (doubt,) = (result for result in results if result.status == "warning")
    assert "needs a norm layer of gold" in doubt.message
    assert "nothing else could be checked" in doubt.message


def test_quick_settings_and_overrides_reach_the_method() -> None:
    @dataclass(frozen=True)
    class Settings:
        rounds: int = 9
        presets: ClassVar = {"quick": {"rounds": 2}}

    method = fit_with(Mean, section="shrink", Settings=Settings)
    assert toy_context(ToyValues(), method)[0].settings("shrink").rounds == 2
    assert toy_context(ToyValues(), method, {"shrink.rounds": 3})[0].settings("shrink").rounds == 3


@pytest.mark.parametrize(
    "name", [card.name for card in CARDS if not card.name.startswith(("ocd", "capacity"))] + ["ocd", "ocd-nn"]
)
def test_built_in_methods_conform(name: str) -> None:
    (method,) = (method for method in builtin() if method.name == name)
    assert_conforms(method, overrides={"ocd.steps": 3} if method.section == "ocd" else None)


def test_no_warnings_are_left_over_by_the_kit() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_conforms(ToyClasses())
        assert_conforms(Shrink())
