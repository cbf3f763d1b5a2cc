"""The settings that workers share, and the choice of the executor that starts them."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from ocd_bench.errors import Terminated
from ocd_bench.runner.cells import Group
from ocd_bench.runner.executors import Executor
from ocd_bench.runner.executors.forked import ForkedExecutor
from ocd_bench.runner.executors.spawned import SpawnedExecutor
from ocd_bench.runner.fingerprints import read_code
from ocd_bench.runner.job import Settings
from ocd_bench.runner.machine import choose_device
from ocd_bench.runner.order import Outcome, RunRequest
from ocd_bench.runner.progress import Heartbeat
from ocd_bench.runner.sandbox import can_isolate
from ocd_bench.runner.store import RunFolder
from ocd_bench.runner.supervisor import Supervisor


def settings_of(request: RunRequest, isolate: bool | None = None) -> Settings:
    """Settings that all groups share. Unless ``isolate`` is false, each method gets its own process if that is possible."""
    device = choose_device(request.device)
    return Settings(
        preset=request.preset,
        overrides=request.overrides,
        data_dirs=request.data_dirs,
        offline=request.offline,
        device=device,
        figures=request.figures,
        isolate=can_isolate(device, int(request.overrides.get("run.threads", 1))) if isolate is None else isolate,
        cell_timeout=request.cell_timeout,
        bases=request.bases,
        keep_bases=request.keep_bases,
    )


def results(request: RunRequest, groups: Sequence[Group], folder: RunFolder, manager: Any, reporter: Any) -> Outcome:
    """Run the groups with the executor of the request."""
    if request.executor == "ray":
        from ocd_bench.runner.executors.cluster import ClusterExecutor

        return _with(ClusterExecutor(request, groups, folder, manager), groups, folder, manager, reporter)
    read_code(manager, groups)
    settings = settings_of(request)
    if settings.isolate:
        return _with(ForkedExecutor(manager, settings, folder, request.jobs), groups, folder, manager, reporter)
    if request.cell_timeout is not None:
        reporter.note("ocd-bench: --cell-timeout has no effect here: methods cannot run in processes of their own")
    if request.jobs > 1 and len(groups) > 1:
        return _with(SpawnedExecutor(request, folder), groups, folder, manager, reporter)
    with Heartbeat(reporter):
        return Supervisor(groups, folder, manager, reporter, settings).run()


def _with(executor: Executor, groups: Sequence[Group], folder: RunFolder, manager: Any, reporter: Any) -> Outcome:
    try:
        outcome = Supervisor(groups, folder, manager, reporter, executor).run()
    except BaseException:
        executor.close()
        raise
    try:
        executor.close()
    except (KeyboardInterrupt, Terminated) as stop:  # everything is measured; only this is left, and the table
        outcome.stopped = stop.number if isinstance(stop, Terminated) else signal.SIGINT
        executor.close()
    return outcome
