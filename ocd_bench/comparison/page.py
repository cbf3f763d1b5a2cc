"""A comparison as Markdown for a pull request, as a fragment of HTML for notebooks, and as a page."""

from __future__ import annotations

from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING

from ocd_bench.comparison.names import QUIET, VERDICTS
from ocd_bench.comparison.output import columns_of, folded, legend, loud, remarks, summary
from ocd_bench.report import markdown
from ocd_bench.report.notebook import html_table

if TYPE_CHECKING:
    from ocd_bench.comparison.verdicts import Comparison, RowResult

COMMENT = 30_000
"""Maximum number of characters of a comparison in Markdown. Two comparisons fit into a GitHub comment (65,536 characters)."""


def render_markdown(comparison: Comparison) -> str:
    """A comment for a pull request: the summary first, rows without change in a collapsed section.

    If it is too long for a comment, the rows without change are left out, then remarks from the end.
    """
    parts = [f"### OCD-Bench: {summary(comparison)}"]
    parts.append(f"{markdown.escape(comparison.baseline)} → {markdown.escape(comparison.candidate)}")
    parts += _loud_tables(comparison)
    lines = [f"- {markdown.escape(note)}" for note in (*remarks(comparison), legend(comparison))]
    room = COMMENT - sum(map(len, parts))
    if fold := folded(comparison):
        quiet = _with_numbers(comparison)
        table = markdown.pipe_table(columns_of(quiet)) if quiet else ""
        text = f"<details><summary>{fold}</summary>\n\n{table}\n\n</details>" if quiet else fold
        if len(text) + sum(map(len, lines)) > room:
            text = f"{fold}; too many for a comment: see the job's log."
        parts.append(text)
        room -= len(text)
    kept = [line for line, end in zip(lines, accumulate(len(line) + 1 for line in lines), strict=True) if end <= room]
    if len(kept) < len(lines):
        kept.append(f"- {len(lines) - len(kept)} more remarks: see the job's log")
    parts.append("\n".join(kept))
    return "\n\n".join(parts) + "\n"


def _loud_tables(comparison: Comparison) -> list[str]:
    """The table of rows that a reader must see; the worst of them, if they are too many for half a comment."""
    rows, whole = loud(comparison), len(loud(comparison))
    table = markdown.pipe_table(columns_of(rows)) if rows else ""
    while len(table) > COMMENT / 2:
        rows = sorted(rows, key=lambda row: VERDICTS.index(row.verdict))[: len(rows) * 3 // 4]
        table = markdown.pipe_table(columns_of(rows))
    more = [f"{whole - len(rows)} more rows: see the job's log."] if len(rows) < whole else []
    return [table, *more] if rows else []


def _with_numbers(comparison: Comparison) -> list[RowResult]:
    return [row for row in comparison.rows if row.verdict in QUIET and row.evidence is not None]


def render_fragment(comparison: Comparison) -> str:
    """The summary, the rows that changed, the others folded, and the remarks. No style sheet, no script."""
    parts = [
        f"<p><b>{escape(summary(comparison))}</b>",
        f"<br>{escape(comparison.baseline)} → {escape(comparison.candidate)}</p>",
    ]
    if rows := loud(comparison):
        parts.append(html_table(columns_of(rows)))
    if fold := folded(comparison):
        quiet = _with_numbers(comparison)
        table = html_table(columns_of(quiet)) if quiet else ""
        parts.append(f"<details><summary>{escape(fold)}</summary>{table}</details>")
    parts += [f"<p><small>{escape(note)}</small></p>" for note in (*remarks(comparison), legend(comparison))]
    return f"<div>{''.join(parts)}</div>"


STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem;overflow-x:auto}"
    "table{border-collapse:collapse}td,th{padding:.2rem .7rem;border-bottom:1px solid #8884;white-space:nowrap}"
)


def render_page(comparison: Comparison) -> str:
    """One file of HTML that needs no network."""
    title = escape(f"{summary(comparison)} - OCD-Bench")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = f"<h1>OCD-Bench: comparison</h1>{render_fragment(comparison)}"
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'
