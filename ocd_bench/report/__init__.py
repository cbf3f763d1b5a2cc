"""Comparison tables of stored runs: :func:`build_table`, then :func:`render` in one of :data:`FORMATS`.

Data flow in one direction: ``build.py`` makes the table model of ``table.py`` from cells and scores, with the columns that
``columns.py`` declares. One module per format renders the model. To add a column to every format, add a
:class:`~ocd_bench.report.table.Field` to :data:`ocd_bench.report.columns.FIELDS`.
"""

from __future__ import annotations

import importlib

from ocd_bench.errors import UsageError
from ocd_bench.report.build import build_table
from ocd_bench.report.table import Table

FORMATS = ("table", "markdown", "csv", "latex", "html")

__all__ = ["FORMATS", "Table", "build_table", "render"]


def render(table: Table, format: str = "table", width: int | None = None) -> str:
    """The table as text, ending in a newline.

    Args:
        format: one of :data:`FORMATS`.
        width: columns of the terminal for ``table``; default: those of the terminal, 100 where there is none.

    Raises:
        UsageError: for an unknown format.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; formats: {', '.join(FORMATS)}")
    if format == "table":
        from ocd_bench.report.text import render_text

        return render_text(table, width)
    module = importlib.import_module(f"ocd_bench.report.{format}")
    return module.render(table)
