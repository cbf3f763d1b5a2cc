"""Checks of the declarations of hooks, tasks and methods. Each check returns what to change, or None."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from ocd_bench.config import CORE, PRESETS, nearest
from ocd_bench.method import Method
from ocd_bench.metrics import KNOWN, Metric
from ocd_bench.plugin import PROJECT, spec
from ocd_bench.task import Task

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
SECTION = re.compile(r"[a-z0-9][a-z0-9_-]*")
RESERVED = {Task: ("all", *CORE), Method: ("all",)}
"""Names that have another meaning. The name of a task is also that of a section of the configuration."""
PLAIN = (bool, int, float, str)
CHOSEN = ("fixed", "validation", "hindsight")
"""How hyper-parameters are chosen."""

SPECS: Mapping[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(spec).items()
    if name.startswith(f"{PROJECT}_") and inspect.isfunction(function)
}
"""Arguments of every hook by name."""


# -- hooks ------------------------------------------------------------------------------------------------------------
def hook_problem(plugin: object) -> str | None:
    """A message about the first unknown hook or unknown argument of ``plugin``; None if all are correct."""
    for name, function, options in _functions(plugin):
        if options is None or options.get("optionalhook"):
            continue
        hook = options.get("specname") or name
        if hook not in SPECS:
            return f"hook {hook!r} does not exist{nearest(hook, SPECS)}; hooks: {', '.join(SPECS)}"
        for argument in _required(function):
            if argument not in SPECS[hook]:
                near = nearest(argument, SPECS[hook])
                return f"hook {hook!r} has no argument {argument!r}{near}; its arguments: {', '.join(SPECS[hook])}"
    return None


def unmarked_hooks(plugin: object) -> list[str]:
    """Functions that are named like hooks but lack ``@ocd_bench.hookimpl``."""
    return [name for name, _, options in _functions(plugin) if options is None and name.startswith(f"{PROJECT}_")]


def _functions(plugin: object) -> Iterator[tuple[str, Any, Mapping[str, Any] | None]]:
    for name in dir(plugin):
        static = inspect.getattr_static(plugin, name, None)  # does not evaluate a property of the plugin
        function = getattr(static, "__func__", static)
        if inspect.isroutine(function):
            yield name, function, getattr(function, f"{PROJECT}_impl", None)


def _required(function: Any) -> list[str]:
    """Names of the arguments without a default, as pluggy sees them."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
    return names[1:] if names[:1] == ["self"] or names[:1] == ["cls"] else names


# -- tasks and methods --------------------------------------------------------------------------------------------------
def task_problem(task: Any) -> str | None:
    """What to change in a task before it can be used, or None."""
    return (
        _object_problem(task, Task, ("load_data", "base_model", "loss", "metrics"))
        or _metrics_problem(task)
        or (None if task.Settings is None else settings_problem(task.Settings))
        or _presets_problem("presets", task.presets)
    )


def method_problem(method: Any) -> str | None:
    """What to change in a method before it can be used, or None."""
    if problem := _object_problem(method, Method, ("fit",)):
        return problem
    if method.uses_test_labels and not method.name.startswith("oracle"):
        return "uses_test_labels is true: begin its name with 'oracle'"
    if method.chosen not in CHOSEN:
        return f"chosen is {method.chosen!r}{nearest(str(method.chosen), CHOSEN)}: make it one of {', '.join(CHOSEN)}"
    if method.Settings is None:
        return None
    if not isinstance(method.section, str) or not SECTION.fullmatch(method.section):
        return f"section is {method.section!r}: it has Settings, so name the section, with a-z, 0-9, '_' and '-' only"
    if method.section in CORE:
        return f"section {method.section!r} is the core's own: choose another name"
    return settings_problem(method.Settings)


def _object_problem(item: Any, kind: type[Task] | type[Method], contract: tuple[str, ...]) -> str | None:
    what = kind.__name__
    if isinstance(item, type):
        return f"{item.__name__} was registered as a class: register an instance, {item.__name__}()"
    if not isinstance(item, kind):
        return f"a {type(item).__name__} was registered: make it a subclass of ocd_bench.{what}"
    name = getattr(item, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"its name is {name!r}: use a-z, 0-9 and '-' only, beginning with a letter or digit"
    if name in RESERVED[kind]:
        return f"the name {name!r} is reserved: choose another"
    for member in contract:
        if getattr(type(item), member) is getattr(kind, member):
            return f"it has no {member}(): define it"
    return None


def _metrics_problem(task: Task) -> str | None:
    declared = getattr(task, "primary_metric", None)
    names = (declared,) if isinstance(declared, str) else declared
    if not isinstance(names, tuple | list) or not names or not all(isinstance(name, str) and name for name in names):
        return f"primary_metric is {declared!r}: name one metric, or several"
    if not isinstance(task.metric_info, Mapping):
        return "metric_info must map names to ocd_bench.Metric"
    for name, info in task.metric_info.items():
        if not isinstance(info, Metric):
            return f"metric_info[{name!r}] is a {type(info).__name__}: make it an ocd_bench.Metric"
    if not isinstance(task.average, Metric | None):
        return f"average is {task.average!r}: make it an ocd_bench.Metric, or None"
    for name in names:
        if name not in KNOWN and name not in task.metric_info:
            return f"primary_metric {name!r} is not a common one{nearest(name, KNOWN)}: declare it in metric_info"
    return None


def settings_problem(settings: Any) -> str | None:
    """What to change in a Settings class, or None: a frozen dataclass of plain values, each with a default."""
    if not isinstance(settings, type) or not dataclasses.is_dataclass(settings):
        return f"Settings is {settings!r}: make it a frozen dataclass"
    if not settings.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return "Settings can be changed: write @dataclass(frozen=True)"
    try:
        hints = get_type_hints(settings)
    except NameError as error:
        return f"Settings has an annotation that cannot be resolved: {error}"
    fields = dataclasses.fields(settings)
    for field in fields:
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            return f"Settings.{field.name} has no default: give it one"
        if not _plain(hints[field.name]):
            kind = getattr(field.type, "__name__", field.type)
            return f"Settings.{field.name} is a {kind}: use bool, int, float, str, one of them or None, or a tuple of one"
    presets = getattr(settings, "presets", {})
    if problem := _presets_problem("Settings.presets", presets):
        return problem
    for preset, values in presets.items():
        for key in values:
            if key not in hints or key == "presets":
                near = nearest(key, [field.name for field in fields])
                return f"Settings.presets[{preset!r}] sets {key!r}, which is no field{near}"
    return None


def _presets_problem(where: str, presets: Any) -> str | None:
    if not isinstance(presets, Mapping) or not all(isinstance(values, Mapping) for values in presets.values()):
        return f"{where} must map a preset to {{key: value}}"
    for preset in presets:
        if preset not in PRESETS:
            return f"{where} has no preset {preset!r}{nearest(str(preset), PRESETS)}; presets: {', '.join(PRESETS)}"
    return None


def _plain(kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return len(arguments) == 2 and arguments[1] is Ellipsis and arguments[0] in PLAIN
    if origin in (Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not type(None)]
        return len(rest) == 1 and len(arguments) == 2 and _plain(rest[0])
    return kind in PLAIN
