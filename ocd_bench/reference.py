"""Every setting as a row: its values, what it accepts, what it means. Lists, pages and new files are made from these rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from ocd_bench.config import PRESETS, known_sections
from ocd_bench.errors import UsageError
from ocd_bench.settings import Setting, expected, metadata, nearest, type_name, values_as

if TYPE_CHECKING:
    from ocd_bench.method import Method
    from ocd_bench.task import Task


@dataclass(frozen=True)
class Row:
    """One setting.

    Attributes:
        section, name: its key is ``section.name``.
        kind: its type, such as ``float`` or ``list of int``.
        expected: the accepted values, in words.
        values: its value by preset, before a task changes it.
        tasks: by preset and task, the values that tasks choose for it. Values of a task's own section are in ``values``.
        known: the declared limits, unit and help.
    """

    section: str
    name: str
    kind: str
    expected: str
    values: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    known: Setting

    @property
    def key(self) -> str:
        """``section.name``."""
        return f"{self.section}.{self.name}"

    def as_dict(self, preset: str) -> dict[str, Any]:
        """Plain values for JSON, under ``preset``."""
        names = ("least", "most", "above", "below", "choices", "also", "multiple", "length")
        limits = {name: getattr(self.known, name) for name in names}
        return {
            "key": self.key,
            "section": self.section,
            "name": self.name,
            "type": self.kind,
            "expected": self.expected,
            "value": self.values[preset],
            "default": self.values["default"],
            "tasks": dict(self.tasks[preset]),
            "limits": {name: limit for name, limit in limits.items() if limit not in (None, ())},
            "unit": self.known.unit,
            "help": self.known.help,
        }


def rows(tasks: Sequence[Task], methods: Sequence[Method], section: str | None = None) -> list[Row]:
    """The settings of all sections, or of one: the core's first, then the methods', then the tasks'.

    Args:
        section: a section, or one key ``section.name``.

    Raises:
        UsageError: for a section or key that does not exist, or if a plugin's preset has an invalid value.
    """
    sections = known_sections(tasks, methods)
    found = [row for name, cls in sections.items() for row in _section(name, cls, tasks)]
    if section is None:
        return found
    chosen = [row for row in found if section in (row.section, row.key)]
    if not chosen and section not in sections:
        names = [*sections, *(row.key for row in found)]
        raise UsageError(f"no settings {section!r}{nearest(section, names)}; sections: {', '.join(sections)}")
    return chosen


def _section(section: str, cls: type, tasks: Sequence[Task]) -> list[Row]:
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cls)
    presets = {preset: _under(preset, section, cls, tasks) for preset in PRESETS}
    return [
        Row(
            section,
            field.name,
            type_name(hints[field.name]),
            expected(hints[field.name], metadata(field)),
            {preset: values[field.name] for preset, (values, _) in presets.items()},
            {
                preset: {task: changes[field.name] for task, changes in by_task.items() if field.name in changes}
                for preset, (_, by_task) in presets.items()
            },
            metadata(field),
        )
        for field in fields
    ]


def _under(preset: str, section: str, cls: type, tasks: Sequence[Task]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The values of a section under ``preset``, and those that other tasks give it, by task."""
    values = vars(cls()) | values_as(section, cls, getattr(cls, "presets", {}).get(preset, {}))
    by_task = {}
    for task in tasks:
        overrides = {
            key.partition(".")[2]: value
            for key, value in task.presets.get(preset, {}).items()
            if key.partition(".")[0] == section
        }
        converted = values_as(section, cls, overrides)
        if task.name == section:
            values |= converted
        else:
            by_task[task.name] = {name: value for name, value in converted.items() if value != values[name]}
    return values, by_task


def as_text(value: Any) -> str:
    """A value as text for ``--set``.

    >>> as_text((0.5, 1.0)), as_text(True), as_text(None), as_text(1e-5)
    ('0.5,1.0', 'true', 'none', '1e-05')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(as_text, value))
    return str(value)


def as_toml(value: Any) -> str:
    """A value as text for ``--config``.

    >>> as_toml((1, 2)), as_toml("a"), as_toml(None)
    ('[1, 2]', '"a"', '"none"')
    """
    if value is None:
        return '"none"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def by_section(found: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by their section, in order."""
    sections: dict[str, list[Row]] = {}
    for row in found:
        sections.setdefault(row.section, []).append(row)
    return sections
