"""Settings with metadata: accepted values, the declarations of every section, and that generated pages are up to date."""

from __future__ import annotations

import dataclasses
import doctest
import math
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import ocd_bench.reference
import ocd_bench.settings
from ocd_bench import UsageError, setting
from ocd_bench.cli import main
from ocd_bench.config import CORE, PRESETS, check_overrides, known_sections, read_toml, resolve
from ocd_bench.data.page import PLUGINS
from ocd_bench.methods import builtin
from ocd_bench.methods.catalogue import CARDS
from ocd_bench.plugin.manager import Manager, load_plugins
from ocd_bench.reference import as_text, as_toml
from ocd_bench.settings import KEY, Checked, Setting, expected, metadata, values_as
from ocd_bench.settings_page import filled, page
from tests.pages import ROOT

FIX = "run python -m ocd_bench.settings_page docs/settings.md plugins/*/README.md"


@pytest.fixture(scope="module")
def manager() -> Manager:
    """All plugins of this checkout, as for ``ocd-bench list``."""
    return load_plugins(only=PLUGINS, declared=True)


@pytest.fixture(scope="module")
def sections(manager: Manager) -> dict[str, type]:
    return known_sections(list(manager.tasks.values()), list(manager.methods.values()))


# -- the checker ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Oven(Checked):
    """One field of each kind."""

    heat: float = setting(180.0, above=0, most=300, help="Heat.")
    shelf: int = setting(2, least=1, help="Shelf.")
    trays: int = setting(0, least=2, also=(0,), help="Trays.")
    pairs: int = setting(2, least=2, multiple=2, help="Pairs.")
    mode: str = setting("fan", choices=("fan", "grill"), help="Mode.")
    times: tuple[float, ...] = setting((1.0, 2.0), least=0, help="Times.")
    window: tuple[int, ...] = setting((0, 1), length=2, help="Window.")
    names: tuple[str, ...] = setting((), help="Names.")
    light: bool = setting(True, help="Light.")
    note: str | None = setting(None, help="Note.")

    section = "oven"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("heat", "300", 300.0),
        ("shelf", "1e3", 1000),
        ("trays", "0", 0),
        ("trays", "2", 2),
        ("mode", "grill", "grill"),
        ("times", "0.5", (0.5,)),
        ("times", "1, 2,", (1.0, 2.0)),
        ("window", [3, 4], (3, 4)),
        ("names", "", ()),
        ("light", "off", False),
        ("note", "none", None),
        ("note", "a,b", "a,b"),
    ],
)
def test_values_become_the_type_of_the_field(key: str, text: Any, value: Any) -> None:
    assert values_as("oven", Oven, {key: text}) == {key: value}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("heat", "0", "setting oven.heat=0.0: expected more than 0, and at most 300"),
        ("heat", "nan", "setting oven.heat=nan: expected a finite number, more than 0, and at most 300"),
        ("heat", "warm", "setting oven.heat='warm': expected a number, more than 0, and at most 300"),
        ("heat", True, "setting oven.heat=True: expected a number, more than 0, and at most 300"),
        pytest.param("heat", 10**400, "expected a number", id="heat-huge"),
        ("shelf", "1.5", "setting oven.shelf='1.5': expected a whole number, 1 or more"),
        ("shelf", "9007199254740993", "setting oven.shelf=9007199254740993: expected at most 2,147,483,647"),
        ("shelf", "inf", "setting oven.shelf='inf': expected a whole number, 1 or more"),
        pytest.param("shelf", "9" * 5000, "...: expected a whole number, 1 or more", id="shelf-digits"),
        pytest.param("shelf", 10**5000, "expected at most 2,147,483,647", id="shelf-huge"),
        ("trays", "1", "setting oven.trays=1: expected 0, or 2 or more"),
        ("pairs", "3", "setting oven.pairs=3: expected an even number, 2 or more"),
        ("mode", "gril", "setting oven.mode='gril': expected one of fan, grill (did you mean 'grill'?)"),
        ("times", "", "setting oven.times=(): expected at least one value"),
        ("times", "1,-1", "setting oven.times=(1.0, -1.0): -1.0 in this list: expected 0 or more"),
        ("times", "1,inf", "inf in this list: expected a finite number, 0 or more"),
        ("times", "1,,2", "setting oven.times='1,,2': expected a list of numbers, each 0 or more, at least one"),
        ("times", 3, "setting oven.times=3: expected a list of numbers, each 0 or more, at least one"),
        ("times", {"a": 1}, "expected a list of numbers"),
        ("window", "1,2,3", "setting oven.window=(1, 2, 3): expected 2 values"),
        ("names", None, "setting oven.names=None: expected a list of names"),
        ("light", "maybe", "setting oven.light='maybe': expected true or false"),
        ("note", [1], "setting oven.note=[1]: expected text, or none"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(key: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        values_as("oven", Oven, {key: value})
    assert message in str(caught.value)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_a_checked_class_refuses_a_wrong_value_in_python_too() -> None:
    with pytest.raises(UsageError, match=r"^setting oven\.shelf=0: expected 1 or more$"):
        Oven(shelf=0)
    with pytest.raises(UsageError, match=r"oven\.heat=nan"):
        dataclasses.replace(Oven(), heat=math.nan)


@dataclass(frozen=True)
class Plain:
    """A settings class without metadata."""

    limit: float = math.inf
    size: int = 10**12
    words: tuple[str, ...] = ("a",)


def test_a_class_without_metadata_is_checked_by_its_types_alone() -> None:
    assert values_as("plain", Plain, {"limit": "-5", "size": "-7", "words": ""}) == {"limit": -5.0, "size": -7, "words": ()}
    assert values_as("plain", Plain, {"limit": "inf", "size": 10**12}) == {"limit": math.inf, "size": 10**12}  # the defaults
    for key, value in (("limit", "nan"), ("size", 10**30), ("size", "x"), ("words", 3)):
        with pytest.raises(UsageError, match=rf"setting plain\.{key}="):
            values_as("plain", Plain, {key: value})


@pytest.mark.parametrize(
    ("default", "options", "message"),
    [(0, {"least": 1, "help": "x"}, "the default 0 is not 1 or more"), (1, {"help": " "}, "needs a help text")],
)
def test_an_inconsistent_declaration_is_refused(default: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        setting(default, **options)


def test_examples_in_docstrings() -> None:
    for module in (ocd_bench.settings, ocd_bench.reference):
        result = doctest.testmod(module)
        assert (result.failed, result.attempted > 0) == (0, True)


# -- every section of the core and of the five plugins --------------------------------------------------------------------
def test_every_setting_says_what_it_means(sections: dict[str, type]) -> None:
    assert set(CORE) < set(sections)
    for section, cls in sections.items():
        for field in dataclasses.fields(cls):
            assert KEY in field.metadata, f"{section}.{field.name} is declared without setting(...)"
            assert metadata(field).help.endswith((".", ")")), f"{section}.{field.name}"


def wrong_values(kind: Any, known: Setting) -> list[Any]:
    """Values that a field of this type and range must refuse."""
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        many = [[value] for value in wrong_values(inner, known)]
        return [5, {}, *many, *([] if known.empty else [[], ""]), *([[known.least or 0]] if known.length else [])]
    wrong: list[Any] = [None, [], {}]
    if kind is str:
        return [*wrong, *(["no such choice"] if known.choices else [])]
    if kind is bool:
        return [*wrong, "maybe", 2]
    wrong += ["", "x", "nan", "inf", "-inf", math.nan, math.inf, 10**400]
    wrong += [known.least - 1] if known.least is not None else []
    wrong += [known.above] if known.above is not None else []
    wrong += [known.below] if known.below is not None else []
    wrong += [known.most + 1] if known.most is not None else []
    return [*wrong, *(["1.5", 10**18] if kind is int else [])]


def test_every_setting_of_every_section_refuses_wrong_values(sections: dict[str, type]) -> None:
    tried = 0
    for section, cls in sections.items():
        hints = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            for value in wrong_values(hints[field.name], metadata(field)):
                if value in metadata(field).also:
                    continue
                with pytest.raises(UsageError, match=rf"^here: setting {section}\.{field.name}=.*expected"):
                    check_overrides({f"{section}.{field.name}": value}, sections, "here")
                tried += 1
    assert tried > 900


def test_numbers_have_limits(sections: dict[str, type]) -> None:
    """A number without limits is a mistake, except for a seed."""
    free = []
    for section, cls in sections.items():
        hints = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            kind = hints[field.name]
            inner = get_args(kind)[0] if get_origin(kind) is tuple else kind
            if inner in (int, float) and not metadata(field).range():
                free.append(f"{section}.{field.name}")
    assert free == ["tabular.split_seed"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_of_every_task_is_accepted(preset: str, manager: Manager) -> None:
    for task in manager.tasks.values():
        config = resolve(task, list(manager.methods.values()), preset)
        assert {section for section in config.as_dict() if section not in manager.tasks} >= {*CORE, "ocd", "tent"}


def test_the_cards_are_those_of_the_methods() -> None:
    """``ocd-bench list`` shows cards, which import no torch; docs/methods.md and the table show the methods."""
    names = ("name", "description", "section", "Settings", "default", "uses_test_labels", "leads", "follows", "chosen")
    assert [[getattr(card, name) for name in names] for card in CARDS] == [
        [getattr(method, name) for name in names] for method in builtin()
    ], "make ocd_bench/methods/catalogue.py say what the methods say"


# -- on the command line --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("speech.speakers=9", "setting speech.speakers=9: expected 2 to 5"),
        ("images.train_samples=-1", "setting images.train_samples=-1: expected 0 or more"),
        ("recon3d.near=9", "setting recon3d.near=9: expected less than recon3d.far=6"),
        ("nlp.encoder_lr=nan", "setting nlp.encoder_lr=nan: expected a finite number, more than 0"),
        ("xgboost.depths=0", "setting xgboost.depths=(0,): 0 in this list: expected 1 to 64"),
        ("ocd.gains=", "setting ocd.gains=(): expected at least one value"),
        ("ocd_paper.attention=7", "setting ocd_paper.attention=(7,): expected levels from 0 to 4, or nothing"),
        ("base.epoch=3", "unknown setting 'base.epoch' (did you mean 'epochs'?)"),
    ],
)
def test_a_wrong_setting_is_refused_before_a_run_begins(
    assignment: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in the section of a task that does not run."""
    monkeypatch.chdir(tmp_path)
    words = ["run", "--task", "tabular", "--preset", "quick", "--methods", "base", "--out", "run"]
    assert main([*words, "--set", assignment]) == 2
    assert capsys.readouterr().err.startswith(f"ocd-bench: error: {message}")
    section, _, rest = assignment.partition(".")
    key, _, value = rest.partition("=")
    Path("my.toml").write_text(f"[{section}]\n{key} = {as_toml(value.split(',') if value else [])}\n")
    assert main([*words, "--config", "my.toml"]) == 2
    said = capsys.readouterr().err
    assert f"{section}.{key}" in said
    assert "my.toml" in said or section in ("recon3d", "ocd_paper")  # rules of several keys know no file
    assert not Path("run").exists()


def test_config_new_writes_a_file_that_config_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manager: Manager
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["config", "new", "all.toml", "--preset", "quick", "--task", "nlp"]) == 0
    path = Path("all.toml")
    assert read_toml(path) == {}  # everything is commented out
    text = "".join(line.removeprefix("# ") for line in path.read_text().splitlines(keepends=True) if not line.startswith("##"))
    path.write_text(text)
    task, methods = manager.task("nlp"), list(manager.methods.values())
    overrides = read_toml(path)
    assert {key.partition(".")[0] for key in overrides} == set(known_sections([task], methods))
    assert resolve(task, methods, "default", overrides).as_dict() == resolve(task, methods, "quick").as_dict()


def test_config_new_does_not_overwrite_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ocd-bench.toml").write_text("mine")
    assert main(["config", "new"]) == 2
    assert "ocd-bench.toml exists already" in capsys.readouterr().err
    assert Path("ocd-bench.toml").read_text() == "mine"
    assert main(["config", "new", "no/such/folder.toml"]) == 2
    assert "cannot write no/such/folder.toml: No such file or directory" in capsys.readouterr().err
    assert main(["config", "new", "x.toml", "--preset", "quik"]) == 2
    assert main(["config", "new", "x.toml", "--task", "nlpp"]) == 2
    assert not Path("x.toml").exists()


def test_a_file_of_all_tasks_says_what_tasks_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["config", "new", "all.toml"]) == 0
    text = Path("all.toml").read_text()
    assert tomllib.loads(text).keys() >= {"base", "ocd", "images", "speech"}
    assert "## Chosen by tasks: images: 2500; nlp: 150;" in text
    assert max(map(len, text.splitlines())) <= 130


def test_values_survive_both_ways_of_writing_them(sections: dict[str, type]) -> None:
    for section, cls in sections.items():
        defaults = vars(cls())
        assert values_as(section, cls, {name: as_text(value) for name, value in defaults.items()}) == defaults
        text = "\n".join(f"{name} = {as_toml(value)}" for name, value in defaults.items())
        assert values_as(section, cls, tomllib.loads(text)) == defaults


def test_settings_are_described_without_torch() -> None:
    modules = "ocd_bench.config, ocd_bench.reference, ocd_bench.methods.catalogue, ocd_bench.cli.config"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# -- pages ----------------------------------------------------------------------------------------------------------------
def test_the_page_of_settings_is_up_to_date(manager: Manager) -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page(manager), FIX


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_settings_on_a_plugins_page_are_up_to_date(plugin: str, manager: Manager) -> None:
    text = (ROOT / "plugins" / plugin / "README.md").read_text(encoding="utf-8")
    assert f"<!-- settings: {plugin} -->" in text
    assert filled(text, manager) == text, FIX


def test_an_outdated_table_is_detected(manager: Manager) -> None:
    stale = "a\n<!-- settings: run -->\n| old |\n<!-- end of settings -->\nb\n"
    fresh = filled(stale, manager)
    assert fresh.startswith("a\n<!-- settings: run -->\n| key |")
    assert "| `batch_size` | `200` |" in fresh
    assert fresh.endswith("<!-- end of settings -->\nb\n")


def test_accepted_values_are_described_in_words() -> None:
    assert expected(float | None, Setting(least=0)) == "a number, 0 or more, or none"
    assert (
        expected(tuple[int, ...], Setting(least=1, most=64, empty=False))
        == "a list of whole numbers, each 1 to 64, at least one"
    )
    assert expected(str, Setting(choices=("a", "b"), also=("",))) == "nothing, or one of a, b"
    assert expected(float, Setting(least=0.5, most=1e6)) == "a number, 0.5 to 1,000,000"
