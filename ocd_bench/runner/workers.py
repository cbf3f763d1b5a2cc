"""Executors of groups: worker processes on this machine or, with ray, on many machines."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ocd_bench.errors import Unavailable
from ocd_bench.runner.cells import Group
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
        with Heartbeat(reporter):
            return _gather(groups, _with_ray(request, groups, folder.path), reporter)
    settings = settings_of(request)
    supervisor = Supervisor(groups, folder, manager, reporter, settings, request.jobs)
    if not settings.isolate:
        if request.cell_timeout is not None:
            reporter.note("ocd-bench: --cell-timeout has no effect here: methods cannot run in processes of their own")
        with Heartbeat(reporter):
            if request.jobs > 1 and len(groups) > 1:
                return _gather(groups, _with_processes(request, groups, folder.path), reporter)
            return supervisor.run()
    return supervisor.run()


# -- other processes that load the plugins themselves, as a user would -----------------------------------------------------
class SilentReporter:
    """Collects a worker's messages. The parent prints them when the group has finished."""

    def __init__(self) -> None:
        self.cells: list[tuple[Mapping[str, Any], bool]] = []
        self.notes: list[str] = []

    def begin(self, group: Group, step: str) -> None:
        """Progress inside a group is not shown across machines."""

    def progress(self, group: Group, what: str, done: int, total: int) -> None:
        """Not shown."""

    def end(self, group: Group, whole: bool = True) -> None:
        """Not shown."""

    def tick(self) -> None:
        """Not shown."""

    def cell(self, cell: Mapping[str, Any], reused: bool) -> None:
        """A finished cell."""
        self.cells.append((cell, reused))

    def note(self, text: str) -> None:
        """A line for the user."""
        self.notes.append(text)


Answer = tuple[Outcome, SilentReporter]


def _silent(line: str) -> None:
    """The parent process has warned already."""


def work(request: RunRequest, group: Group, path: Path) -> Answer:
    """One group, in a worker; ``path`` is the run folder."""
    from ocd_bench.plugin.manager import load_plugins

    reporter = SilentReporter()
    manager = load_plugins(request.plugins, warn=_silent)
    supervisor = Supervisor([group], RunFolder(path), manager, reporter, settings_of(request, isolate=False))
    return supervisor.run(), reporter


def _gather(groups: Sequence[Group], answers: Iterable[tuple[int, Answer | str]], reporter: Any) -> Outcome:
    """The outcomes of all groups as one, in the plan's order. Each is shown when it arrives."""
    found: dict[int, Outcome] = {}
    for index, answer in answers:
        reporter.end(groups[index])
        if isinstance(answer, str):
            found[index] = Outcome(problems=[answer])
            reporter.note(f"ocd-bench: error: {answer}")
            continue
        found[index], said = answer
        for cell, reused in said.cells:
            reporter.cell(cell, reused)
        for note in said.notes:
            reporter.note(note)
    outcome = Outcome()
    for index in range(len(groups)):
        if index in found:
            outcome.cells += found[index].cells
            outcome.problems += found[index].problems
            outcome.notes.update(found[index].notes)
    return outcome


def _with_processes(request: RunRequest, groups: Sequence[Group], path: Path) -> Iterable[tuple[int, Answer | str]]:
    context = multiprocessing.get_context("spawn")  # a GPU in use does not survive a fork
    with ProcessPoolExecutor(min(request.jobs, len(groups)), mp_context=context) as pool:
        futures: dict[Future[Answer], int] = {pool.submit(work, request, group, path): i for i, group in enumerate(groups)}
        try:
            for future in as_completed(futures):
                index = futures[future]
                try:
                    yield index, future.result()
                except BrokenProcessPool:
                    group = groups[index]
                    yield (
                        index,
                        f"the worker of {group.task} {group.dataset} seed {group.seed} died; run the same command again",
                    )
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _with_ray(request: RunRequest, groups: Sequence[Group], path: Path) -> Iterable[tuple[int, Answer | str]]:
    """Run groups on a ray cluster. Every node must have access to the folder ``path``.

    Raises:
        Unavailable: if ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise Unavailable("--executor ray: unavailable: pip install 'ocd-bench[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    remote = ray.remote(work).options(num_gpus=1 if request.device.startswith("cuda") else 0)
    waiting = [remote.remote(request, group, path.resolve()) for group in groups]
    for index, reference in enumerate(waiting):
        yield index, ray.get(reference)
