"""How a group is divided when a cluster has room for more workers than there are groups.

Methods that share a fit stay together: a fit is the longest step of a group, and done twice it would cost more than it saves.
Such methods share a section of settings. So a part is the methods of one or several sections. Each part loads the samples and
receives the base model, which costs a second or two, so a group has no more parts than it takes to give every worker one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ocd_bench.runner.cells import Group
from ocd_bench.task import Task


def parts_of(groups: Sequence[Group], manager: Any, places: int) -> list[Group]:
    """The groups, divided if there are fewer of them than places. First come the parts that are expected to take longest.

    Args:
        manager: gives tasks and methods by name.
        places: how many workers can be busy at a time.
    """
    count = -(-places // max(1, len(groups)))  # rounded up
    divided = [_divided(group, manager, count) for group in groups]
    return [parts[rank] for rank in range(count) for parts in divided if rank < len(parts)]


def _divided(group: Group, manager: Any, count: int) -> list[Group]:
    if type(manager.task(group.task)).figures is not Task.figures:
        return [group]  # its figures compare the outputs of all methods
    families: dict[str, list[str]] = {}
    for name in group.methods:
        families.setdefault(manager.method(name).section or "", []).append(name)
    bins: list[list[str]] = [[] for _ in range(min(count, len(families)))]
    for family in sorted(families.values(), key=len, reverse=True):
        min(bins, key=len).extend(family)
    return [replace(group, methods=tuple(name for name in group.methods if name in part)) for part in bins]
