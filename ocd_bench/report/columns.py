"""The columns of a group as text: what the flat formats (terminal, markdown, LaTeX) have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ocd_bench.report.numbers import quantity
from ocd_bench.report.table import Group, Row

DASH = "–"


@dataclass(frozen=True)
class TextColumn:
    """A heading and one text per row. ``rank``: the lower, the longer it stays when there is no room."""

    heading: str
    texts: tuple[str, ...]
    rank: int
    numeric: bool = True


def text_columns(group: Group, extras: Sequence[str] = ()) -> list[TextColumn]:
    """Columns after the method's name: metrics (primary first), difference from base, costs, plugins' own.

    Rows without numbers have dashes; :attr:`Row.problem` says why and belongs across them.
    """
    columns = []
    for place, metric in enumerate(group.metrics):
        texts = [metric.style.spread(*row.metrics[metric.name]) if metric.name in row.metrics else DASH for row in group.rows]
        columns.append(TextColumn(metric.heading, tuple(texts), 0 if metric.primary else 40 + place))
    primary = group.primary
    if primary and group.has_delta:
        unit = f" [{primary.style.difference_unit}]" if primary.style.difference_unit else ""
        texts = [primary.style.difference(row.delta) if row.delta else DASH for row in group.rows]
        columns.insert(1, TextColumn(f"Δ base{unit}", tuple(texts), 1))
    for heading, name in (("fit s", "fit_s"), ("samples/s", "samples_per_s")):
        costs = tuple(quantity(row.cost.get(name)) for row in group.rows)
        if any(text != DASH for text in costs):
            columns.append(TextColumn(heading, costs, 20 if name == "samples_per_s" else 30))
    for place, heading in enumerate(extras):
        texts = [row.extra.get(heading, DASH) for row in group.rows]
        if any(text != DASH for text in texts):
            columns.append(TextColumn(heading, tuple(texts), 60 + place, numeric=False))
    return columns


def title(group: Group) -> str:
    """``images, mnist``"""
    return f"{group.task}, {group.dataset}"


def marked(row: Row) -> bool:
    """Whether the row is set in bold: its difference from base is an improvement beyond the interval."""
    return row.verdict == "better"
