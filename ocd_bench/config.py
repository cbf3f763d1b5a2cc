"""The configuration of a run: sections of plain values, resolved in one fixed order.

A section is a frozen dataclass: the core's ``base``, ``select`` and ``run``, one per method section, one per task. Values come
from, in rising precedence: the dataclass defaults (preset ``default``), the section's own ``presets``, the task's ``presets``,
a TOML file, ``--set section.key=value``.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_origin, get_type_hints

from ocd_bench.errors import UsageError

if TYPE_CHECKING:
    from ocd_bench.method import Method
    from ocd_bench.task import Task

PRESETS = ("quick", "default", "paper")


@dataclass(frozen=True)
class BaseSettings:
    """How the runner trains a base model: ``optimizer`` with a cosine schedule to zero, best validation epoch kept."""

    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    epochs: int = 30
    batch_size: int = 128
    augment: bool = False
    cache: bool = True


@dataclass(frozen=True)
class SelectSettings:
    """Which layer is adapted, and the entropy criterion's own numbers (paper section 3.3).

    ``layer``: ``"task"`` asks the task and falls back on the criterion, ``"entropy"`` takes the criterion's first, anything
    else is a layer's dotted name. ``sigma``: noise in units of the layer's root mean square weight (``unit`` ``"rms"``) or of
    Kaiming's sqrt(2 / fan-in) (``"fan-in"``); the paper gives neither, and the ranking depends on it.
    """

    layer: str = "task"
    draws: int = 200
    sigma: float = 0.1
    unit: str = "rms"
    samples: int = 128

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"draws": 50, "samples": 64},
        "paper": {"draws": 10_000, "samples": 256},
    }


@dataclass(frozen=True)
class RunSettings:
    """``batch_size``: rows of a test batch (Tent's batch statistics depend on it, so it is part of the configuration).
    ``threads``: how many threads compute; another number rounds differently."""

    batch_size: int = 200
    threads: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 1024:
            raise UsageError(f"setting run.threads={self.threads}: expected 1 to 1024")


CORE: Mapping[str, type] = {"base": BaseSettings, "select": SelectSettings, "run": RunSettings}


class Config:
    """Resolved sections of one task under one preset."""

    def __init__(self, preset: str, sections: Mapping[str, Any]) -> None:
        self.preset = preset
        self._sections = dict(sections)

    def section(self, name: str) -> Any:
        """The settings instance of a section; None if it has none."""
        return self._sections.get(name)

    def as_dict(self, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Plain values of the named sections (default: all), ready for JSON."""
        chosen = self._sections if names is None else {name: self._sections[name] for name in names if name in self._sections}
        return {name: dataclasses.asdict(section) for name, section in sorted(chosen.items())}


def fingerprint(value: Any) -> str:
    """SHA-256 of plain values in canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest known name, or an empty text."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def parse_assignment(text: str) -> tuple[str, str]:
    """``a.b=value`` split into key and text.

    Raises:
        UsageError: if there is no ``=`` or no section.
    """
    key, sign, value = text.partition("=")
    if not sign or "." not in key:
        raise UsageError(f"--set {text!r}: expected section.key=value, for example --set base.epochs=10")
    return key.strip(), value.strip()


def read_toml(path: Path) -> dict[str, Any]:
    """Overrides from a TOML file of sections, flattened to dotted keys.

    Raises:
        UsageError: if the file cannot be read or is not TOML of that shape.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: not valid TOML: {error}") from error
    flat: dict[str, Any] = {}
    for section, values in tables.items():
        if not isinstance(values, dict):
            raise UsageError(f"--config {path}: {section!r} stands outside a section; write [section] first")
        flat.update({f"{section}.{key}": value for key, value in values.items()})
    return flat


def known_sections(tasks: Sequence[Task], methods: Sequence[Method]) -> dict[str, type]:
    """Every section by name: the core's, each method's, each task's."""
    sections = dict(CORE)
    for method in methods:
        if method.section and method.Settings:
            sections.setdefault(method.section, method.Settings)
    for task in tasks:
        if task.Settings:
            sections[task.name] = task.Settings
    return sections


def check_keys(keys: Iterable[str], sections: Mapping[str, type]) -> None:
    """Refuse a dotted key that no section has.

    Raises:
        UsageError: with the nearest right name.
    """
    everything = {f"{name}.{field.name}" for name, section in sections.items() for field in dataclasses.fields(section)}
    for key in keys:
        if key in everything:
            continue
        section, _, name = key.partition(".")
        if section not in sections:
            raise UsageError(
                f"unknown setting {key!r}: no section {section!r}{nearest(section, sections)}; "
                f"sections: {', '.join(sorted(sections))}"
            )
        fields = [field.name for field in dataclasses.fields(sections[section])]
        raise UsageError(f"unknown setting {key!r}{nearest(name, fields)}; settings of {section!r}: {', '.join(fields)}")


def resolve(
    task: Task,
    methods: Sequence[Method],
    preset: str = "default",
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration of ``task`` under ``preset``.

    Args:
        task, methods: give the sections beside the core's.
        overrides: dotted key to value (text or plain value), already in order of precedence (file, then ``--set``).
            Keys of other tasks' sections are left to them; check names with :func:`check_keys` first.

    Raises:
        UsageError: for an unknown preset, or a value that does not fit its field.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}{nearest(preset, PRESETS)}; presets: {', '.join(PRESETS)}")
    sections = known_sections([task], methods)
    values: dict[str, dict[str, Any]] = {name: dict(getattr(s, "presets", {}).get(preset, {})) for name, s in sections.items()}
    task_overrides = task.presets.get(preset, {})
    # A task may tune a method that is not installed or not chosen; such keys have no section here.
    own = {key: value for key, value in task_overrides.items() if key.partition(".")[0] in sections}
    check_keys(own, sections)
    for layer in (own, overrides or {}):
        for key, value in layer.items():
            section, _, name = key.partition(".")
            if section in sections:
                values[section][name] = value
    return Config(preset, {name: _build(name, cls, values[name]) for name, cls in sections.items()})


def _build(section: str, cls: type, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls)
    return cls(**{name: _convert(f"{section}.{name}", value, hints[name]) for name, value in values.items()})


def _convert(key: str, value: Any, kind: Any) -> Any:
    """``value`` (text from the command line, or a plain value) as the field's type."""
    origin, arguments = get_origin(kind), get_args(kind)
    problem = UsageError(f"setting {key}={value!r}: expected {getattr(kind, '__name__', None) or kind}")
    if type(None) in arguments:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "")):
            return None
        kind = next(argument for argument in arguments if argument is not type(None))
        return _convert(key, value, kind)
    if origin is tuple:
        items = [item for item in value.split(",") if item] if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise problem
        return tuple(_convert(key, item.strip() if isinstance(item, str) else item, arguments[0]) for item in items)
    if kind is bool:
        if isinstance(value, bool):
            return value
        words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise UsageError(f"setting {key}={value!r}: expected true or false")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise problem
    try:
        if kind is int:
            number = float(value)
            if number != int(number):
                raise problem
            return int(number)
        if kind is float:
            return float(value)
    except (ValueError, OverflowError):
        raise problem from None
    if kind is str:
        return str(value)
    raise problem
