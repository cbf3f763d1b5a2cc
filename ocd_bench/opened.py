"""A run that is on disk, as an object for Python and notebooks. docs/python.md has examples.

.. versionadded:: 0.1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocd_bench import results
from ocd_bench.errors import Unavailable, UsageError
from ocd_bench.files import write_atomic

if TYPE_CHECKING:
    from numpy import ndarray as Array
    from pandas import DataFrame

    from ocd_bench.plugin.manager import Manager
    from ocd_bench.report import Table

__all__ = ["Run"]


class Scores(Mapping[results.Key, Mapping[str, "Array"]]):
    """Per-sample scores of every cell that has a number: ``scores[key]["accuracy"]`` is a float64 array ``(N,)``.

    A key is ``(task, dataset, method, seed)``. Arrays are read from disk when first used.
    """

    def __init__(self, stored: results.Run) -> None:
        self._stored = stored
        self._keys = [key for key in stored.cells if key in stored.sources]

    def __getitem__(self, key: tuple[str, str, str, int]) -> Mapping[str, Array]:
        if key not in self._stored.sources:
            raise KeyError(key)
        found = results.Key(*key)
        arrays = {name: self._stored.scores(found, name) for name in self._stored.cells[found]["metrics"]}
        return {name: array for name, array in arrays.items() if array is not None}

    def __iter__(self) -> Iterator[results.Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@dataclass(frozen=True, repr=False)
class Run:
    """The results of a run: what :func:`run` and :func:`load` return. In a notebook it is shown as a table.

    Attributes:
        stored: the run folder as it was read, or several read as one.
        problems: lines about bad input and other cells that could not be measured; empty for a run that was loaded.

    Example:
        >>> from ocd_bench import load
        >>> finished = load("results/quick")
        >>> finished.cells["tabular", "diabetes", "base", 0]["status"]
        'ok'
        >>> finished.scores["tabular", "diabetes", "base", 0]["rmse"].shape
        (88,)

    .. versionadded:: 0.1
    """

    stored: results.Run
    problems: tuple[str, ...] = ()
    _plugins: tuple[str, ...] = ()
    _given: Manager | None = None
    _tables: dict[bool, Table] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The run folder; of several read as one, the first."""
        return Path(self.stored.name.partition(", ")[0])

    @property
    def info(self) -> Mapping[str, Any]:
        """Content of ``run.json``: preset, seeds, settings, environment."""
        return self.stored.info

    @property
    def cells(self) -> Mapping[results.Key, Mapping[str, Any]]:
        """Cells by ``(task, dataset, method, seed)``, in the order of the table; docs/results-format.md describes one."""
        return self.stored.cells

    @cached_property
    def scores(self) -> Scores:
        """Per-sample scores by ``(task, dataset, method, seed)``, then by metric."""
        return Scores(self.stored)

    @property
    def failed(self) -> dict[results.Key, str]:
        """Cells that failed, with the reason."""
        return {key: str(cell["reason"]) for key, cell in self.cells.items() if cell["status"] == "failed"}

    @property
    def exit_code(self) -> int:
        """The exit code of the command line: 2: bad input; 3: a cell failed; 4: nothing was measured; else 0."""
        if self.problems:
            return 2
        if self.failed:
            return 3
        return 0 if any(cell["status"] == "ok" for cell in self.cells.values()) else 4

    def table(self, format: str = "table", width: int | None = None, *, leaderboard: bool = False) -> str:
        """The comparison table as text.

        Args:
            format: ``table``, ``markdown``, ``csv``, ``latex`` or ``html`` (a whole page), as for ``ocd-bench report``.
            width: columns of text for ``table``; default: those of the terminal, 100 where there is none.
            leaderboard: methods by tasks and datasets, with ranks, in place of the tables.

        Raises:
            UsageError: for an unknown format, or a damaged score archive.
        """
        from ocd_bench.report import render

        table = self._table(sections=format == "html" and not leaderboard)
        if leaderboard:
            from ocd_bench.report.leaderboard import leaderboard as ranked

            table = ranked(table)
        return render(table, format, width)

    def plots(self, folder: str | Path, format: str = "svg") -> list[Path]:
        """Write the plots of the HTML page as files; returns their paths.

        Args:
            format: ``svg``, or ``png``, which needs the extra ``ocd-bench[png]``.

        Raises:
            UsageError: for another format, or if the folder cannot be written.
            Unavailable: if the package for PNG is not installed.
        """
        from ocd_bench.report.plots import write_plots

        return write_plots(self._table(), Path(folder), format)

    def write_table(self) -> None:
        """Write ``table.md`` into the run folder.

        Raises:
            OSError: if the folder cannot be written.
        """
        write_atomic(self.path / "table.md", self.table("markdown").encode("utf-8", "backslashreplace"))

    def to_pandas(self, of: str = "rows") -> DataFrame:
        """The numbers as a data frame of pandas.

        Args:
            of: ``rows``: one line per task, dataset, method and metric, with means over seeds and intervals, as
                ``ocd-bench report --format csv``; ``cells``: one line per seed and metric, without any mean.

        Raises:
            Unavailable: if pandas is not installed.
            UsageError: for another value of ``of``.
        """
        if of not in ("rows", "cells"):
            raise UsageError(f"to_pandas({of!r}): expected 'rows' or 'cells'")
        try:
            import pandas
        except ImportError as error:
            raise Unavailable("to_pandas() needs pandas: pip install pandas") from error
        if of == "rows":
            from ocd_bench.report.csv import fields, records

            table = self._table()
            frame = pandas.DataFrame.from_records(list(records(table)), columns=fields(table))
            return frame.astype({name: float for name in NUMBERS if name in frame})  # of one seed, the SD is missing
        return pandas.DataFrame.from_records(list(_long(self.cells)), columns=CELL_FIELDS)

    def _table(self, sections: bool = False) -> Table:
        if sections not in self._tables:
            from ocd_bench.plugin.manager import load_plugins
            from ocd_bench.report import build_table

            hook = (self._given or load_plugins(self._plugins, declared=True)).hook
            further = hook.ocd_bench_report_sections if sections else None
            self._tables[sections] = build_table(self.stored, columns=hook.ocd_bench_report_columns, sections=further)
        return self._tables[sections]

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        counts = f"{len(self.cells)} cells" + (f", {len(self.failed)} failed" if self.failed else "")
        return f"<ocd_bench.Run {self.stored.name}: {counts}>"

    def _repr_html_(self) -> str:
        from ocd_bench.report.notebook import render

        return render(self._table())


NUMBERS = ("mean", "sd", "low", "high", "delta", "delta_low", "delta_high", "delta_wide_low", "delta_wide_high")
"""Columns of ``to_pandas("rows")`` that have the type float even if all values are missing."""
CELL_FIELDS = ["task", "dataset", "method", "seed", "status", "reason", "layer", "n_test", "metric", "unit", "primary", "value"]
"""Columns of ``to_pandas("cells")``; the value is in ``unit``."""


def _long(cells: Mapping[results.Key, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for key, cell in cells.items():
        common = {**key._asdict(), **{name: cell.get(name) for name in ("status", "reason", "layer", "n_test")}}
        for name, metric in cell["metrics"].items():
            primary = bool(metric.get("primary"))
            yield {**common, "metric": name, "unit": metric["unit"], "primary": primary, "value": metric["value"]}
        if not cell["metrics"]:
            yield common
