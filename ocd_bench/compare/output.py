"""A comparison as text for a terminal, and as markdown for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from rich.cells import cell_len
from rich.text import Text

from ocd_bench.compare.judge import Comparison, RowResult
from ocd_bench.report import markdown
from ocd_bench.report.numbers import style_for
from ocd_bench.report.text import GAP, printable, terminal_width, to_string, wrap

HEADINGS = ("row", "metric", "baseline", "candidate", "change", "95 % interval", "p", "verdict")
_STYLE = {"regression": "red", "broken": "red", "vanished": "red", "improvement": "green", "repaired": "green"}
COST_NAMES = {"fit_s": "fit time", "adapt_s": "test time", "peak_memory_mb": "memory"}
COMMENT = 30_000
"""Characters of a comparison in Markdown: two of them fit into a comment on GitHub, which takes 65,536."""
SLOWER = 1.25
"""Costs that changed by more than this factor are mentioned; they never decide."""


def legend(comparison: Comparison) -> str:
    """What the columns mean."""
    return (
        "±: SD over seeds. 95 % interval: of the change with the base model's own change taken out; over test samples, and "
        "over seeds unless both runs share them. p: two-sided, after Holm over all rows, level "
        f"{comparison.alpha:g}. Times and memory are advisory."
    )


def summary(comparison: Comparison) -> str:
    """``1 regression, 12 no change``"""
    return ", ".join(f"{count} {verdict}" for verdict, count in comparison.counts.items()) or "no rows"


def cells_of(row: RowResult) -> list[str]:
    """One text per heading."""
    name = " ".join(row.name)
    if row.baseline is None or row.candidate is None or row.evidence is None:
        return [name, row.metric, "–", "–", "–", "–", "–", row.verdict]
    style = style_for(row.unit, [row.baseline.mean, row.candidate.mean])
    evidence = row.evidence
    interval = "–"
    if evidence.low is not None and evidence.high is not None:
        interval = f"[{style.signed(evidence.low)}, {style.signed(evidence.high)}]"
    metric = f"{row.metric} [{style.unit}]" if style.unit else row.metric
    return [
        name,
        f"{metric} {'↑' if row.higher_is_better else '↓'}",
        style.spread(row.baseline.mean, row.baseline.sd),
        style.spread(row.candidate.mean, row.candidate.sd),
        style.signed(evidence.change),
        interval,
        p_text(row.p_holm),
        row.verdict,
    ]


def p_text(p: float | None) -> str:
    """``0.032``, ``<0.001``, or a dash."""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def remarks(comparison: Comparison) -> list[str]:
    """Below the table: why rows have no test, what else changed."""
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
    """A table as wide as it needs to be; where the terminal is narrower, one block per row."""
    width = max(40, width or terminal_width())
    body = [cells_of(row) for row in comparison.rows]
    sizes = [max(cell_len(line[i]) for line in (HEADINGS, *body)) for i in range(len(HEADINGS))]
    lines = [Text(f"{comparison.baseline} → {comparison.candidate}", style="bold"), Text()]
    if sum(sizes) + len(GAP) * (len(sizes) - 1) <= width:
        lines += [Text(_line(HEADINGS, sizes)), Text("─" * (sum(sizes) + len(GAP) * (len(sizes) - 1)), style="dim")]
        lines += [
            Text(_line(cells, sizes), style=_STYLE.get(row.verdict, ""))
            for row, cells in zip(comparison.rows, body, strict=True)
        ]
    else:
        for row, cells in zip(comparison.rows, body, strict=True):
            lines.append(Text(printable(f"{cells[0]}: {cells[-1]}"), style=_STYLE.get(row.verdict, "")))
            if row.evidence is not None:
                detail = f"{cells[1]}  {cells[2]} → {cells[3]}  {cells[4]} {cells[5]}  p {cells[6]}"
                lines += [Text("  ") + part for part in wrap(detail, width - 2, "")]
    lines.append(Text())
    lines += [part for remark in remarks(comparison) for part in wrap(remark, width, "dim")]
    lines += wrap(legend(comparison), width, "dim")
    lines.append(Text(summary(comparison), style="bold"))
    return to_string(lines, width)


def _line(cells: Sequence[str], sizes: Sequence[int]) -> str:
    left = (0, 1, len(sizes) - 1)
    parts = []
    for place, (text, size) in enumerate(zip(cells, sizes, strict=True)):
        blank = " " * (size - cell_len(text))
        parts.append(printable(text) + blank if place in left else blank + text)
    return GAP.join(parts)


def render_markdown(comparison: Comparison) -> str:
    """A comment for a pull request: the summary first, rows without news folded away, and left out where there are too many for
    a comment; then remarks are left out too, from the end."""
    news = [row for row in comparison.rows if row.verdict != "no change"]
    rest = [row for row in comparison.rows if row.verdict == "no change"]
    parts = [f"### OCD-Bench: {summary(comparison)}"]
    parts.append(f"{markdown.escape(comparison.baseline)} → {markdown.escape(comparison.candidate)}")
    if news:
        parts.append(_pipe(news))
    told = [f"- {markdown.escape(note)}" for note in (legend(comparison), *remarks(comparison))]
    room = COMMENT - sum(map(len, parts))
    if rest:
        folded = f"<details><summary>{len(rest)} rows without change</summary>\n\n{_pipe(rest)}\n\n</details>"
        if len(folded) + sum(map(len, told)) > room:
            folded = f"{len(rest)} rows without change are too many for a comment: see the job's log."
        parts.append(folded)
        room -= len(folded)
    kept = [line for line, end in zip(told, accumulate(len(line) + 1 for line in told), strict=True) if end <= room]
    if len(kept) < len(told):
        kept.append(f"- {len(told) - len(kept)} more remarks: see the job's log")
    parts.append("\n".join(kept))
    return "\n\n".join(parts) + "\n"


def _pipe(rows: Sequence[RowResult]) -> str:
    body = []
    for row in rows:
        cells = [markdown.escape(text) for text in cells_of(row)]
        if row.verdict in ("regression", "broken", "vanished"):
            cells[-1] = f"**{cells[-1]}**"
        body.append(cells)
    aligned = [name not in ("row", "metric", "verdict") for name in HEADINGS]
    return markdown.rows([markdown.escape(name) for name in HEADINGS], aligned, body)
