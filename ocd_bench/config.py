"""The configuration of a run: sections of plain values, resolved in one fixed order.

A section is a frozen dataclass: the core's ``base``, ``select`` and ``run``, one per method section, one per task (and ``ray``,
which is no part of the configuration of a run, since no number depends on it). Values come
from, in rising precedence: the dataclass defaults (preset ``default``), the section's own ``presets``, the task's ``presets``,
a TOML file, ``--set section.key=value``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ocd_bench.errors import UsageError
from ocd_bench.precision import PRECISIONS
from ocd_bench.settings import Checked, nearest, setting, values_as

if TYPE_CHECKING:
    from ocd_bench.method import Method
    from ocd_bench.task import Task

PRESETS = ("quick", "default", "paper")
MOST_EPOCHS = 1_000_000
"""Limit of ``base.epochs``."""


@dataclass(frozen=True)
class BaseSettings(Checked):
    """Section ``base``: how the runner trains a base model. The best validation epoch is kept."""

    optimizer: str = setting("adamw", choices=("adamw", "adam", "sgd"), help="Optimizer of the base (SGD with momentum 0.9).")
    lr: float = setting(1e-3, above=0, help="Initial learning rate. A cosine schedule takes it to zero.")
    weight_decay: float = setting(1e-4, least=0, help="Weight decay of the optimizer.")
    epochs: int = setting(
        30, least=0, most=MOST_EPOCHS, unit="epochs", help="Passes over the training samples. 0 leaves the base untrained."
    )
    least_steps: int = setting(
        0,
        least=0,
        most=100_000_000,
        unit="steps",
        help="Training steps that a small set gets at least: passes are added until there are as many.",
    )
    batch_size: int = setting(128, least=1, unit="samples", help="Samples of a training batch.")
    augment: bool = setting(
        False, help="Whether the base is trained on augmented samples (Task.augment), another copy in each epoch."
    )
    precision: str = setting(
        "float32",
        choices=PRECISIONS,
        help="Precision in training. bf16: matrix products and convolutions in bfloat16, faster on a GPU. Predictions are "
        "float32.",
    )
    cache: bool = setting(True, help="Whether a trained base is kept in the cache folder and used again for the same settings.")
    section: ClassVar[str] = "base"


@dataclass(frozen=True)
class SelectSettings(Checked):
    """Section ``select``: which layer is adapted, and the entropy criterion's own numbers (paper, section 3.3)."""

    layer: str = setting(
        "task",
        help="The layer to adapt: a dotted name; or 'task', the layer that the task names, else the criterion's choice; or "
        "'entropy', the criterion's choice. Several layers, for ocd: names with commas between them, 'all', or 'norms' (the "
        "batch norm layers).",
    )
    draws: int = setting(
        200, least=2, unit="draws", help="Random perturbations of each layer that the entropy criterion tries."
    )
    sigma: float = setting(
        0.1,
        above=0,
        help="Standard deviation of the perturbation, in the unit that 'unit' names. The paper gives none, and the ranking "
        "of layers depends on it.",
    )
    unit: str = setting(
        "rms",
        choices=("rms", "fan-in"),
        help="Unit of sigma: 'rms', the root mean square weight of the layer; 'fan-in', sqrt(2 / fan-in), the standard "
        "deviation of Kaiming's initialisation.",
    )
    samples: int = setting(
        128, least=1, unit="samples", help="Training samples on which the entropy criterion takes the losses."
    )
    section: ClassVar[str] = "select"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"draws": 50, "samples": 64},
        "paper": {"draws": 10_000, "samples": 256},
    }


@dataclass(frozen=True)
class RunSettings(Checked):
    """Section ``run``: how test samples are presented to the methods, and how it is computed."""

    batch_size: int = setting(
        200,
        least=1,
        unit="samples",
        help="Samples of a test batch. Methods that use batch statistics, such as Tent, depend on it.",
    )
    threads: int = setting(
        1,
        least=1,
        most=1024,
        help="Threads that compute a base model or a method. Another number rounds differently.",
    )
    section: ClassVar[str] = "run"


@dataclass(frozen=True)
class RaySettings(Checked):
    """Section ``ray``: the cluster of ``--executor ray``. No number depends on it (docs/many-machines.md)."""

    address: str = setting(
        "",
        help="Address of a ray cluster, HOST:PORT; or 'auto', the cluster that this machine belongs to. Empty: $RAY_ADDRESS, "
        "or, without it, a ray of its own on this machine for the time of the run, with --jobs workers.",
    )
    timeout: float = setting(
        15.0, above=0, most=86_400, unit="seconds", help="How long the cluster may take to answer, and to have room for a cell."
    )
    cpus: int = setting(
        0, least=0, most=1024, unit="cores", help="Cores that ray reserves for a worker. 0: as many as run.threads."
    )
    gpus: float = setting(
        -1.0,
        least=0,
        most=64,
        also=(-1.0,),
        unit="GPUs",
        help="GPUs that ray reserves for a worker; a fraction shares one. -1: one with --device cuda, else none.",
    )
    memory: float = setting(2.0, least=0, most=100_000, unit="GB", help="Memory that ray reserves for a worker. 0: not stated.")
    retries: int = setting(
        3, least=0, most=100, unit="times", help="How often cells are measured again whose machine was lost, before they fail."
    )
    split: bool = setting(
        True, help="Whether methods that share no fit may be measured on several machines when there are more than groups."
    )
    section: ClassVar[str] = "ray"

    @classmethod
    def of(cls, overrides: Mapping[str, Any]) -> RaySettings:
        """The settings that the keys ``ray.*`` of ``overrides`` give.

        Raises:
            UsageError: for a value that its field does not accept.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        given = {name: overrides[f"ray.{name}"] for name in names if f"ray.{name}" in overrides}
        return cls(**values_as(cls.section, cls, given))


CORE: Mapping[str, type] = {"base": BaseSettings, "select": SelectSettings, "run": RunSettings}
MACHINES: Mapping[str, type] = {"ray": RaySettings}
"""Sections that say where to compute. No number depends on them, so no run folder has them."""


def without_machines(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides that numbers may depend on."""
    return {key: value for key, value in overrides.items() if key.partition(".")[0] not in MACHINES}


class Config:
    """Resolved sections of one task under one preset."""

    def __init__(self, preset: str, sections: Mapping[str, Any]) -> None:
        self.preset = preset
        self._sections = dict(sections)

    def section(self, name: str) -> Any:
        """The settings instance of a section; None if it has none."""
        return self._sections.get(name)

    def changed(self, name: str, section: Any) -> Config:
        """The same with another instance of one section."""
        return Config(self.preset, {**self._sections, name: section})

    def as_dict(self, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Plain values of the named sections (default: all), ready for JSON."""
        chosen = self._sections if names is None else {name: self._sections[name] for name in names if name in self._sections}
        return {name: dataclasses.asdict(section) for name, section in sorted(chosen.items())}


def fingerprint(value: Any) -> str:
    """SHA-256 of plain values in canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


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
    sections = {**CORE, **MACHINES}
    for method in methods:
        for part in getattr(method, "parts", (method,)):  # of A+B, both
            if part.section and part.Settings:
                sections.setdefault(part.section, part.Settings)
    for task in tasks:
        if task.Settings:
            sections[task.name] = task.Settings
    return sections


def check_keys(keys: Iterable[str], sections: Mapping[str, type], origin: str = "") -> None:
    """Refuse a dotted key that no section has. ``origin`` is put in front of the message.

    Raises:
        UsageError: with the nearest right name.
    """
    place = f"{origin}: " if origin else ""
    everything = {f"{name}.{field.name}" for name, section in sections.items() for field in dataclasses.fields(section)}
    for key in keys:
        if key in everything:
            continue
        section, _, name = key.partition(".")
        if section not in sections:
            raise UsageError(
                f"{place}unknown setting {key!r}: no section {section!r}{nearest(section, sections)}; "
                f"sections: {', '.join(sorted(sections))}"
            )
        fields = [field.name for field in dataclasses.fields(sections[section])]
        raise UsageError(f"{place}unknown setting {key!r}{nearest(name, fields)}; settings of {section!r}: {', '.join(fields)}")


def check_overrides(overrides: Mapping[str, Any], sections: Mapping[str, type], origin: str = "") -> None:
    """Refuse an unknown key or a value that its field does not accept, also in sections that a run does not use.

    Args:
        overrides: dotted key to value (text or plain value).
        origin: where they come from, such as ``--config FILE.toml``; put in front of a message.

    Raises:
        UsageError: in one line: the key, the value, what is expected.
    """
    check_keys(overrides, sections, origin)
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        values_as(section, sections[section], {name: value}, origin)


def check_preset(preset: str) -> None:
    """Refuse an unknown preset.

    Raises:
        UsageError: with the nearest right name.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}{nearest(preset, PRESETS)}; presets: {', '.join(PRESETS)}")


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
    check_preset(preset)
    sections = {name: cls for name, cls in known_sections([task], methods).items() if name not in MACHINES}
    values: dict[str, dict[str, Any]] = {name: dict(getattr(s, "presets", {}).get(preset, {})) for name, s in sections.items()}
    task_overrides = task.presets.get(preset, {})
    # A task may tune a method that is not installed or not selected. Such keys have no section here.
    own = {key: value for key, value in task_overrides.items() if key.partition(".")[0] in sections}
    check_keys(own, sections)
    for layer in (own, overrides or {}):
        for key, value in layer.items():
            section, _, name = key.partition(".")
            if section in sections:
                values[section][name] = value
    return Config(preset, {name: cls(**values_as(name, cls, values[name])) for name, cls in sections.items()})
