"""Remarks of a reader on its interpretation of a file: short texts that are joined to the dataset's note below the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ocd_bench.printable import one_line
from ocd_bench.reading.names import split_name


class Notes:
    """The remarks of a reader in order, without repetitions.

    ``str(notes)`` is one line for ``Splits.note``: the runner prints it to stderr, shows it below the table
    and stores it in ``run.json``.
    """

    def __init__(self, *texts: str) -> None:
        self._texts: list[str] = []
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """One remark, without a full stop."""
        text = one_line(text)
        if text and text not in self._texts:
            self._texts.append(text)

    def left_out(self, names: Iterable[str]) -> None:
        """Files that were not read because of their ending."""
        self.add(left_out(names))

    def __str__(self) -> str:
        return "; ".join(self._texts)


def counted(count: int, one: str, many: str = "") -> str:
    """``1 file``, ``3 files``, ``2,400 rows``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(items: Sequence[str], most: int = 6) -> str:
    """``a, b, c and 4 more``."""
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more:,} more" if more > 0 else "")


def left_out(names: Iterable[str]) -> str:
    """``3 files left out: .jfif, no ending``; empty if there are none."""
    names = list(names)
    if not names:
        return ""
    endings = sorted({"".join(split_name(name.rpartition("/")[2])[1:]) or "no ending" for name in names})
    return f"{counted(len(names), 'file')} left out: {listed(endings)}"
