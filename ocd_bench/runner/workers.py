"""Groups in other processes, on this machine or, with ray, on many. A worker loads the plugins itself, like a user would."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocd_bench.errors import Unavailable
from ocd_bench.runner.cells import Group

if TYPE_CHECKING:
    from ocd_bench.runner.run import Order, Result


class SilentReporter:
    """Collects what a worker has to say; the parent prints it when the group is back."""

    def __init__(self) -> None:
        self.cells: list[tuple[Mapping[str, Any], bool]] = []
        self.notes: list[str] = []

    def progress(self, what: str, done: int, total: int) -> None:
        """Progress inside a group is not shown across processes."""

    def cell(self, cell: Mapping[str, Any], reused: bool) -> None:
        """A finished cell."""
        self.cells.append((cell, reused))

    def note(self, text: str) -> None:
        """A line for the user."""
        self.notes.append(text)


def _silent(line: str) -> None:
    """The parent process has warned already."""


def work(order: Order, group: Group, path: Path, jobs: int) -> tuple[Result, SilentReporter]:
    """One group, in a worker."""
    from ocd_bench.plugin.manager import load_plugins
    from ocd_bench.runner.machine import limit_threads
    from ocd_bench.runner.run import run_group
    from ocd_bench.runner.store import RunFolder

    limit_threads(jobs)
    reporter = SilentReporter()
    return run_group(order, group, RunFolder(path), load_plugins(order.plugins, warn=_silent), reporter), reporter


def _tell(answer: tuple[Result, SilentReporter], reporter: Any) -> Result:
    result, said = answer
    for cell, reused in said.cells:
        reporter.cell(cell, reused)
    for note in said.notes:
        reporter.note(note)
    return result


def process_results(order: Order, groups: Sequence[Group], path: Path, reporter: Any) -> Iterator[Result]:
    """Results of the groups from ``order.jobs`` processes, in the plan's order."""
    jobs = min(order.jobs, len(groups))
    context = multiprocessing.get_context("spawn")  # torch's thread pools do not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures: dict[Future[Any], int] = {pool.submit(work, order, group, path, jobs): i for i, group in enumerate(groups)}
        try:
            ready: dict[int, Result] = {}
            for future in as_completed(futures):
                ready[futures[future]] = _tell(future.result(), reporter)
            yield from (ready[index] for index in range(len(groups)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def ray_results(order: Order, groups: Sequence[Group], path: Path, reporter: Any) -> Iterator[Result]:
    """Results of the groups from a ray cluster; ``path`` must be a folder every node sees.

    Raises:
        Unavailable: if ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise Unavailable("--executor ray: unavailable: pip install 'ocd-bench[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    remote = ray.remote(work).options(num_gpus=1 if order.device.startswith("cuda") else 0)
    waiting = [remote.remote(order, group, path.resolve(), 1) for group in groups]
    for reference in waiting:
        yield _tell(ray.get(reference), reporter)
