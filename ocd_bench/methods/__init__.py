"""The built-in methods, registered by the same hook as a plugin's. Importing this package imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from ocd_bench.plugin import hookimpl

if TYPE_CHECKING:
    from ocd_bench.method import Method

ORDER = (
    "base",
    "ocd",
    "ocd-x5",
    "ocd-imitate",
    "ocd-gated",
    "ocd-noscale",
    "ocd-nn",
    "ocd-layer2",
    "ocd-regress",
    "ocd-random",
    "capacity",
    "bn-adapt",
    "tent",
    "tent-episodic",
    "tent-norm",
    "tent-layer",
    "memo",
    "t3a",
    "eata",
    "sar",
    "lame",
    "oracle",
    "oracle-all",
    "ocd-paper",
    "ocd-paper-x5",
)
"""Rows of the table, from top to bottom."""

MODULES = ("base", "ocd", "controls", "bn", "tent", "memo", "t3a", "eata", "sar", "lame", "oracle", "ocd_paper")
"""Modules of this package; each has a list ``METHODS``."""


def builtin() -> list[Method]:
    """The built-in methods in table order."""
    methods = {method.name: method for module in MODULES for method in import_module(f"{__name__}.{module}").METHODS}
    return [methods[name] for name in ORDER]


@hookimpl
def ocd_bench_register_methods(register: Callable[[Method], None]) -> None:
    """Register the built-in methods."""
    for method in builtin():
        register(method)
