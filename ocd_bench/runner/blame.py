"""Finds the plugin, file and line that an error comes from, in a traceback or in the printed stack of a dead process."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CORE = Path(__file__).parents[1]
Frame = tuple[str, int]

_FRAME = re.compile(r'^\s*File "(.+?)", line (\d+)', re.MULTILINE)


def printable(text: object, limit: int = 500) -> str:
    """One line without control characters, lone surrogates or changes of direction, at most ``limit`` characters long."""
    line = " ".join(str(text).split())
    line = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in line)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def message_of(error: BaseException) -> str:
    """``ValueError: first line of the message``, printable."""
    try:
        text = str(error)
    except Exception:  # a plugin's own class may fail to print itself
        text = ""
    if isinstance(error, SystemExit):
        return f"sys.exit({printable(error.code, 80) if error.code is not None else ''})"
    first = text.strip().splitlines()[0] if text.strip() else "no message"
    return f"{type(error).__name__}: {printable(first)}"


class Blame:
    """Finds the plugin that a call stack belongs to.

    Args:
        manager: the loaded plugins.
    """

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self._roots: dict[Path, str] = {}
        for item in [*manager.tasks.values(), *manager.methods.values()]:
            self._add(type(item).__module__, manager.owner(item))
        for caller in vars(manager.hook).values():
            for implementation in getattr(caller, "get_hookimpls", lambda: ())():
                self._add(getattr(implementation.function, "__module__", ""), implementation.plugin_name)

    def _add(self, module: str, plugin: str) -> None:
        top = sys.modules.get(module.partition(".")[0])
        file = getattr(sys.modules.get(module), "__file__", None)
        if top is None or file is None:
            return
        root = Path(file)
        if hasattr(top, "__path__") and getattr(top, "__file__", None):
            root = Path(str(top.__file__)).parent
        if root.resolve() != CORE:
            self._roots.setdefault(root.resolve(), plugin)

    def of_error(self, error: BaseException, item: Any) -> str:
        """``plugin 'x', file.py line 3`` for an exception; ``item`` is the running task or method."""
        frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
        return self.of_frames(frames[::-1], item)

    def of_trace(self, trace: str, item: Any) -> str:
        """The same for the printed stack of a process that has ended."""
        frames = [(file, int(line)) for file, line in _FRAME.findall(trace)]
        return self.of_frames(frames if "most recent call first" in trace else frames[::-1], item)

    def of_frames(self, frames: Sequence[Frame], item: Any) -> str:
        """The same for frames, the innermost first."""
        for file, line in frames:
            plugin = self._owner(Path(file))
            if plugin is not None:
                return _place(plugin, file, line)
        for file, line in frames:  # a method of the core
            if CORE in Path(file).parents and Path(file).parent.name in ("methods", "engine", "published"):
                return _place(self.manager.owner(item) or "methods", file, line)
        return self.of_item(item)

    def of_item(self, item: Any, member: str = "") -> str:
        """The place of definition of a task or method, or of one of its members."""
        plugin = self.manager.owner(item) or "unknown"
        found = getattr(type(item), member, None) if member else None
        for target in (found, getattr(type(item), "fit", None), type(item)):
            try:
                code = getattr(inspect.unwrap(target), "__code__", None)  # type: ignore[arg-type]
                if code is not None and (not member or target is found) and type(item).__module__ == target.__module__:
                    return _place(plugin, code.co_filename, code.co_firstlineno)
                if isinstance(target, type):
                    return _place(plugin, inspect.getsourcefile(target) or "?", inspect.getsourcelines(target)[1])
            except (OSError, TypeError, AttributeError, ValueError):
                continue
        return f"plugin {plugin!r}"

    def how_to_check(self, item: Any) -> str:
        """The command that examines the plugin."""
        plugin = self.manager.owner(item)
        origin = next((row["origin"] for row in self.manager.describe() if row["name"] == plugin), "")
        return f"run 'ocd-bench plugin check {origin if origin.endswith('.py') else plugin}'"

    def _owner(self, file: Path) -> str | None:
        try:
            path = file.resolve()
        except (OSError, RuntimeError, ValueError):
            return None
        for root, plugin in self._roots.items():
            if path == root or root in path.parents:
                return plugin
        return None


def _place(plugin: str, file: str, line: int) -> str:
    return f"plugin {plugin!r}, {printable('/'.join(Path(file).parts[-2:]))} line {line}"
