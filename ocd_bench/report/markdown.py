"""The table as GitHub-flavoured markdown, short enough for a comment on a pull request."""

from __future__ import annotations

import re

from ocd_bench.report.columns import DASH, marked, text_columns, title
from ocd_bench.report.table import BOLD, Group, Table


def render(table: Table) -> str:
    """One section per group."""
    parts = [escape(table.caption), *(_group(group, table) for group in table.groups)]
    notes = [*table.notes, BOLD] if any(group.has_delta for group in table.groups) else table.notes
    if notes:
        parts.append("\n".join(f"- {escape(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """``text`` as plain words of one line: nothing in it is markup, a column border, a link, a mention or an HTML tag."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")


def rows(heading: list[str], aligned: list[bool], body: list[list[str]]) -> str:
    """A pipe table of escaped cells; ``aligned``: whether a column is set to the right."""
    lines = [heading, ["---:" if right else "---" for right in aligned], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _group(group: Group, table: Table) -> str:
    columns = text_columns(group, table.extras)
    body = []
    for place, row in enumerate(group.rows):
        name = f"**{escape(row.method)}**" if marked(row) else escape(row.method)
        cells = [escape(column.texts[place]) for column in columns] or [DASH]
        if row.problem:
            cells[0] = escape(row.problem)
        elif row.verdict:
            place_of_delta = next(i for i, column in enumerate(columns) if column.heading.startswith("Δ"))
            cells[place_of_delta] = f"**{cells[place_of_delta]}**"
        body.append([name, *cells])
    heading = ["method", *(escape(column.heading) for column in columns)] if columns else ["method", "result"]
    aligned = [False, *(column.numeric for column in columns)] if columns else [False, False]
    notes = "\n".join(f"- {escape(note)}" for note in group.notes)
    return f"### {escape(title(group))}\n\n{rows(heading, aligned, body)}" + (f"\n\n{notes}" if notes else "")
