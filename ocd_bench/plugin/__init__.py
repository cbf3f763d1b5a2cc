"""The plugin layer: hook specifications, the marker plugins use, and the loader."""

import pluggy

PROJECT = "ocd_bench"
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function as an implementation of an ``ocd_bench_`` hook."""
