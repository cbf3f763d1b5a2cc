"""Sections, their order of precedence, and invalid keys and values."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from ocd_bench import Method, Task, UsageError
from ocd_bench.config import check_keys, fingerprint, known_sections, parse_assignment, read_toml, resolve


@dataclass(frozen=True)
class ShakeSettings:
    force: float = 1.0
    rounds: int = 2
    gentle: bool = False
    axes: tuple[int, ...] = (0, 1)
    name: str | None = None

    presets: ClassVar = {"quick": {"force": 2.0, "rounds": 1}}


class Shake(Method):
    name = "shake"
    section = "shake"
    Settings = ShakeSettings


class Beads(Task):
    name = "beads"
    primary_metric = "accuracy"
    presets = {"quick": {"shake.force": 3.0, "base.epochs": 4}}


def shake(preset: str = "default", **overrides: object) -> ShakeSettings:
    return resolve(Beads(), [Shake()], preset, {f"shake.{key}": value for key, value in overrides.items()}).section("shake")


def test_later_sources_win() -> None:
    assert shake().force == 1.0  # the dataclass
    assert shake("quick").rounds == 1  # over it, the section's preset
    assert shake("quick").force == 3.0  # over that, the task's
    assert shake("quick", force="4.5").force == 4.5  # over all, the user's
    assert resolve(Beads(), [], "quick").section("base").epochs == 4


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("rounds", "7", 7),
        ("rounds", "1e3", 1000),
        ("gentle", "true", True),
        ("gentle", "off", False),
        ("axes", "2,0", (2, 0)),
        ("name", "none", None),
        ("name", "a b", "a b"),
    ],
)
def test_text_becomes_the_fields_type(key: str, text: str, value: object) -> None:
    assert getattr(shake(**{key: text}), key) == value


@pytest.mark.parametrize(
    ("key", "text"), [("rounds", "1.5"), ("rounds", "many"), ("force", "x"), ("gentle", "maybe"), ("axes", "a")]
)
def test_text_that_does_not_fit_is_named(key: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"shake.{key}='?{text[0]}"):
        shake(**{key: text})


def test_unknown_keys_name_the_nearest() -> None:
    sections = known_sections([Beads()], [Shake()])
    with pytest.raises(UsageError, match="did you mean 'force'"):
        check_keys(["shake.forse"], sections)
    with pytest.raises(UsageError, match="no section 'shak' .did you mean 'shake'"):
        check_keys(["shak.force"], sections)
    check_keys(["shake.force", "base.lr"], sections)


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        resolve(Beads(), [], "quik")


def test_assignment_needs_section_and_value() -> None:
    assert parse_assignment("a.b=c=d") == ("a.b", "c=d")
    for wrong in ("a.b", "a=b"):
        with pytest.raises(UsageError, match="section.key=value"):
            parse_assignment(wrong)


def test_toml_is_flattened_and_errors_name_the_file(tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text("[shake]\nforce = 2.5\naxes = [1]\n")
    flat = read_toml(good)
    assert flat == {"shake.force": 2.5, "shake.axes": [1]}
    assert shake(force=flat["shake.force"], axes=flat["shake.axes"]).axes == (1,)
    (tmp_path / "bad.toml").write_text("[shake\n")
    (tmp_path / "flat.toml").write_text("force = 1\n")
    for name, message in (("bad.toml", "not valid TOML"), ("flat.toml", "outside a section"), ("none.toml", "No such file")):
        with pytest.raises(UsageError, match=message):
            read_toml(tmp_path / name)


def test_fingerprint_is_of_the_values_not_of_their_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
