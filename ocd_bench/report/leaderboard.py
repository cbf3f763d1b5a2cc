"""A leaderboard: methods by tasks and datasets, with their ranks on the primary metric. Oracles stand apart, without a rank.

The leaderboard of a :class:`~ocd_bench.report.table.Table` is a table of one group, so every format can show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ocd_bench.report.table import DASH, Column, Group, Kind, Row, Table

NOTE = (
    "rank, in brackets: among the methods of a column, by the mean of its primary metric; equal means share the mean of their "
    "places. It says nothing about how sure a difference is: better and worse count the differences from base whose interval "
    "over seeds and samples excludes zero."
)


def leaderboard(table: Table) -> Table:
    """Methods as rows, a column per task and dataset, sorted by the number of columns they are ranked in, then by rank."""
    groups = [group for group in table.groups if group.primary is not None and not group.mean]
    methods = list(dict.fromkeys(row.method for group in groups for row in group.rows))
    found = [{row.method: row for row in group.rows} for group in groups]
    places = [ranks(group) for group in groups]
    mean = {name: [own[name] for own in places if name in own] for name in methods}

    def order(name: str) -> tuple[bool, int, float]:
        return _is_oracle(found, name), -len(mean[name]), sum(mean[name]) / len(mean[name]) if mean[name] else 0.0

    methods.sort(key=order)
    rows = tuple(Row(name, "ok", "", (), oracle=_is_oracle(found, name)) for name in methods)
    group = Group("leaderboard", _title(groups), (), rows, _columns(methods, groups, found, places), _notes(groups), 0)
    return Table((group,), (), table.info, (), plain=True)


def ranks(group: Group) -> dict[str, float]:
    """The rank of each method that has a number and is no oracle; 1 is best, equal means share the mean of their places."""
    primary = group.primary
    if primary is None:
        return {}
    values = {row.method: row.metrics[primary.name][0] for row in group.rows if primary.name in row.metrics and not row.oracle}
    if not primary.higher_is_better:
        values = {name: -value for name, value in values.items()}
    return {
        name: 1 + sum(other > value for other in values.values()) + (sum(other == value for other in values.values()) - 1) / 2
        for name, value in values.items()
    }


def _columns(
    methods: Sequence[str],
    groups: Sequence[Group],
    found: Sequence[Mapping[str, Row]],
    places: Sequence[Mapping[str, float]],
) -> tuple[Column, ...]:
    means: list[float | None] = []
    for name in methods:
        own = [ranks[name] for ranks in places if name in ranks]
        means.append(sum(own) / len(own) if own else None)
    counts = [sum(name in ranks for ranks in places) for name in methods]
    texts = tuple(
        DASH if mean is None else f"{mean:.2f}" + (f" ({count} of {len(groups)})" if count < len(groups) else "")
        for mean, count in zip(means, counts, strict=True)
    )
    columns = [
        Column(Kind.LABEL, "method", tuple(methods), tuple(methods), "method"),
        Column(Kind.METRIC, "mean rank", tuple(means), texts, "mean_rank"),
    ]
    for verdict in ("better", "worse"):
        number = tuple(sum(rows[name].verdict == verdict for rows in found if name in rows) for name in methods)
        columns.append(Column(Kind.TEST, verdict, number, tuple(map(str, number)), verdict, rank=3))
    return (*columns, *(_column(methods, *one) for one in zip(groups, found, places, strict=True)))


def _column(methods: Sequence[str], group: Group, rows: Mapping[str, Row], ranks: Mapping[str, float]) -> Column:
    primary = group.primary
    assert primary is not None  # groups without a number are left out
    values, texts, marks = [], [], []
    for name in methods:
        row = rows.get(name)
        known = row is not None and primary.name in row.metrics
        value = row.metrics[primary.name][0] if row is not None and known else None
        values.append(value)
        rank = f" ({ranks[name]:g})" if name in ranks else ""
        texts.append(primary.style.value(value) + rank if value is not None else "n/a" if row is not None else DASH)
        marks.append(row.verdict if row is not None else "")
    heading = f"{group.dataset}{primary.heading.removeprefix(primary.name)}"
    return Column(Kind.METRIC, heading, tuple(values), tuple(texts), group.title, tuple(marks), rank=2)


def _is_oracle(found: Sequence[Mapping[str, Row]], name: str) -> bool:
    return any(name in rows and rows[name].oracle for rows in found)


def _title(groups: Sequence[Group]) -> str:
    return f"{len(groups)} table{'' if len(groups) == 1 else 's'}"


def _notes(groups: Sequence[Group]) -> tuple[str, ...]:
    left = [group.title for group in groups if any(row.status != "ok" for row in group.rows)]
    metrics = ", ".join(f"{group.title}: {group.primary.name}" for group in groups if group.primary)
    notes = [NOTE, f"columns: {metrics}"]
    if left:
        notes.append("n/a or failed rows have no rank; a mean rank over fewer columns is marked")
    return tuple(notes)
