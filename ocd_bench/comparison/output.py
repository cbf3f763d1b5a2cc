"""A comparison as text for a terminal, and as Markdown for a pull request.

Its columns are declared once, in :data:`FIELDS`, and rendered by the modules of :mod:`ocd_bench.report`. A further column is
one more :class:`~ocd_bench.report.table.Field` there: it appears on the terminal, in Markdown and in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ocd_bench.report import markdown
from ocd_bench.report.notebook import html_table
from ocd_bench.report.numbers import Style, style_for
from ocd_bench.report.table import DASH, Column, Field, Kind
from ocd_bench.report.text import Layout, printable, terminal_width, to_string, wrap

if TYPE_CHECKING:
    from ocd_bench.comparison.judge import Comparison, RowResult

COLOURS = {"regression": "red", "broken": "red", "vanished": "red", "improvement": "green", "repaired": "green"}
"""The colour of a row on a terminal, by verdict."""
COST_NAMES = {"fit_s": "fit time", "adapt_s": "test time", "peak_memory_mb": "memory"}
COMMENT = 30_000
"""Maximum number of characters of a comparison in Markdown. Two comparisons fit into a GitHub comment (65,536 characters)."""
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

    return Field(name, name, lambda row: asdict(getattr(row, name)) if getattr(row, name) else None, text, Kind.METRIC)


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
    Field("change", "change", lambda row: row.evidence.change if row.evidence else None, _change_text, Kind.DIFFERENCE),
    _data("change_at_equal_base", lambda row: row.evidence.adjusted if row.evidence else None),
    Field("interval", "95 % interval", _interval, _interval_text, Kind.DIFFERENCE),
    _data("p", lambda row: row.evidence.p if row.evidence else None),
    Field("p_holm", "p", lambda row: row.p_holm, lambda row: p_text(row.p_holm) if _style(row) else DASH, Kind.TEST),
    _data("design", lambda row: row.evidence.design if row.evidence else None),
    _data("minimal_effect", lambda row: row.minimal_effect),
    _data("cost_ratio", lambda row: dict(row.cost_ratio)),
    _data("note", lambda row: row.note or None),
    Field("verdict", "verdict", lambda row: row.verdict, lambda row: row.verdict, Kind.LABEL, mark=_verdict_mark),
)
"""The columns, in their order."""


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
        "±: SD over seeds. 95 % interval: of the change with the base model's own change subtracted; over test samples, and "
        "over seeds unless both runs share them. p: two-sided, after Holm over all rows, level "
        f"{comparison.alpha:g}. Times and memory are advisory."
    )


def summary(comparison: Comparison) -> str:
    """``1 regression, 12 no change``"""
    return ", ".join(f"{count} {verdict}" for verdict, count in comparison.counts.items()) or "no rows"


def remarks(comparison: Comparison) -> list[str]:
    """The lines below the table: why a row has no test, and costs that changed."""
    lines = [f"{' '.join(row.name)}: {row.verdict}: {row.note}" for row in comparison.rows if row.note]
    lines += [f"{' '.join(row.name)}: {costs}" for row in comparison.rows if (costs := cost_remark(row))]
    return [*dict.fromkeys(lines), *comparison.notes]


def cost_remark(row: RowResult) -> str:
    """``fit time x 1.40 (advisory)`` where a cost changed noticeably."""
    changed = [(name, ratio) for name, ratio in row.cost_ratio if not 1 / SLOWER <= ratio <= SLOWER]
    if not changed:
        return ""
    return ", ".join(f"{COST_NAMES[name]} × {ratio:.2f}" for name, ratio in changed) + " (advisory)"


def render_text(comparison: Comparison, width: int | None = None) -> str:
    """A table of full width; one block per row if the terminal is narrower."""
    width = max(40, width or terminal_width())
    layout = Layout(columns_of(comparison.rows))
    lines = [Text(f"{comparison.baseline} → {comparison.candidate}", style="bold"), Text()]
    if layout.width <= width:
        lines += [layout.head(), Text("─" * layout.width, style="dim")]
        lines += [
            Text(layout.line(place).plain, style=COLOURS.get(row.verdict, "")) for place, row in enumerate(comparison.rows)
        ]
    else:
        lines += [line for row in comparison.rows for line in _block(row, width)]
    lines.append(Text())
    lines += [part for remark in remarks(comparison) for part in wrap(remark, width, "dim")]
    lines += wrap(legend(comparison), width, "dim")
    lines.append(Text(summary(comparison), style="bold"))
    return to_string(lines, width)


def _block(row: RowResult, width: int) -> list[Text]:
    """A row as a few lines, for a narrow terminal."""
    text = texts_of(row)
    head = Text(printable(f"{text.pop('row')}: {text.pop('verdict')}"), style=COLOURS.get(row.verdict, ""))
    if row.evidence is None:
        return [head]
    detail = (
        f"{text.pop('metric')}  {text.pop('baseline')} → {text.pop('candidate')}  {text.pop('change')} {text.pop('interval')}"
    )
    headings = {field.name: field.heading for field in FIELDS}
    detail = "  ".join([detail, *(f"{headings[name]} {words}" for name, words in text.items())])
    return [head, *(Text("  ") + part for part in wrap(detail, width - 2, ""))]


def render_markdown(comparison: Comparison) -> str:
    """A comment for a pull request: the summary first, rows without change in a collapsed section.

    If it is too long for a comment, the rows without change are left out, then remarks from the end.
    """
    changed = [row for row in comparison.rows if row.verdict != "no change"]
    rest = [row for row in comparison.rows if row.verdict == "no change"]
    parts = [f"### OCD-Bench: {summary(comparison)}"]
    parts.append(f"{markdown.escape(comparison.baseline)} → {markdown.escape(comparison.candidate)}")
    if changed:
        parts.append(markdown.pipe_table(columns_of(changed)))
    lines = [f"- {markdown.escape(note)}" for note in (legend(comparison), *remarks(comparison))]
    room = COMMENT - sum(map(len, parts))
    if rest:
        table = markdown.pipe_table(columns_of(rest))
        folded = f"<details><summary>{len(rest)} rows without change</summary>\n\n{table}\n\n</details>"
        if len(folded) + sum(map(len, lines)) > room:
            folded = f"{len(rest)} rows without change are too many for a comment: see the job's log."
        parts.append(folded)
        room -= len(folded)
    kept = [line for line, end in zip(lines, accumulate(len(line) + 1 for line in lines), strict=True) if end <= room]
    if len(kept) < len(lines):
        kept.append(f"- {len(lines) - len(kept)} more remarks: see the job's log")
    parts.append("\n".join(kept))
    return "\n\n".join(parts) + "\n"


def render_html(comparison: Comparison) -> str:
    """A fragment of HTML for notebooks: the summary, every row, and the remarks."""
    parts = [
        f"<p><b>{escape(summary(comparison))}</b>",
        f"<br>{escape(comparison.baseline)} → {escape(comparison.candidate)}</p>",
    ]
    if comparison.rows:
        parts.append(html_table(columns_of(comparison.rows)))
    parts += [f"<p><small>{escape(note)}</small></p>" for note in (legend(comparison), *remarks(comparison))]
    return f"<div>{''.join(parts)}</div>"
