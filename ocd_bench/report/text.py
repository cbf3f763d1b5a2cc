"""The table on a terminal: as wide as there is room for, colour and bold only on a terminal, ASCII where it must be."""

from __future__ import annotations

import io
import shutil
import sys

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ocd_bench.report.columns import TextColumn, marked, text_columns, title
from ocd_bench.report.table import Group, Table

GAP = "  "
_ASCII = str.maketrans({"±": "+/-", "Δ": "diff", "↑": "(up)", "↓": "(down)", "–": "-", "─": "-", "×": "x", "…": "..."})
_VERDICT = {"better": "green", "worse": "red"}


def terminal_width() -> int:
    """Columns of the terminal (or ``$COLUMNS``); 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def render_text(table: Table, width: int | None = None) -> str:
    """The table for a terminal of ``width`` columns. Columns that do not fit are named below the group."""
    width = max(40, width or terminal_width())
    lines: list[Text] = [Text(table.caption, style="dim")]
    for group in table.groups:
        lines += [Text(), *_group(group, table, width)]
    lines.append(Text())
    lines += [line for note in table.notes for line in wrap(note, width, "dim")]
    return to_string(lines, width)


def to_string(lines: list[Text], width: int) -> str:
    """Lines as text, styled if stdout is a terminal, in letters stdout can encode."""
    buffer = io.StringIO()
    terminal = sys.stdout.isatty()
    console = Console(file=buffer, width=width, force_terminal=terminal, no_color=None if terminal else True, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True, no_wrap=True, crop=False, overflow="ignore")
    text = "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        text = text.translate(_ASCII).encode("ascii", "replace").decode()
    return text


def _group(group: Group, table: Table, width: int) -> list[Text]:
    names = [row.method for row in group.rows]
    first = max(cell_len(name) for name in ["method", *names])
    columns, dropped = _fit(text_columns(group, table.extras), width - first)
    widths = [max(cell_len(text) for text in (column.heading, *column.texts)) for column in columns]
    total = min(width, first + sum(len(GAP) + size for size in widths))
    lines = [Text(title(group), style="bold")]
    head = [_pad("method", first, False)]
    head += [_pad(column.heading, size, column.numeric) for column, size in zip(columns, widths, strict=True)]
    lines += [Text(GAP.join(head)), Text("─" * total, style="dim")]
    for place, row in enumerate(group.rows):
        line = Text(_pad(row.method, first, False), style="bold" if marked(row) else "")
        if row.problem:
            pieces = wrap(row.problem, max(20, width - first - len(GAP)), "red" if row.status == "failed" else "dim")
            lines.append(line + Text(GAP) + pieces[0])
            lines += [Text(" " * first + GAP) + piece for piece in pieces[1:]]
            continue
        for column, size in zip(columns, widths, strict=True):
            colour = _VERDICT.get(row.verdict, "") if column.heading.startswith("Δ") else ""
            line += Text(GAP) + Text(_pad(column.texts[place], size, column.numeric), style=colour)
        lines.append(line)
    if dropped:
        note = f"columns left out for want of width: {', '.join(column.heading for column in dropped)}"
        lines += wrap(note, width, "dim")
    return lines + [line for note in group.notes for line in wrap(note, width, "dim")]


def _fit(columns: list[TextColumn], room: int) -> tuple[list[TextColumn], list[TextColumn]]:
    """As many columns as there is room for, by rank, in their own order; the first one always."""
    kept: list[TextColumn] = []
    for column in sorted(columns, key=lambda column: column.rank):
        size = len(GAP) + max(cell_len(text) for text in (column.heading, *column.texts))
        if size <= room or not kept:
            kept.append(column)
            room -= size
    return [column for column in columns if column in kept], [column for column in columns if column not in kept]


def _pad(text: str, size: int, right: bool) -> str:
    blank = " " * (size - cell_len(text))
    return blank + text if right else text + blank


def wrap(text: str, width: int, style: str) -> list[Text]:
    """Lines of at most ``width`` columns; never none."""
    console = Console(width=width, file=io.StringIO())
    return list(Text(printable(text), style=style).wrap(console, width)) or [Text()]


def printable(text: str) -> str:
    """A stored reason cannot steer the terminal: control characters are replaced."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
