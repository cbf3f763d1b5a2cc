"""The table as a fragment of HTML, for notebooks: no style sheet, no script, legible in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ocd_bench.report.table import Column, Group, Table


def render(table: Table) -> str:
    """The caption, a table for each task and dataset, and the notes."""
    notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in table.notes_with_bold)
    return f"<div><p>{escape(table.caption)}</p>{''.join(map(_group, table.groups))}{notes}</div>"


def html_table(columns: Sequence[Column], problems: Sequence[str] = (), places: Sequence[int] | None = None) -> str:
    """Columns as a table; marked entries are bold.

    Args:
        problems: for each row what stands in place of its numbers; empty for none.
        places: which rows, in this order; default: all.
    """
    head = "".join(f"<th style='{_style(column)}'>{escape(column.heading)}</th>" for column in columns)
    rows = []
    for place in range(len(columns[0].texts)) if places is None else places:
        first = f"<th style='{_style(columns[0])}'>{escape(columns[0].texts[place])}</th>"
        if problems and problems[place]:
            rest = f"<td colspan='{len(columns) - 1}' style='text-align:left'>{escape(problems[place])}</td>"
        else:
            rest = "".join(_cell(column, place) for column in columns[1:])
        rows.append(f"<tr>{first}{rest}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(column: Column, place: int) -> str:
    text = escape(column.texts[place])
    return f"<td style='{_style(column)}'>{f'<b>{text}</b>' if column.mark(place) else text}</td>"


def _style(column: Column) -> str:
    return f"text-align:{'right' if column.numeric else 'left'}"


def _group(group: Group) -> str:
    folded = [f"n/a: {methods}: {reason}" for methods, reason in group.folded]
    notes = "".join(f"<br><small>{escape(note)}</small>" for note in (*folded, *group.notes))
    places = [place for block in group.blocks for place in block]
    rows = html_table(group.shown_with_result(), [row.problem for row in group.rows], places)
    return f"<p><b>{escape(group.title)}</b></p>{rows}<p>{notes.removeprefix('<br>')}</p>"
