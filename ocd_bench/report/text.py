"""The table on a terminal: it uses the available width. Colour and bold are used on a terminal only, ASCII if necessary."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ocd_bench.report.table import Column, Group, Kind, Table

GAP = "  "
_ASCII = str.maketrans({"±": "+/-", "Δ": "diff", "↑": "(up)", "↓": "(down)", "–": "-", "─": "-", "×": "x", "…": "..."})
_COLOURS = {"better": "green", "worse": "red"}


def terminal_width() -> int:
    """Columns of the terminal (or ``$COLUMNS``); 100 if there is no terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def render_text(table: Table, width: int | None = None) -> str:
    """The table for a terminal of ``width`` columns. Columns that do not fit are named below the group."""
    width = max(40, width or terminal_width())
    lines: list[Text] = [Text(table.caption, style="dim")]
    for group in table.groups:
        lines += [Text(), *_group(group, width)]
    lines += [Text()] if table.notes else []
    lines += [line for note in table.notes for line in wrap(note, width, "dim")]
    return to_string(lines, width)


def to_string(lines: list[Text], width: int) -> str:
    """Lines as text, styled if stdout is a terminal, with only characters that stdout can encode."""
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


class Layout:
    """Columns beside each other, each as wide as its longest entry.

    Attributes:
        width: of a whole line, in terminal columns.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.sizes = [_size(column) for column in columns]
        self.width = sum(self.sizes) + len(GAP) * (len(columns) - 1)

    def head(self) -> Text:
        """The headings."""
        return Text(GAP).join(self._entry(number, column.heading) for number, column in enumerate(self.columns))

    def line(self, place: int) -> Text:
        """The row at ``place``. It is bold if its label is marked; other marked entries are coloured."""
        entries, bold = [], False
        for number, column in enumerate(self.columns):
            mark = column.mark(place)
            label = column.kind is Kind.LABEL
            bold = bold or (label and mark != "")
            entries.append(self._entry(number, column.texts[place], _COLOURS[mark] if mark and not label else ""))
        return Text("", style="bold" if bold else "").append_text(Text(GAP).join(entries))

    def _entry(self, number: int, text: str, style: str = "") -> Text:
        text = printable(text)
        blank = " " * (self.sizes[number] - cell_len(text))
        return Text(blank + text if self.columns[number].numeric else text + blank, style=style)


def _group(group: Group, width: int) -> list[Text]:
    columns, dropped = fit(group.shown(), width)
    layout = Layout(columns)
    names = Layout(columns[:1])
    lines = [Text(group.title, style="bold"), layout.head(), Text("─" * min(width, layout.width), style="dim")]
    rule = lines[-1]
    for number, block in enumerate(group.blocks):
        lines += [rule] if number else []
        for place in block:
            row = group.rows[place]
            if not row.problem:
                lines.append(layout.line(place))
                continue
            room = max(20, width - names.width - len(GAP))
            first, *others = wrap(row.problem, room, "red")
            lines.append(names.line(place) + Text(GAP) + first)
            lines += [Text(" " * names.width + GAP) + other for other in others]
    for methods, reason in group.folded:
        lines += wrap(f"n/a: {methods}: {reason}", width, "dim")
    lines += left_out(dropped, width)
    return lines + [line for note in group.notes for line in wrap(note, width, "dim")]


def left_out(columns: Sequence[Column], width: int) -> list[Text]:
    """A remark on the columns that :func:`fit` left out; no line if there are none."""
    if not columns:
        return []
    names = ", ".join(column.heading for column in columns)
    return wrap(f"columns left out (terminal too narrow): {names}", width, "dim")


def fit(columns: Sequence[Column], width: int) -> tuple[list[Column], list[Column]]:
    """The columns that fit, chosen by rank but in their own order, always with the first two; then all other columns."""
    room = width - _size(columns[0])
    kept = [columns[0]]
    for column in sorted(columns[1:], key=lambda column: column.rank):
        size = len(GAP) + _size(column)
        if size <= room or len(kept) < 2:
            kept.append(column)
            room -= size
    return [column for column in columns if column in kept], [column for column in columns if column not in kept]


def _size(column: Column) -> int:
    return max(cell_len(printable(text)) for text in (column.heading, *column.texts))


def wrap(text: str, width: int, style: str) -> list[Text]:
    """``text`` as lines of at most ``width`` columns; at least one line."""
    console = Console(width=width, file=io.StringIO())
    return list(Text(printable(text), style=style).wrap(console, width)) or [Text()]


def printable(text: str) -> str:
    """``text`` with its control characters replaced, so that it cannot send commands to the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
