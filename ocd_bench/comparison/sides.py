"""One run's numbers of one row and metric: values by seed, and what each test sample adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocd_bench.results import Key, Run
from ocd_bench.stats import Array, Ids, dependence, influence, same_groups, sample_variance


@dataclass(frozen=True)
class Numbers:
    """Values by seed.

    Attributes:
        values: ``(S,)``.
        scores: for each seed the scores of its test samples ``(N,)``; None without per-sample scores.
        pulls: for each seed the influence of each test sample on the value; None likewise.
        groups: for each seed the groups of its test samples; None where the run has none.
        reduce: how a value is computed from scores.
    """

    seeds: tuple[int, ...]
    values: Array
    scores: list[Array] | None
    pulls: list[Array] | None
    groups: list[Ids | None]
    reduce: str

    @property
    def problem(self) -> str:
        """Why there is no variance over its test samples; empty if there is one."""
        if not self.pulls:
            return ""
        return dependence([len(pull) for pull in self.pulls], self.groups)[0].problem

    @property
    def size(self) -> int | None:
        """Number of test samples, if all seeds have as many."""
        sizes = {len(pull) for pull in self.pulls or ()}
        return sizes.pop() if len(sizes) == 1 else None

    def mean_pull(self) -> Array:
        """Mean over seeds, where all have equally many samples."""
        return np.mean(self.pulls or [], axis=0)


def numbers(run: Run, keys: Sequence[Key], metric: str) -> Numbers:
    """The numbers of cells that are ok.

    Raises:
        UsageError: if a score archive is damaged.
    """
    entries = [run.cells[key]["metrics"][metric] for key in keys]
    found = [run.scores(key, metric) for key in keys]
    scores = [array for array in found if array is not None and len(array) > 1]
    reduce = entries[0].get("reduce", "mean")
    complete = len(scores) == len(keys)
    return Numbers(
        tuple(key.seed for key in keys),
        np.array([entry["value"] for entry in entries], dtype=float),
        scores if complete else None,
        [influence(array, reduce) for array in scores] if complete else None,
        [run.groups(key) for key in keys],
        reduce,
    )


def is_identical(old: Numbers, new: Numbers) -> bool:
    """Whether both have the same seeds with bit-identical scores; without scores, identical values."""
    if old.seeds != new.seeds or not np.array_equal(old.values, new.values):
        return False
    if old.scores is None or new.scores is None:
        return True
    return all(np.array_equal(one, two) for one, two in zip(old.scores, new.scores, strict=True))


def common_groups(old: Numbers, new: Numbers) -> list[Ids | None]:
    """Groups by seed of samples that are the same in both; those of either run count."""
    return [one if one is not None else two for one, two in zip(old.groups, new.groups, strict=True)]


def sample_part(old: Numbers, new: Numbers) -> tuple[float, float] | None:
    """Variance of the change over test samples, and its degrees of freedom; None without scores.

    Samples are paired where all test sets have one size and the same groups; else each run has its own.
    """
    if old.pulls is None or new.pulls is None:
        return None
    known = next((one for one in (*old.groups, *new.groups) if one is not None), None)
    one_size = old.size is not None and old.size == new.size
    if one_size and same_groups([known if one is None else one for one in (*old.groups, *new.groups)]):
        return sample_variance([new.mean_pull() - old.mean_pull()], [known])
    if old.seeds == new.seeds and all(len(a) == len(b) for a, b in zip(old.pulls, new.pulls, strict=True)):
        return sample_variance([two - one for one, two in zip(old.pulls, new.pulls, strict=True)], common_groups(old, new))
    one, two = sample_variance(old.pulls, old.groups), sample_variance(new.pulls, new.groups)
    return one[0] + two[0], one[1] + two[1]
