"""The loader of plugins. A faulty plugin is skipped with a one-line warning; all others work."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from ocd_bench.config import nearest
from ocd_bench.errors import UsageError
from ocd_bench.plugin import PROJECT, hookimpl, spec
from ocd_bench.plugin.requires import missing
from ocd_bench.plugin.sources import Source, core, disabled, given, installed, project_file
from ocd_bench.plugin.validate import hook_problem, method_problem, task_problem, unmarked_hooks

if TYPE_CHECKING:
    import torch

    from ocd_bench.method import Method
    from ocd_bench.samples import Splits
    from ocd_bench.task import Request, Task

T = TypeVar("T")
Warn = Callable[[str], None]

CORE = str(Path(__file__).parents[1])
NO_TASKS = "no tasks are installed: pip install -r requirements.txt in a checkout of OCD-Bench, or give --plugin FILE.py"


def load_plugins(
    extra: Sequence[str] = (), *, only: Iterable[str] | None = None, warn: Warn | None = None, declared: bool = False
) -> Manager:
    """Load the core's methods, then installed plugins by name, then ``ocdfile.py``, then the plugins of ``extra``.

    ``$OCD_BENCH_DISABLE_PLUGINS`` turns off installed plugins and ``ocdfile.py``, never the plugins of ``extra``.

    Args:
        extra: files (``wine.py``) or modules, as given to ``--plugin``.
        only: names of installed plugins; these are loaded in place of all installed ones and ``ocdfile.py``. A fault in one of
            them is an error.
        warn: called with one line for each plugin, task or method that is left out; default: print to stderr.
        declared: load only the declarations of the core's methods, which can be listed but not fitted. Imports no torch.

    Raises:
        UsageError: if a plugin of ``extra`` or ``only`` is not found or has a fault.

    Example:
        >>> manager = load_plugins(only=())
        >>> manager.method("tent").description
        'BatchNorm2d scale and shift by entropy minimisation, online'

    .. versionadded:: 0.1
    """
    manager = Manager(warn or _to_stderr)
    manager.add(core(declared))
    found = list(installed())
    if only is None:
        found += filter(None, [project_file(extra)])
        off, warning = disabled(found)
        if warning:
            manager.warn(warning)
        chosen = [source for source in found if source.name not in off]
    else:
        chosen = [_strict(name, found) for name in only]
    for source in [*chosen, *map(given, dict.fromkeys(extra))]:
        manager.add(source)
    manager.finish()
    return manager


def _strict(name: str, found: Sequence[Source]) -> Source:
    for source in found:
        if name in (source.name, source.origin):
            return Source(source.name, source.origin, source.version, source.load, explicit=True)
    names = [source.name for source in found]
    known = ", ".join(names) or "none"
    raise UsageError(f"no plugin {name!r}{nearest(name, names)}; installed plugins: {known}; a file must end in .py")


class Manager:
    """Loaded plugins with their tasks, methods and hooks. Tasks and methods are registered when first used.

    .. versionadded:: 0.1
    """

    def __init__(self, warn: Warn) -> None:
        self.warn = warn
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(spec)
        self._loaded: list[tuple[Source, Any]] = []
        self._owners: dict[tuple[str, str], str] = {}
        self._refused: dict[tuple[str, str], str] = {}  # tasks and methods with a fault, and what it is
        if tracing():
            self._pluggy.add_hookcall_monitoring(_before, _after)

    # -- loading ----------------------------------------------------------------------------------------------------------
    def add(self, source: Source) -> None:
        """Load and register one plugin; leave it out with a warning if it has a fault."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints must not get into the output of --json
                plugin = source.load()
        except (Exception, SystemExit) as error:
            self._fault(source, f"cannot be loaded: {explain(error)}", "left out")
            return
        if self._pluggy.is_registered(plugin):
            return
        try:
            problem = f"{plugin.__name__} is a class: name an instance of it" if isinstance(plugin, type) else None
            problem = problem or hook_problem(plugin)
            if problem is None:
                with warnings.catch_warnings(record=True) as old:
                    warnings.simplefilter("always", DeprecationWarning)
                    self._pluggy.register(plugin, self._unique(source))
        except Exception as error:  # raised by pluggy, or by a plugin whose attributes cannot be listed
            if self._pluggy.is_registered(plugin):
                self._pluggy.unregister(plugin)
            problem = explain(error)
        if problem is not None:
            self._fault(source, problem, "plugin left out")
            return
        for name in unmarked_hooks(plugin):
            self.warn(f"{source}: {name}() is never called: mark it with @ocd_bench.hookimpl")
        for note in old:  # a hook or argument whose specification has warn_on_impl
            self.warn(f"{source}: {note.message}")
        self._loaded.append((source, plugin))

    def finish(self) -> None:
        """Add the tasks' own methods, which are called after every plugin's (``trylast``, and registered last)."""
        self._pluggy.register(_Defaults(), "the task itself")

    def complete(self) -> None:
        """Replace the declarations of the core's methods by the methods themselves (after ``declared=True``)."""
        for index, (source, plugin) in enumerate(self._loaded):
            whole = core()
            if source.name == whole.name and source.origin == whole.origin:
                methods = whole.load()
                if methods is not plugin:
                    name = self._pluggy.get_name(plugin)
                    self._pluggy.unregister(plugin)
                    self._pluggy.register(methods, name)
                    self._loaded[index] = (whole, methods)
                    self.__dict__.pop("methods", None)

    def folders(self) -> list[Path] | None:
        """Folders of the loaded plugins' packages, the core's left out; None if one is not a package (a file, an object)."""
        found = []
        for source, plugin in self._loaded:
            if source.origin != "ocd-bench" and not getattr(plugin, "__name__", "").startswith("ocd_bench."):
                paths = list(getattr(plugin, "__path__", ()))
                if len(paths) != 1:
                    return None
                found.append(Path(paths[0]))
        return found

    def _unique(self, source: Source) -> str:
        if not self._pluggy.has_plugin(source.name):
            return source.name
        return f"{source.name} ({source.origin})"

    def _fault(self, source: Source, text: str, consequence: str) -> None:
        if source.explicit:
            raise UsageError(f"{source}: {text}")
        self.warn(f"{source}: {text}; {consequence}")

    # -- what plugins contribute -----------------------------------------------------------------------------------------------
    @property
    def hook(self) -> Any:
        """The hooks, called by keyword: ``manager.hook.ocd_bench_load_data(task=task, request=request)``."""
        return self._pluggy.hook

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        """Tasks by name, in the order of registration."""
        return self._collect("task", "ocd_bench_register_tasks", task_problem)

    @cached_property
    def methods(self) -> Mapping[str, Method]:
        """Methods by name, in the order of registration: the core's first."""
        return self._collect("method", "ocd_bench_register_methods", method_problem)

    def task(self, name: str) -> Task:
        """The task of that name.

        Raises:
            UsageError: if there is none: its fault if it was left out, else the nearest name and the list of all, or how to
                install tasks.
        """
        if not self.tasks and ("task", name) not in self._refused:
            raise UsageError(NO_TASKS if name == "all" else f"unknown task {name!r}: {NO_TASKS}")
        return self._pick("task", name, self.tasks)

    def method(self, name: str) -> Method:
        """The method of that name, or ``A+B`` of two names (:mod:`ocd_bench.compose`).

        Raises:
            UsageError: if there is none; the message has the nearest name and the list of all. Or if two cannot be combined.
        """
        if "+" in name:
            from ocd_bench.compose import compose

            return compose(name, self.method, self.methods.values())
        return self._pick("method", name, self.methods)

    def owner(self, item: Task | Method) -> str:
        """Name of the plugin that registered a task or method; empty if no plugin did."""
        from ocd_bench.task import Task

        name = item.name.rpartition("+")[2]  # of A+B, the one that is fitted last
        return self._owners.get(("task" if isinstance(item, Task) else "method", name), "")

    def availability(self, task: Task, try_import: bool = True) -> str | None:
        """None if the modules that the task requires can be imported, else ``unavailable: ...`` with the remedy.

        Args:
            try_import: import the modules, which takes seconds and also finds broken ones; otherwise only look for them.
        """
        return missing(task.requires, try_import)

    def describe(self) -> list[dict[str, Any]]:
        """Name, version, origin and hooks of every loaded plugin, in the order of loading."""
        rows = []
        for source, plugin in self._loaded:
            version = source.version or str(getattr(plugin, "__version__", ""))
            name = self._pluggy.get_name(plugin)
            rows.append({"name": name, "version": version, "origin": source.origin, "hooks": self._hooks(plugin)})
        return rows

    def _hooks(self, plugin: Any) -> list[str]:
        return sorted(hook.name for hook in self._pluggy.get_hookcallers(plugin) or ())

    def _pick(self, kind: str, name: str, known: Mapping[str, T]) -> T:
        if name in known:
            return known[name]
        if (kind, name) in self._refused:
            raise UsageError(self._refused[kind, name])
        raise UsageError(f"unknown {kind} {name!r}{nearest(name, known)}; {kind}s: {', '.join(known) or 'none'}")

    def _collect(self, kind: str, hook: str, problem: Callable[[Any], str | None]) -> dict[str, Any]:
        """Call the hook of each plugin, in the order of loading: pluggy's own call goes backwards and stops at an error."""
        items: dict[str, Any] = {}
        for source, plugin in self._loaded:
            if hook not in self._hooks(plugin):
                continue
            offered: list[Any] = []

            def register(item: Any, offered: list[Any] = offered) -> None:
                offered.append(item)

            others = [other for _, other in self._loaded if other is not plugin]
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    self._pluggy.subset_hook_caller(hook, others)(register=register)
            except (Exception, SystemExit) as error:
                self._fault(source, f"{hook}() failed: {explain(error)}", f"its {kind}s are left out")
                continue
            faults = []
            for item in offered:
                label = getattr(item, "name", None) or type(item).__name__
                if text := problem(item):
                    faults.append(f"{kind} {label!r}: {text}")
                    self._refused[kind, str(label)] = f"{source}: {faults[-1]}"
                elif label in items:
                    self.warn(f"{source}: {kind} {label!r} is already registered by {self._owners[kind, label]!r}; left out")
                else:
                    items[label] = item
                    self._owners[kind, label] = self._pluggy.get_name(plugin) or source.name
            for number, fault in enumerate(faults):
                if number or len(faults) < len(offered):  # one with a fault does not stop the others of its plugin
                    self.warn(f"{source}: {fault}; {kind} left out")
                else:
                    self._fault(source, fault, f"{kind} left out")
        return items


class _Defaults:
    """The result of a firstresult hook if no plugin returns one: that of the task's own method."""

    @hookimpl(trylast=True)
    def ocd_bench_load_data(self, task: Task, request: Request) -> Splits:
        from ocd_bench.data.fetch import refuse_corrupted

        for dataset in task.datasets():
            if dataset.name == request.dataset:
                refuse_corrupted(dataset, request.data_dirs)
        return task.load_data(request)

    @hookimpl(trylast=True)
    def ocd_bench_base_model(self, task: Task, splits: Splits, request: Request) -> torch.nn.Module:
        return task.base_model(splits, request)

    @hookimpl(trylast=True)
    def ocd_bench_select_layer(self, task: Task, model: torch.nn.Module, request: Request) -> str | None:
        return task.select_layer(model, request)


# -- messages ------------------------------------------------------------------------------------------------------------
def _to_stderr(line: str) -> None:
    print(f"ocd-bench: warning: {line}", file=sys.stderr)


def explain(error: BaseException) -> str:
    """Type, message and place in the plugin, in one line. If plugins are traced, the traceback goes to stderr."""
    if tracing():
        traceback.print_exception(error)
    loaders = (__file__, pluggy.__file__, importlib.__file__)
    ours = ("<frozen", "<string>", *(str(Path(file).parent) for file in loaders))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    frames = [frame for frame in frames if not frame.filename.startswith(CORE)] or frames
    message = " ".join(str(error).split())
    place = f" ({'/'.join(Path(frames[-1].filename).parts[-2:])} line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' + message if message else ''}{place}"


def tracing() -> bool:
    """Whether ``$OCD_BENCH_TRACE_PLUGINS`` is set: every hook call is then printed to stderr."""
    return os.environ.get("OCD_BENCH_TRACE_PLUGINS", "") not in ("", "0")


def _before(hook: str, implementations: Sequence[Any], arguments: Mapping[str, Any]) -> None:
    values = ", ".join(f"{name}={_brief(value)}" for name, value in arguments.items())
    names = ", ".join(implementation.plugin_name for implementation in reversed(implementations)) or "nobody"
    print(f"ocd-bench: trace: {hook}({values}): {names}", file=sys.stderr)


def _after(outcome: Any, hook: str, implementations: Sequence[Any], arguments: Mapping[str, Any]) -> None:
    error = outcome.exception
    print(f"ocd-bench: trace: {hook} -> {_brief(outcome.get_result()) if error is None else repr(error)}", file=sys.stderr)


def _brief(value: Any) -> str:
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_brief, value))}]"
    return str(getattr(value, "name", None) or getattr(value, "__name__", None) or type(value).__name__)
