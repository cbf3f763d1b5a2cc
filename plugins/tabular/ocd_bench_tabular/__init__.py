"""Tabular data for OCD-Bench: the task ``tabular`` and the reference row ``xgboost``."""

from __future__ import annotations

from collections.abc import Callable

import ocd_bench
from ocd_bench_tabular.task import Tabular
from ocd_bench_tabular.trees import XGBoost

__all__ = ["Tabular", "XGBoost"]


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register: Callable[[ocd_bench.Task], None]) -> None:
    register(Tabular())


@ocd_bench.hookimpl
def ocd_bench_register_methods(register: Callable[[ocd_bench.Method], None]) -> None:
    register(XGBoost())
