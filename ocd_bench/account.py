"""The seconds that a method's fit has cost, where methods share what they built and continue what killed processes began."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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

    def everything(self) -> Iterator[Cost]:
        """This cost and those of all that the value was built from; one more than once, if it was used more than once."""
        yield self
        for part in self.parts:
            yield from part.everything()


@dataclass
class _Open:
    began: float
    resumed: float
    inside: float = 0.0
    parts: list[Cost] = field(default_factory=list)


class Account:
    """What one method's fit has cost beside its own running time: as much as if it had built everything alone and at once.

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
        self._open.append(_Open(time.perf_counter(), self.resumed))
        try:
            value = make()
        finally:
            mine = self._open.pop()
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
        for part in cost.everything():
            if part not in self._counted:
                self._counted.add(part)
                self.charges += part.seconds
