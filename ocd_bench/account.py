"""The seconds that a method's fit has cost, where methods share what they built and continue what killed processes began."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Cost:
    """What a value that methods share has cost.

    Attributes:
        seconds: that building it took, without those of ``parts``.
        parts: of the shared values that it was built from.
    """

    seconds: float
    parts: tuple[Cost, ...]


@dataclass
class _Open:
    began: float
    resumed: float
    inside: float = 0.0
    parts: list[Cost] = field(default_factory=list)


class Account:
    """What one method's fit has cost beside its own running time, so that it does not depend on which method came first.

    Not counted: further bases that were in the cache, and traces of training samples that an earlier fit has kept.

    Attributes:
        charges: seconds that other methods spent on values that this one uses, each value counted once.
        resumed: seconds that killed processes spent on loops that this method continued.
    """

    def __init__(self) -> None:
        self.charges = self.resumed = 0.0
        self._counted: set[Cost] = set()
        self._open: list[_Open] = []

    def resume(self, seconds: float) -> None:
        """Note that a loop was continued after so many seconds."""
        self.resumed += seconds

    def build(self, make: Callable[[], Any]) -> tuple[Any, Cost]:
        """What ``make`` returns, and what it has cost. The seconds are in the method's running time, and not charged."""
        mine = _Open(time.perf_counter(), self.resumed)
        self._open.append(mine)
        try:
            value = make()
        finally:
            self._open.pop()
        whole = time.perf_counter() - mine.began + self.resumed - mine.resumed
        if self._open:
            self._open[-1].inside += whole
        cost = Cost(whole - mine.inside, tuple(mine.parts))
        self._counted.add(cost)
        return value, cost

    def use(self, cost: Cost) -> None:
        """Note that the method uses a value of this cost, which another one may have built."""
        if self._open:
            self._open[-1].parts.append(cost)
        self._charge(cost)

    def _charge(self, cost: Cost) -> None:
        if cost in self._counted:
            return  # and so are its parts
        self._counted.add(cost)
        self.charges += cost.seconds
        for part in cost.parts:
            self._charge(part)
