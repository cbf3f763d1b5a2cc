"""The table as LaTeX: one booktabs table per group, ready for ``\\input``."""

from __future__ import annotations

import re

from ocd_bench.report.columns import marked, text_columns, title
from ocd_bench.report.table import BOLD, Group, Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "Δ": r"$\Delta$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "×": r"$\times$", "ρ": r"$\rho$",
}  # fmt: skip


def escape(text: str) -> str:
    """``text`` as plain words: special characters printed as themselves."""
    return "".join(_SPECIAL.get(letter, letter) for letter in " ".join(text.split()))


def number(text: str) -> str:
    """An escaped number, its minus sign set as one."""
    return re.sub(r"(^|[\[ ])-(?=\d)", r"\1$-$", escape(text))


def render(table: Table) -> str:
    """Needs ``\\usepackage{booktabs}``, and a text encoding that has the letters of the names."""
    head = f"% {escape(table.caption)}\n% \\usepackage{{booktabs}}\n"
    return head + "\n".join(_group(group, table) for group in table.groups)


def _group(group: Group, table: Table) -> str:
    columns = text_columns(group, table.extras)
    width = max(1, len(columns))
    lines = []
    for place, row in enumerate(group.rows):
        name = rf"\textbf{{{escape(row.method)}}}" if marked(row) else escape(row.method)
        if row.problem or not columns:
            lines.append(rf"{name} & \multicolumn{{{width}}}{{l}}{{{escape(row.problem)}}} \\")
            continue
        cells = [number(column.texts[place]) if column.numeric else escape(column.texts[place]) for column in columns]
        if row.verdict:
            cells = [
                rf"\textbf{{{cell}}}" if column.heading.startswith("Δ") else cell
                for cell, column in zip(cells, columns, strict=True)
            ]
        lines.append(" & ".join([name, *cells]) + r" \\")
    caption = ". ".join([title(group), *group.notes, *table.notes, *([BOLD] if group.has_delta else [])]).replace("..", ".")
    spec = "l" + "".join("r" if column.numeric else "l" for column in columns) if columns else "ll"
    heading = " & ".join(["Method", *(escape(column.heading) for column in columns)]) if columns else "Method & Result"
    label = re.sub(r"[^A-Za-z0-9-]+", "-", f"{group.task}-{group.dataset}")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{tab:ocd-bench-{label}}}",
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            rf"{heading} \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
