"""The structure of ``run.json`` and of a cell, which is checked when a run folder is read.

A run folder may come from an untrusted source. Every field that this package reads has a known type and size; unknown fields
are kept unchanged. Texts are made printable, so that control sequences never reach a terminal or a page.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ocd_bench.errors import UsageError
from ocd_bench.metrics import REDUCTIONS
from ocd_bench.printable import printable_values, quoted, texts_in

STATUSES = {"ok": "ok", "failed": "failed", "not-applicable": "n/a"}
"""What a cell's status may be, and the words that people read."""
LONGEST_NAME = 200
"""Most characters of the name of a task, dataset, method or metric: it becomes part of a file's name."""
LARGEST = 1e300
MOST_SHARDS = 100_000
MOST_SAMPLES = 2**40

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -LARGEST < value < LARGEST
        and math.isfinite(float(value))
    )


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_SAMPLES


def _seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _shard(value: Any) -> bool:
    index, _, count = value.partition("/") if isinstance(value, str) and len(value) < 20 else ("", "", "")
    return index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count) <= MOST_SHARDS


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _table_of(check: Check, name: Check = _text) -> Check:
    return lambda value: isinstance(value, dict) and all(name(key) and check(item) for key, item in value.items())


def _anything(value: Any) -> bool:
    return True


def _layer(value: Any) -> bool:
    return _text(value) or _list_of(_text)(value)


CELL: dict[str, tuple[Check, bool, str]] = {
    "task": (_name, True, "a name"),
    "dataset": (_name, True, "a name"),
    "method": (_name, True, "a name"),
    "seed": (_seed, True, "a whole number from 0 to 2**63 - 1"),
    "status": (lambda value: _text(value) and value in STATUSES, True, " or ".join(STATUSES)),
    "reason": (_optional(_text), False, "a text or null"),
    "layer": (_optional(_layer), False, "a text, a list of texts or null"),
    "n_test": (_count, True, "a number of samples"),
    "groups": (_optional(_count), False, "a number of groups"),
    "metrics": (_table_of(_table_of(_anything), _name), True, "a table of metrics"),
    "cost": (_table_of(_optional(_number)), True, "a table of finite numbers"),
    "fingerprint": (_table_of(_optional(_text)), True, "a table of texts"),
    "chosen": (_optional(_text), False, "a text"),
    "set_by_user": (_optional(_list_of(_text)), False, "a list of texts"),
    "detail": (_optional(_table_of(_anything)), False, "a table or null"),
    "ocd_bench": (_optional(_text), False, "a text"),
}
"""Fields of a cell: their check, whether they must be there, and what is expected."""

METRIC: dict[str, tuple[Check, bool, str]] = {
    "value": (_number, True, "a finite number"),
    "unit": (_text, True, "a text"),
    "higher_is_better": (_flag, True, "true or false"),
    "primary": (_flag, False, "true or false"),
    "reduce": (lambda value: isinstance(value, str) and value in REDUCTIONS, False, f"one of {', '.join(REDUCTIONS)}"),
}

AVERAGE: dict[str, tuple[Check, bool, str]] = {
    "unit": (_text, True, "a text"),
    "higher_is_better": (_flag, True, "true or false"),
}

TASK: dict[str, tuple[Check, bool, str]] = {
    "dataset": (_list_of(_text), False, "a list of texts"),
    "config": (_table_of(_table_of(_anything)), False, "a table of sections"),
    "methods": (_list_of(_text), False, "a list of texts"),
    "changed": (_table_of(_anything), False, "a table of settings"),
    "average": (_optional(_table_of(_anything)), False, "a table"),
}

RUN: dict[str, tuple[Check, bool, str]] = {
    "ocd_bench": (_text, False, "a text"),
    "created": (_text, False, "a text"),
    "preset": (_text, False, "a text"),
    "seeds": (_list_of(_seed), False, "a list of whole numbers"),
    "methods": (_list_of(_text), False, "a list of texts"),
    "shards": (_list_of(_shard), False, "a list of shards such as 1/4"),
    "tasks": (_table_of(_table_of(_anything)), False, "a table of tasks"),
    "environment": (_table_of(_anything), False, "a table"),
    "environments": (_table_of(_table_of(_anything)), False, "a table of tables"),
    "plugins": (_table_of(_optional(_text)), False, "a table of texts"),
    "notes": (_table_of(_text), False, "a table of texts"),
}
"""Fields of ``run.json``."""


ENVIRONMENT: dict[str, tuple[Check, bool, str]] = {
    name: (_optional(_text), False, "a text") for name in ("device", "cpu", "python", "torch", "numpy", "platform", "revision")
}


def checked_run(info: dict[str, Any], file: Path) -> dict[str, Any]:
    """``run.json`` with its texts made printable.

    Raises:
        UsageError: naming the file and the field that has another type.
    """
    _refuse_surrogates(info, file)
    _fields(info, RUN, str(file))
    for environment in (info.get("environment", {}), *info.get("environments", {}).values()):
        _fields(environment, ENVIRONMENT, f"{file}: the environment")
    for name, task in info.get("tasks", {}).items():
        _fields(task, TASK, f"{file}: task {quoted(name)}")
        if task.get("average") is not None:
            _fields(task["average"], AVERAGE, f"{file}: the average of task {quoted(name)}")
    return printable_values(info)  # type: ignore[return-value]


def checked_cell(cell: dict[str, Any], file: Path) -> dict[str, Any]:
    """A cell with its texts made printable, and several layers joined to one text.

    Raises:
        UsageError: naming the file and the field that has another type.
    """
    _refuse_surrogates(cell, file)
    where = f"{file}: not a cell of this schema"
    _fields(cell, CELL, where)
    for name, metric in cell["metrics"].items():
        _fields(metric, METRIC, f"{where}: metric {quoted(name)}")
    if cell["status"] == "ok":
        primary = [name for name, metric in cell["metrics"].items() if metric.get("primary")]
        if len(primary) != 1:
            raise UsageError(f"{where}: {len(primary)} primary metrics")
    result: dict[str, Any] = printable_values(cell)  # type: ignore[assignment]
    if isinstance(result.get("layer"), list):
        result["layer"] = ", ".join(result["layer"]) or None
    return result


def _refuse_surrogates(value: Any, file: Path) -> None:
    """Half a character, which JSON can spell and no encoding can write."""
    for text in texts_in(value):
        if not text.isascii() and any("\ud800" <= mark <= "\udfff" for mark in text):
            raise UsageError(f"{file}: {quoted(text, 40)} holds a lone surrogate, which is no text")


def _fields(values: dict[str, Any], fields: dict[str, tuple[Check, bool, str]], where: str) -> None:
    for name, (check, needed, expected) in fields.items():
        if name not in values:
            if needed:
                raise UsageError(f"{where}: {name!r} is missing")
        elif not check(values[name]):
            shown = quoted(values[name] if isinstance(values[name], str) else str(type(values[name]).__name__), 40)
            if isinstance(values[name], int | float):
                shown = _short(values[name])
            raise UsageError(f"{where}: {name!r} is {shown}, expected {expected}")


def _short(value: float) -> str:
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a very large number"
    return text if len(text) <= 40 else f"{text[:40]}…"
