"""The columns of a comparison and the words around them, and the comparison as text for a terminal.

The columns are declared once, in :data:`FIELDS`, and rendered by the modules of :mod:`ocd_bench.report`. A further column is
one more :class:`~ocd_bench.report.table.Field` there: it appears on the terminal, in Markdown and in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ocd_bench.comparison.names import QUIET
from ocd_bench.report.numbers import Style, style_for
from ocd_bench.report.table import DASH, Column, Field, Kind
from ocd_bench.report.text import Layout, fit, left_out, terminal_width, to_string, wrap

if TYPE_CHECKING:
    from ocd_bench.comparison.verdicts import Comparison, RowResult

COLOURS = {
    "regression": "red",
    "broken": "red",
    "vanished": "red",
    "cannot tell": "yellow",
    "improvement": "green",
    "repaired": "green",
}
"""The colour of a row on a terminal, by verdict."""
COST_NAMES = {"fit_s": "fit time", "adapt_s": "test time", "peak_memory_mb": "memory"}
SLOWER = 1.25
"""A cost that changed by more than this factor is mentioned below the table; it never changes a verdict."""


def p_text(p: float | None) -> str:
    """``0.032``, ``<0.001``, or a dash."""
    if p is None:
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _style(row: RowResult) -> Style | None:
    """How the row's numbers are printed; None for a row without numbers in both runs."""
    if row.baseline is None or row.candidate is None or row.evidence is None:
        return None
    return style_for(row.unit, [row.baseline.mean, row.candidate.mean])


def _metric_text(row: RowResult) -> str:
    style = _style(row)
    if style is None:
        return row.metric
    metric = f"{row.metric} [{style.unit}]" if style.unit else row.metric
    return f"{metric} {'↑' if row.higher_is_better else '↓'}"


def _side(name: str) -> Field[RowResult]:
    """``baseline`` or ``candidate``: mean and SD over seeds."""

    def text(row: RowResult) -> str:
        style, side = _style(row), getattr(row, name)
        return style.spread(side.mean, side.sd) if style else DASH

    return Field(name, name, lambda row: asdict(getattr(row, name)) if getattr(row, name) else None, text, Kind.METRIC, rank=3)


def _change_text(row: RowResult) -> str:
    style = _style(row)
    return style.signed(row.evidence.change) if style and row.evidence else DASH


def _interval(row: RowResult) -> list[float] | None:
    if row.evidence is None or row.evidence.low is None or row.evidence.high is None:
        return None
    return [row.evidence.low, row.evidence.high]


def _interval_text(row: RowResult) -> str:
    style, interval = _style(row), _interval(row)
    return f"[{style.signed(interval[0])}, {style.signed(interval[1])}]" if style and interval else DASH


def _seen_text(row: RowResult) -> str:
    style = _style(row)
    return style.value(row.seen_from) if style and row.seen_from is not None else DASH


def _verdict_mark(row: RowResult) -> str:
    return "worse" if row.verdict in ("regression", "broken", "vanished") else ""


def _data(name: str, value: Callable[[RowResult], Any]) -> Field[RowResult]:
    """A field that only JSON has."""
    return Field(name, name, value, lambda row: DASH, compact=False)


FIELDS: tuple[Field[RowResult], ...] = (
    Field("row", "row", lambda row: " ".join(row.name), lambda row: " ".join(row.name), Kind.LABEL),
    Field("metric", "metric", lambda row: row.metric or None, _metric_text, Kind.LABEL),
    _side("baseline"),
    _side("candidate"),
    Field("change", "change", lambda row: row.evidence.change if row.evidence else None, _change_text, Kind.DIFFERENCE, rank=1),
    Field("interval", "95 % interval", _interval, _interval_text, Kind.DIFFERENCE, rank=2),
    _data("p", lambda row: row.evidence.p if row.evidence else None),
    Field("seen_from", "seen from", lambda row: row.seen_from, _seen_text, Kind.DIFFERENCE),
    Field("p_holm", "p", lambda row: row.p_holm, lambda row: p_text(row.p_holm) if _style(row) else DASH, Kind.TEST, rank=4),
    _data("design", lambda row: row.evidence.design if row.evidence else None),
    _data("minimal_effect", lambda row: row.minimal_effect),
    _data("cost_ratio", lambda row: dict(row.cost_ratio)),
    _data("note", lambda row: row.note or None),
    Field("verdict", "verdict", lambda row: row.verdict, lambda row: row.verdict, Kind.LABEL, mark=_verdict_mark, rank=0),
)
"""The columns, in their order."""
METHOD: Field[RowResult] = Field("method", "method", lambda row: row.name.method, kind=Kind.LABEL)
"""On a terminal in place of ``row`` and ``metric``, which a line above the rows has."""


def columns_of(rows: Sequence[RowResult], compact: bool = True) -> list[Column]:
    """The columns of a comparison.

    Args:
        compact: only those of the tables; else also those that only JSON has.
    """
    return [field.column(rows) for field in FIELDS if field.compact or not compact]


def texts_of(row: RowResult) -> dict[str, str]:
    """The row's text in each column of the tables, by the column's name."""
    return {column.name: column.texts[0] for column in columns_of([row])}


def legend(comparison: Comparison) -> str:
    """What the columns mean."""
    return (
        "±: SD over seeds. Change and 95 % interval: candidate minus baseline over the seeds that are compared. Seen from: the "
        "smallest loss that would have been reported. p: one-sided, after Holm over all rows that could be significant, level "
        f"{comparison.alpha:g}."
    )


def summary(comparison: Comparison) -> str:
    """``1 regression, 12 no change``"""
    return ", ".join(f"{count} {verdict}" for verdict, count in comparison.counts.items()) or "no rows"


def folded(comparison: Comparison) -> str:
    """``23 rows unchanged (20 identical, 3 no change); 30 rows without a number in either run``; empty if there are none."""
    counts = comparison.counts
    same = {verdict: counts[verdict] for verdict in ("identical", "no change") if verdict in counts}
    parts = []
    if same:
        details = ", ".join(f"{count} {verdict}" for verdict, count in same.items())
        parts.append(f"{_rows(sum(same.values()))} unchanged ({details})")
    if "ignored" in counts:
        parts.append(f"{_rows(counts['ignored'])} ignored by the thresholds")
    if "no number" in counts:
        parts.append(f"{_rows(counts['no number'])} without a number in either run")
    return "; ".join(parts)


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def loud(comparison: Comparison) -> list[RowResult]:
    """The rows that a reader must see: not those that did not change, nor those that remarks name in one line."""
    return [row for row in comparison.rows if row.verdict not in (*QUIET, "incomparable")]


def remarks(comparison: Comparison, all_rows: bool = False) -> list[str]:
    """The lines below the table: what cannot be compared, why a row has its verdict, and costs that changed.

    Args:
        all_rows: whether to say also why a row has a number in neither run.
    """
    apart: dict[tuple[str, str, str], list[str]] = {}
    for row in comparison.rows:
        if row.verdict == "incomparable":
            apart.setdefault((row.name.task, row.name.dataset, row.note), []).append(row.name.method)
    lines = [f"not compared: {task} {dataset} ({_rows(len(names))}): {why}" for (task, dataset, why), names in apart.items()]
    for row in comparison.rows:
        if row.note and row.verdict != "incomparable" and (all_rows or row.verdict not in QUIET):
            lines.append(f"{' '.join(row.name)}: {row.verdict}: {row.note}")
        elif row.verdict == "cannot tell" and row.seen_from is not None:
            lines.append(f"{' '.join(row.name)}: cannot tell: {_limits(row)}")
    lines += [f"{' '.join(row.name)}: {costs}" for row in comparison.rows if (costs := cost_remark(row))]
    return [*comparison.notes, *dict.fromkeys(lines)]


def _limits(row: RowResult) -> str:
    style = _style(row)
    assert style is not None
    assert row.seen_from is not None
    unit = f" {style.difference_unit}" if style.difference_unit else ""
    fails = "; so large a loss fails" if row.lost_much else ""
    return f"only a loss of {style.value(row.seen_from)}{unit} or more would have been seen{fails}"


def cost_remark(row: RowResult) -> str:
    """``fit time × 1.40 (advisory)`` where a cost changed noticeably."""
    changed = [(name, ratio) for name, ratio in row.cost_ratio if not 1 / SLOWER <= ratio <= SLOWER]
    if not changed:
        return ""
    return ", ".join(f"{COST_NAMES[name]} × {ratio:.2f}" for name, ratio in changed) + " (advisory)"


def render_text(comparison: Comparison, width: int | None = None, all_rows: bool = False) -> str:
    """A table with one line per row. Columns that do not fit into ``width`` are named below it.

    Args:
        all_rows: whether rows that did not change are shown too.
    """
    width = max(40, width or terminal_width())
    rows = list(comparison.rows) if all_rows else loud(comparison)
    lines = [Text(f"{comparison.baseline} → {comparison.candidate}", style="bold"), Text()]
    if rows:
        lines += [*_table(rows, width), Text()]
    if not all_rows and (fold := folded(comparison)):
        lines += wrap(f"{fold}: --all-rows shows them", width, "")
    lines += [part for remark in remarks(comparison, all_rows) for part in wrap(remark, width, "dim")]
    if rows:
        lines += wrap(legend(comparison), width, "dim")
    lines.append(Text(summary(comparison), style="bold"))
    return to_string(lines, width)


def _table(rows: Sequence[RowResult], width: int) -> list[Text]:
    """The rows below a line with their task, dataset and metric."""
    others = [column for column in columns_of(rows) if column.name not in ("row", "metric") and not column.empty]
    columns, dropped = fit([METHOD.column(rows), *others], width)
    layout = Layout(columns)
    lines = [layout.head(), Text("─" * min(width, layout.width), style="dim")]
    for number, places in enumerate(_groups(rows)):
        lines += [Text()] if number else []
        lines += wrap(_title([rows[place] for place in places]), width, "bold")
        lines += [Text(layout.line(place).plain, style=COLOURS.get(rows[place].verdict, "")) for place in places]
    return lines + left_out(dropped, width)


def _groups(rows: Sequence[RowResult]) -> list[list[int]]:
    """The places of the rows of each task, dataset and metric. A row that is in one run only has no metric: it stands with
    those of the first metric."""
    first: dict[tuple[str, str], str] = {}
    for row in rows:
        if row.metric:
            first.setdefault(row.name[:2], row.metric)
    found: dict[tuple[str, str, str], list[int]] = {}
    for place, row in enumerate(rows):
        metric = row.metric or first.get(row.name[:2], "")
        found.setdefault((row.name.task, row.name.dataset, metric), []).append(place)
    return list(found.values())


def _title(rows: Sequence[RowResult]) -> str:
    """``images, mnist: accuracy [%] ↑``"""
    row = next((row for row in rows if _style(row)), rows[0])
    return f"{row.name.task}, {row.name.dataset}" + (f": {_metric_text(row)}" if row.metric else "")
