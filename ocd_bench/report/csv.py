"""The table as CSV: one line per (task, dataset, method, metric), numbers unrounded and in their own unit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from ocd_bench.report.table import Group, Row, Table, TableMetric

FIELDS = (
    "task", "dataset", "method", "status", "reason", "metric", "unit", "higher_is_better", "primary", "seeds", "n_test",
    "mean", "sd", "low", "high", "delta", "delta_low", "delta_high", "delta_wide_low", "delta_wide_high", "doubt", "verdict",
)  # fmt: skip
"""What every line has. :attr:`Table.fields` follow."""


def render(table: Table) -> str:
    """A header and the lines of :func:`records`."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fields(table), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_safe, records(table)))
    return buffer.getvalue()


def fields(table: Table) -> list[str]:
    """Names of the columns, in order."""
    if table.plain:
        return [column.name for column in table.groups[0].columns]
    return [*FIELDS, *table.fields]


def records(table: Table) -> Iterator[dict[str, Any]]:
    """One line per metric of each row; a row without numbers has one line."""
    if table.plain:
        for group in table.groups:
            for place in range(len(group.rows)):
                yield {column.name: column.values[place] for column in group.columns}
        return
    for group in table.groups:
        columns = [column for column in group.columns if column.name in table.fields]
        for place, row in enumerate(group.rows):
            common = _of_row(group, row) | {column.name: column.values[place] for column in columns}
            metrics = [metric for metric in group.metrics if metric.name in row.metrics]
            yield from [common | _of_metric(row, metric) for metric in metrics] or [common]


def _of_row(group: Group, row: Row) -> dict[str, Any]:
    return {
        "task": group.task,
        "dataset": group.dataset,
        "method": row.method,
        "status": row.status,
        "reason": row.reason,
        "seeds": " ".join(str(seed) for seed in row.seeds),
        "n_test": group.n_test,
    }


def _of_metric(row: Row, metric: TableMetric) -> dict[str, Any]:
    mean, sd = row.metrics[metric.name]
    line = {"metric": metric.name, "unit": metric.unit, "mean": mean, "sd": sd}
    line |= {"higher_is_better": metric.higher_is_better, "primary": metric.primary}
    if metric.primary:
        line["verdict"] = row.verdict
        if row.value:
            line |= {"low": row.value.low, "high": row.value.high}
        if row.delta:
            line |= {"delta": row.delta.value, "delta_low": row.delta.low, "delta_high": row.delta.high}
            line |= dict(zip(("delta_wide_low", "delta_wide_high"), row.delta.wide or (), strict=False))
            line["doubt"] = row.delta.doubt
    return line


def _safe(line: dict[str, Any]) -> dict[str, Any]:
    """``true`` and ``false``; text that a spreadsheet would run as a formula is quoted with an apostrophe, as OWASP advises."""

    def safe(value: Any) -> Any:
        if isinstance(value, bool):
            return str(value).lower()
        return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value

    return {name: safe(value) for name, value in line.items()}
