"""The plan: the cells of a run, and groups of cells that share data, base model and fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocd_bench.config import nearest
from ocd_bench.errors import UsageError
from ocd_bench.results import Key

if TYPE_CHECKING:
    from ocd_bench.task import Task


MOST_SEEDS = 10_000
"""Largest count of seeds; a larger one is probably a typing error."""


@dataclass(frozen=True)
class Variant:
    """The clean test set (no kind), or a corruption of it with severity 1 to 5."""

    kind: str = ""
    severity: int = 0

    def label(self, dataset: str) -> str:
        """The dataset's name in cell files and tables."""
        return f"{dataset}+{self.kind}-{self.severity}" if self.kind else dataset


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
        raise UsageError(f"--seeds {text!r}: expected a count such as 3, or a list such as 0,1,7")
    return seeds


def parse_variants(text: str | None, task: Task) -> tuple[Variant, ...]:
    """``"none,gaussian_noise:3,all:3"`` as variants of ``task``'s test set.

    Raises:
        UsageError: if the task has no such corruption, or the severity is not 1 to 5.
    """
    if not text:
        return (Variant(),)
    variants: list[Variant] = []
    for part in text.split(","):
        kind, _, level = part.strip().partition(":")
        if kind == "none" and not level:
            variants.append(Variant())
            continue
        if not task.corruptions:
            raise UsageError(f"--corruption {part}: task {task.name!r} defines no corruptions")
        if level not in ("1", "2", "3", "4", "5"):
            raise UsageError(f"--corruption {part}: give a severity of 1 to 5, for example {kind or task.corruptions[0]}:3")
        if kind != "all" and kind not in task.corruptions:
            raise UsageError(
                f"--corruption {part}: unknown kind {kind!r}{nearest(kind, task.corruptions)}; "
                f"{task.name} knows {', '.join(task.corruptions)}"
            )
        kinds: Sequence[str] = task.corruptions if kind == "all" else (kind,)
        variants.extend(Variant(name, int(level)) for name in kinds)
    return tuple(dict.fromkeys(variants))


def assign_datasets(text: str | None, tasks: Sequence[Task]) -> dict[str, tuple[str, ...]]:
    """Datasets for each task. None: each task's first. With one task any name will do (a folder the task can read);
    with several a name goes to the tasks that list it.

    Raises:
        UsageError: if with several tasks a name belongs to none, or a task gets none.
    """
    if not text:
        return {task.name: (task.datasets()[0].name,) for task in tasks}
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if "/" in name or "+" in name or name in ("", ".", ".."):
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


def parse_shard(text: str | None) -> tuple[int, int]:
    """``"2/4"`` as (index from 0, count).

    Raises:
        UsageError: unless 1 <= I <= N.
    """
    if not text:
        return 0, 1
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard {text!r}: expected I/N with 1 <= I <= N, for example 1/4")
    return int(index) - 1, int(count)
