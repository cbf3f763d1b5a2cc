"""The table as GitHub-flavoured Markdown, short enough for a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ocd_bench.report.table import Column, Group, Table


def render(table: Table) -> str:
    """One section per group."""
    parts = [escape(table.caption), *map(_group, table.groups)]
    if notes := table.notes_with_bold:
        parts.append("\n".join(f"- {escape(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """``text`` on one line, escaped: it has no effect as markup, column border, link, mention or HTML tag."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")


def pipe_table(
    columns: Sequence[Column], problems: Sequence[str] = (), places: Sequence[int] | None = None, quiet: Sequence[int] = ()
) -> str:
    """Columns as a pipe table; marked entries are bold.

    Args:
        problems: for each row, the text of its second column if the row has no numbers; else empty.
        places: which rows, in this order; default: all.
        quiet: rows in italics, those of oracles.
    """
    heading = [escape(column.heading) for column in columns]
    lines = [heading, ["---:" if column.numeric else "---" for column in columns]]
    for place in range(len(columns[0].texts)) if places is None else places:
        cells = [_bold(escape(column.texts[place]), column.mark(place) != "") for column in columns]
        if problems and problems[place]:
            cells[1] = escape(problems[place])
        lines.append([f"*{cell}*" for cell in cells] if place in quiet else cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _group(group: Group) -> str:
    folded = [f"n/a: {methods}: {reason}" for methods, reason in group.folded]
    notes = "\n".join(f"- {escape(note)}" for note in (*folded, *group.notes))
    places = [place for block in group.blocks for place in block]
    problems = [row.problem for row in group.rows]
    oracles = [place for place, row in enumerate(group.rows) if row.oracle]
    table = pipe_table(group.shown_with_result(), problems, places, oracles) if places else "no row has a number"
    return f"### {escape(group.title)}\n\n{table}" + (f"\n\n{notes}" if notes else "")
