"""Every dataset that an installed task knows, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ocd_bench.config import nearest
from ocd_bench.errors import UsageError
from ocd_bench.task import Dataset, Task


@dataclass(frozen=True)
class Entry:
    """A dataset and the task it belongs to."""

    task: str
    dataset: Dataset

    @property
    def folder(self) -> str:
        """The sub-folder of a data directory it lies in."""
        return self.dataset.folder or self.dataset.name


def catalogue(tasks: Mapping[str, Task]) -> list[Entry]:
    """All datasets, in the order of tasks and of their own lists."""
    return [Entry(task.name, dataset) for task in tasks.values() for dataset in task.datasets()]


def choose(entries: Sequence[Entry], names: Iterable[str]) -> list[Entry]:
    """The entries of these names (no names: all that can be downloaded).

    Raises:
        UsageError: for a name that no task lists.
    """
    names = list(names)
    if not names:
        return [entry for entry in entries if entry.dataset.sources]
    chosen = []
    for name in names:
        found = [entry for entry in entries if entry.dataset.name == name]
        if not found:
            raise UsageError(
                f"no dataset {name!r}{nearest(name, [e.dataset.name for e in entries])}; see 'ocd-bench data list'"
            )
        chosen.extend(found)
    return chosen
