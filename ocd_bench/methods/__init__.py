"""The built-in methods, registered by the same hook as a plugin's. Importing this package imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from ocd_bench.plugin import hookimpl

if TYPE_CHECKING:
    from ocd_bench.method import Method


def builtin() -> list[Method]:
    """The built-in methods in the order of the table. The cards have the same order."""
    cards = import_module(f"{__name__}.catalogue").CARDS
    modules = dict.fromkeys(card.module for card in cards)
    methods = {method.name: method for module in modules for method in import_module(f"{__name__}.{module}").METHODS}
    return [methods[card.name] for card in cards]


@hookimpl
def ocd_bench_register_methods(register: Callable[[Method], None]) -> None:
    """Register the built-in methods."""
    for method in builtin():
        register(method)
