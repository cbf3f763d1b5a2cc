"""Novel-view synthesis: the ``recon3d`` task of OCD-Bench. No heavy package is imported before the task is used."""

from __future__ import annotations

from collections.abc import Callable

import ocd_bench


@ocd_bench.hookimpl
def ocd_bench_register_tasks(register: Callable[[ocd_bench.Task], None]) -> None:
    from ocd_bench_recon3d.task import Recon3D

    register(Recon3D())
