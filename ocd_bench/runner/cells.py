"""The plan: the cells of a run, and groups of cells that share data, base model and fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocd_bench.config import nearest
from ocd_bench.errors import UsageError
from ocd_bench.results import Key

if TYPE_CHECKING:
    from ocd_bench.task import Dataset, Task


MOST_SEEDS = 10_000
"""Largest count of seeds; a larger one is probably a typing error."""


@dataclass(frozen=True)
class Variant:
    """The clean test set (no kind), or a corruption of it with severity 1 to 5; and the order in which its samples come, if it
    is not that of the data (:mod:`ocd_bench.runner.streams`)."""

    kind: str = ""
    severity: int = 0
    stream: str = ""

    @property
    def plain(self) -> Variant:
        """The same test samples in the order of the data."""
        return Variant(self.kind, self.severity)

    def label(self, dataset: str) -> str:
        """The dataset's name in cell files and tables: ``mnist``, ``mnist+fog-3``, ``mnist+fog-3@sorted``."""
        name = f"{dataset}+{self.kind}-{self.severity}" if self.kind else dataset
        return f"{name}@{self.stream.replace(':', '-')}" if self.stream else name


@dataclass(frozen=True)
class Group:
    """Cells of one (task, dataset, seed): they share the samples, the base model and the fits that methods share."""

    task: str
    dataset: str
    seed: int
    methods: tuple[str, ...]
    variants: tuple[Variant, ...] = (Variant(),)


def cell_name(task: str, dataset: str, method: str, seed: int) -> str:
    """Stem of a cell's files."""
    return Key(task, dataset, method, seed).stem


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"3"`` means seeds 0, 1, 2; ``"0,1,7"`` (or ``"7,"``) means exactly these seeds.

    Raises:
        UsageError: for anything else.
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if "," not in text and numbers and numbers[0] > MOST_SEEDS:
        raise UsageError(f"--seeds {text[:40]}: more than {MOST_SEEDS} seeds; name the seeds wanted, such as 0,1,7")
    seeds = tuple(dict.fromkeys(numbers)) if "," in text else tuple(range(numbers[0] if numbers else 0))
    if any(seed >= 2**63 for seed in seeds):
        raise UsageError(f"--seeds {text[:40]}: a seed must be less than 2**63")
    if not seeds or min(seeds) < 0:
        raise UsageError(f"--seeds {text[:40]!r}: expected a count such as 3, or a list such as 0,1,7")
    return seeds


def parse_variants(text: str | None, task: Task) -> tuple[Variant, ...]:
    """``"none,gaussian_noise:3,all:3"`` as variants of ``task``'s test set.

    Raises:
        UsageError: if the task has no such corruption or set of them, or the severity is not 1 to 5.
    """
    return tuple(dict.fromkeys(variant for part in _parts(text, task).values() for variant in part))


def parse_sets(text: str | None, task: Task) -> dict[str, tuple[Variant, ...]]:
    """The sets of corruptions that ``text`` names, such as ``cifar10-c:5``, with their members.

    Raises:
        UsageError: as :func:`parse_variants`.
    """
    sets = corruption_sets(task)
    return {name: variants for name, variants in _parts(text, task).items() if name.partition(":")[0] in sets}


def corruption_sets(task: Task) -> Mapping[str, Sequence[str]]:
    """The task's own sets; a task without any has one, ``all``, of every kind."""
    return task.corruption_sets or ({"all": task.corruptions} if task.corruptions else {})


def _parts(text: str | None, task: Task) -> dict[str, tuple[Variant, ...]]:
    if text is None:
        return {"none": (Variant(),)}
    if not text.strip():
        raise UsageError("--corruption: empty; give kinds or sets such as gaussian_noise:3, or 'none'")
    parts: dict[str, tuple[Variant, ...]] = {}
    sets = corruption_sets(task)
    for part in text.split(","):
        kind, _, level = part.strip().partition(":")
        if kind == "none" and not level:
            parts["none"] = (Variant(),)
            continue
        if not task.corruptions:
            raise UsageError(f"--corruption {part}: task {task.name!r} defines no corruptions")
        if kind not in sets and kind not in task.corruptions:
            if kind in task.renamed_corruptions:
                new = task.renamed_corruptions[kind]
                raise UsageError(f"--corruption {part}: {kind!r} is now called {new!r} in task {task.name!r}")
            raise UsageError(
                f"--corruption {part}: unknown kind {kind!r}{nearest(kind, [*sets, *task.corruptions])}; "
                f"{task.name} knows {', '.join(task.corruptions)}, and the sets {', '.join(sets)}"
            )
        if level not in ("1", "2", "3", "4", "5"):
            raise UsageError(f"--corruption {part}: give a severity of 1 to 5, for example {kind}:3")
        parts[part.strip()] = tuple(Variant(name, int(level)) for name in sets.get(kind, (kind,)))
    return parts


def assign_datasets(text: str | None, tasks: Sequence[Task]) -> dict[str, tuple[str, ...]]:
    """Datasets for each task. None: each task's default ones. With one task any name will do (a folder the task can read);
    with several a name goes to the tasks that list it.

    Raises:
        UsageError: if with several tasks a name belongs to none, or a task gets none.
    """
    if text is None:
        return {task.name: default_datasets(task.datasets()) for task in tasks}
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError("--dataset: expected at least one name ('ocd-bench list datasets')")
    for name in names:
        if any(mark in name for mark in "/+@") or name in ("", ".", ".."):
            raise UsageError(f"--dataset {name!r}: expected the name of a dataset or of a folder inside --data-dir")
    if len(tasks) == 1:
        return {tasks[0].name: names}
    known = {task.name: [dataset.name for dataset in task.datasets()] for task in tasks}
    everything = [name for listed in known.values() for name in listed]
    for name in names:
        if name not in everything:
            raise UsageError(
                f"--dataset {name!r}: no chosen task lists it{nearest(name, everything)}; "
                "with several tasks give datasets they list ('ocd-bench list datasets'), or run one task at a time"
            )
    assigned = {task: tuple(name for name in names if name in listed) for task, listed in known.items()}
    for task, chosen in assigned.items():
        if not chosen:
            raise UsageError(f"--dataset {text}: none of these belongs to task {task!r}; it lists {', '.join(known[task])}")
    return assigned


def default_datasets(known: Sequence[Dataset]) -> tuple[str, ...]:
    """Those measured when none is asked for: the ones marked so, else the first."""
    return tuple(dataset.name for dataset in known if dataset.default) or tuple(dataset.name for dataset in known[:1])


def parse_device(text: str) -> tuple[str, int]:
    """``"cuda:1"`` as kind and index. The kind is ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UsageError: for anything else.
    """
    kind, colon, index = text.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and (kind == "auto" or not index.isdigit())):
        raise UsageError(f"--device {text!r}: expected auto, cpu, cuda or cuda:i")
    return kind, int(index or 0)


def parse_shard(text: str | None) -> tuple[int, int]:
    """``"2/4"`` as (index from 0, count).

    Raises:
        UsageError: unless 1 <= I <= N.
    """
    if text is None:
        return 0, 1
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard {text!r}: expected I/N with 1 <= I <= N, for example 1/4")
    return int(index) - 1, int(count)
