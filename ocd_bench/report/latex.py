"""The table as LaTeX: one booktabs table per group, ready for ``\\input``."""

from __future__ import annotations

import re

from ocd_bench.report.table import BOLD, Column, Group, Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "\0": "{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "Δ": r"$\Delta$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "×": r"$\times$", "ρ": r"$\rho$",
}  # fmt: skip


def escape(text: str) -> str:
    """``text`` with LaTeX's special characters escaped. Two hyphens, as of an option, would become one dash."""
    plain = re.sub("-(?=-)", "-\0", " ".join(text.split()))
    return "".join(_SPECIAL.get(letter, letter) for letter in plain)


def number(text: str) -> str:
    """An escaped number with a proper minus sign."""
    return re.sub(r"(^|[\[ ])-(?=\d)", r"\1$-$", escape(text))


def render(table: Table) -> str:
    """The document needs ``\\usepackage{booktabs}``, and a text encoding with all letters of the names."""
    head = f"% {escape(table.caption)}\n% \\usepackage{{booktabs}}\n"
    return head + "\n".join(_group(group, table) for group in table.groups)


def _group(group: Group, table: Table) -> str:
    columns = group.shown_with_result()
    lines = []
    for number, block in enumerate(group.blocks):
        lines += [r"\midrule"] if number else []
        for place in block:
            cells = [_cell(column, place) for column in columns]
            if problem := group.rows[place].problem:
                cells[1:] = [rf"\multicolumn{{{len(columns) - 1}}}{{l}}{{{escape(problem)}}}"]
            lines.append(" & ".join(cells) + r" \\")
    for methods, reason in group.folded:
        words = escape(f"n/a: {methods}: {reason}")
        lines.append(rf"\multicolumn{{{len(columns)}}}{{p{{\linewidth}}}}{{\footnotesize {words}}} \\")
    caption = ". ".join([group.title, *group.notes[:1]])
    remarks = ". ".join([*group.notes[1:], *table.notes, *([BOLD] if group.has_delta else [])]).replace("..", ".")
    headings = [column.heading for column in columns]
    label = re.sub(r"[^A-Za-z0-9-]+", "-", f"{group.task}-{group.dataset}")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{tab:ocd-bench-{label}}}",
            rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in columns)}}}",
            r"\toprule",
            rf"{' & '.join(map(escape, headings))} \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            *([rf"\par\medskip\footnotesize {escape(remarks)}"] if remarks else []),
            r"\end{table}",
            "",
        ]
    )


def _cell(column: Column, place: int) -> str:
    text = number(column.texts[place]) if column.numeric else escape(column.texts[place])
    return rf"\textbf{{{text}}}" if column.mark(place) else text
