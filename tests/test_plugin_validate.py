"""Validation of tasks and methods at registration, and of the modules that a task requires."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ocd_bench import Method, Metric, Task
from ocd_bench.plugin import requires
from ocd_bench.plugin.requires import missing
from ocd_bench.plugin.validate import SPECS, method_problem, settings_problem, task_problem


def nothing(self: Any, *arguments: Any) -> None: ...


def task(**members: Any) -> Task:
    contract = dict.fromkeys(("load_data", "base_model", "loss", "metrics"), nothing)
    return type("Toy", (Task,), {"name": "toy", "primary_metric": "accuracy", **contract, **members})()


def method(**members: Any) -> Method:
    return type("Shake", (Method,), {"name": "shake", "fit": nothing, **members})()


@dataclass(frozen=True)
class Plain:
    size: int = 1
    rate: float | None = None
    shape: tuple[int, ...] = (1, 2)
    presets: ClassVar = {"quick": {"size": 2}}


@dataclass
class Loose:
    size: int = 1


@dataclass(frozen=True)
class Needy:
    size: int


@dataclass(frozen=True)
class Listed:
    sizes: list = ()  # type: ignore[assignment]


@dataclass(frozen=True)
class Misspelt:
    size: int = 1
    presets: ClassVar = {"quick": {"sise": 2}}


@dataclass(frozen=True)
class Unresolved:
    size: "NoSuchType" = 1  # type: ignore[name-defined]  # noqa: F821


def test_valid_objects_have_no_problem() -> None:
    assert task_problem(task(Settings=Plain, presets={"paper": {"base.epochs": 9}})) is None
    assert task_problem(task(primary_metric=("gap", "accuracy"), metric_info={"gap": Metric("m")})) is None
    assert method_problem(method(Settings=Plain, section="my_shake")) is None
    assert method_problem(method(name="oracle-shake", uses_test_labels=True)) is None


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (object(), "a object was registered: make it a subclass of ocd_bench.Task"),
        (type(task()), "Toy was registered as a class: register an instance, Toy()"),
        (task(name="Wine"), "its name is 'Wine': use a-z, 0-9 and '-' only"),
        (task(name="a+b"), "its name is 'a+b'"),
        (task(name=None), "its name is None"),
        (task(name="base"), "the name 'base' is reserved"),
        (task(loss=Task.loss), "it has no loss(): define it"),
        (task(primary_metric="acuracy"), "is not a common one (did you mean 'accuracy'?): declare it in metric_info"),
        (task(primary_metric=()), "primary_metric is (): name one metric, or several"),
        (task(metric_info={"x": "dB"}), "metric_info['x'] is a str: make it an ocd_bench.Metric"),
        (task(presets={"fast": {}}), "presets has no preset 'fast'"),
        (task(presets={"quick": 1}), "presets must map a preset to {key: value}"),
        (task(Settings=Needy), "Settings.size has no default"),
    ],
)
def test_a_message_says_what_to_change_in_an_invalid_task(item: Any, message: str) -> None:
    assert message in str(task_problem(item))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict, "make it a frozen dataclass"),
        (Plain(), "make it a frozen dataclass"),
        (Loose, "write @dataclass(frozen=True)"),
        (Needy, "Settings.size has no default: give it one"),
        (Listed, "Settings.sizes is a list: use bool, int, float, str"),
        (Misspelt, "Settings.presets['quick'] sets 'sise', which is no field (did you mean 'size'?)"),
        (Unresolved, "cannot be resolved: name 'NoSuchType' is not defined"),
    ],
)
def test_a_message_says_what_to_change_in_invalid_settings(settings: Any, message: str) -> None:
    assert message in str(settings_problem(settings))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (task(), "make it a subclass of ocd_bench.Method"),
        (method(name="all"), "the name 'all' is reserved"),
        (method(fit=Method.fit), "it has no fit(): define it"),
        (method(uses_test_labels=True), "begin its name with 'oracle'"),
        (method(Settings=Plain), "section is None: it has Settings, so name the section"),
        (method(Settings=Plain, section="a.b"), "section is 'a.b'"),
        (method(Settings=Plain, section="run"), "section 'run' is the core's own"),
        (method(Settings=Loose, section="shake"), "write @dataclass(frozen=True)"),
    ],
)
def test_a_message_says_what_to_change_in_an_invalid_method(item: Any, message: str) -> None:
    assert message in str(method_problem(item))


def test_every_hook_is_known_with_its_arguments() -> None:
    assert SPECS["ocd_bench_base_model"] == ("task", "splits", "request")
    assert {"ocd_bench_register_tasks", "ocd_bench_register_methods", "ocd_bench_report_columns"} <= set(SPECS)
    assert all(name.startswith("ocd_bench_") for name in SPECS)


# -- what a task requires -------------------------------------------------------------------------------------------------
@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("plug_needs", "plug_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_missing_module_is_named_with_its_distribution(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "plug_needs.py").write_text("import plug_absent.part")
    monkeypatch.setitem(requires.DISTRIBUTIONS, "plug_absent", "absent-python")
    assert missing(()) is None
    assert missing(("json", "json.decoder")) is None
    assert missing(("json", "no_such_module")) == "unavailable: pip install no_such_module"
    assert missing(("plug_needs",)) == "unavailable: pip install absent-python"


def test_a_module_that_does_not_load_is_named_with_its_error(site: Path) -> None:
    (site / "plug_broken.py").write_text("raise OSError('libc10_cuda.so: cannot open shared object file\\nmore')")
    assert missing(("plug_broken",)) == (
        "unavailable: plug_broken is installed but does not load (OSError: libc10_cuda.so: cannot open shared object file); "
        "pip install --force-reinstall plug_broken"
    )


def test_for_a_torchaudio_of_another_build_the_message_names_the_matching_pair(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "plug_broken.py").write_text("raise OSError('libc10_cuda.so: cannot open shared object file')")
    monkeypatch.setattr(requires, "SAME_AS_TORCH", ("plug_broken",))
    monkeypatch.setattr(requires, "_version", {"torch": "2.11.0+cpu", "plug_broken": "2.10.0"}.get)
    assert missing(("plug_broken",)) == (
        "unavailable: plug_broken 2.10.0 does not load beside torch 2.11.0+cpu (OSError: libc10_cuda.so: cannot open shared "
        "object file): the two builds do not match; pip install torch==2.11.0 plug_broken==2.11.0, both from one index"
    )
