"""The columns of a report, each declared once. A further column of the core is one more :class:`Field` in :data:`FIELDS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ocd_bench.report.csv import FIELDS as CSV_FIELDS
from ocd_bench.report.numbers import quantity
from ocd_bench.report.table import DASH, Column, Field, Kind, Row, TableMetric


def _cost(
    name: str, heading: str, rank: int = 50, compact: bool = False, text: Callable[[Row], str] | None = None
) -> Field[Row]:
    return Field(name, heading, lambda row: row.cost.get(name), text, rank=rank, compact=compact)


def _speed(row: Row) -> str:
    """Samples per second with three significant digits: more are not repeatable."""
    speed = row.cost.get("samples_per_s")
    return DASH if speed is None else quantity(float(f"{speed:.3g}"))


FIELDS: tuple[Field[Row], ...] = (
    _cost("fit_s", "fit [s]", rank=30, compact=True),
    _cost("adapt_s", "test [s]"),
    _cost("samples_per_s", "samples/s", rank=20, compact=True, text=_speed),
    _cost("peak_memory_mb", "memory [MB]"),
    _cost("parameters", "parameters"),
    Field("chosen", "chosen", lambda row: row.chosen or None, kind=Kind.LABEL, compact=False),
)
"""Columns with one value per row, in their order after the metrics."""

EQUAL = "gain 0: equal to base"
"""In place of a difference that is 0 by construction."""

_METHOD: Field[Row] = Field(
    "method",
    "method",
    lambda row: row.method,
    lambda row: row.method,
    Kind.LABEL,
    mark=lambda row: "better" if row.verdict == "better" else "",
)


def columns_of(rows: Sequence[Row], metrics: Sequence[TableMetric]) -> tuple[Column, ...]:
    """Every column of a group: method, metrics (primary first), difference from the reference, :data:`FIELDS`, plugins' own."""
    declared: list[Field[Row]] = [_METHOD]
    for place, metric in enumerate(metrics):
        declared.append(_metric(metric, 0 if metric.primary else 40 + place))
        if metric.primary:
            declared += [_difference(metric, rows[0].against), _wide(metric)]
    declared += FIELDS
    headings = dict.fromkeys(heading for row in rows for heading in row.extra)
    declared += [_plugin(heading, 60 + place) for place, heading in enumerate(headings)]
    return tuple(field.column(rows) for field in declared)


def field_names(rows: Sequence[Row]) -> tuple[str, ...]:
    """Names of the columns that have one value per row: :data:`FIELDS`, then plugins' own."""
    headings = dict.fromkeys(heading for row in rows for heading in row.extra)
    return (*(field.name for field in FIELDS), *map(_plugin_name, headings))


def _plugin_name(heading: str) -> str:
    """The name of a plugin's column: its heading, with an addition where the core has a column of that name."""
    return f"{heading} (plugin)" if heading in (*CSV_FIELDS, *(field.name for field in FIELDS)) else heading


def _metric(metric: TableMetric, rank: int) -> Field[Row]:
    def text(row: Row) -> str:
        return metric.style.spread(*row.metrics[metric.name]) if metric.name in row.metrics else DASH

    def value(row: Row) -> float | None:
        return row.metrics[metric.name][0] if metric.name in row.metrics else None

    return Field("", metric.heading, value, text, Kind.METRIC, rank=rank)


def _difference(metric: TableMetric, against: str) -> Field[Row]:
    def text(row: Row) -> str:
        if row.delta and row.no_difference:
            return EQUAL
        return metric.style.difference(row.delta) if row.delta else DASH

    unit = f" [{metric.style.difference_unit}]" if metric.style.difference_unit else ""
    return Field(
        "delta",
        f"Δ {against}{unit}",
        lambda row: row.delta.value if row.delta else None,
        text,
        Kind.DIFFERENCE,
        mark=lambda row: row.verdict,
        rank=1,
    )


def _wide(metric: TableMetric) -> Field[Row]:
    def text(row: Row) -> str:
        known = row.delta and row.delta.wide and not row.no_difference
        return metric.style.interval(row.delta.wide) if known else DASH  # type: ignore[union-attr, arg-type]

    return Field(
        "delta_wide",
        "seeds and samples",
        lambda row: row.delta.wide[0] if row.delta and row.delta.wide else None,
        text,
        Kind.DIFFERENCE,
        mark=lambda row: row.verdict,
        rank=2,
    )


def _plugin(heading: str, rank: int) -> Field[Row]:
    return Field(
        _plugin_name(heading),
        heading,
        lambda row: row.extra.get(heading),
        lambda row: row.extra.get(heading, DASH),
        Kind.PLUGIN,
        rank=rank,
    )
