"""The plugin layer: the marker for hooks, their specifications (:mod:`.spec`) and the loader (:mod:`.manager`)."""

import pluggy

__all__ = ["PROJECT", "hookimpl"]

PROJECT = "ocd_bench"
"""Prefix of the hooks, and the group of the entry points."""

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function as an implementation of an ``ocd_bench_`` hook: ``@ocd_bench.hookimpl``."""
