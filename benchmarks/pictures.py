"""Draws the pictures of the README from the committed results: ``python benchmarks/pictures.py``.

``docs/pictures/table.svg`` is the table of one group as a terminal shows it, ``docs/pictures/report.svg`` are three plots of
its page. Both are made from ``results/quick`` alone, so a test can hold that they are its pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from ocd_bench import load
from ocd_bench.report import build_table
from ocd_bench.report.figures import result_figures
from ocd_bench.report.plots import standalone
from ocd_bench.report.table import Table
from ocd_bench.report.text import render_text

ROOT = Path(__file__).resolve().parents[1]
GROUP = ("images", "digits+contrast-4")
LETTER, LINE, MARGIN = 7.2, 17, 12
"""Width and height of a letter, and the margin, in units of the picture."""
PLOTS = (1, 2, 3)
"""Which plots of a page: differences from base, cost against quality, calibration error."""


def pictures(run: Path) -> dict[str, str]:
    """File name to SVG."""
    table = build_table(load(run).stored)
    group = next(group for group in table.groups if (group.task, group.dataset) == GROUP)
    return {"table.svg": table_picture(replace(table, groups=(group,))), "report.svg": report_picture(table)}


def table_picture(table: Table) -> str:
    """The table as a terminal of 104 columns shows it."""
    lines = render_text(table, 104).rstrip("\n").splitlines()
    width = round(2 * MARGIN + LETTER * max(map(len, lines)))
    height = 2 * MARGIN + LINE * len(lines)
    body = []
    for number, text in enumerate(lines):
        if text.strip():
            place = f'x="{MARGIN}" y="{MARGIN + LINE * number + 13}" textLength="{LETTER * len(text):.0f}"'
            body.append(f'<text {place} xml:space="preserve">{escape(text)}</text>')
    font = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace;font-size:12px;fill:#1b1f24"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"<title>{escape(table.groups[0].title)}</title><style>text{{{font}}}</style>"
        f'<rect width="{width}" height="{height}" rx="6" fill="#f6f8fa"/>' + "\n".join(body) + "</svg>\n"
    )


def report_picture(table: Table) -> str:
    """Plots of the page, beside each other."""
    group = next(group for group in table.groups if (group.task, group.dataset) == GROUP)
    plots = [standalone(plot) for number, (_, plot) in enumerate(result_figures(group)) if number in PLOTS]
    return beside(plots)


def beside(plots: Sequence[str]) -> str:
    """Standalone plots beside each other, as one."""
    sizes = [(float(part.split('width="')[1].split('"')[0]), float(part.split('height="')[1].split('"')[0])) for part in plots]
    width, height = sum(size[0] for size in sizes) + 20 * (len(plots) - 1), max(size[1] for size in sizes)
    left, body = 0.0, []
    for plot, size in zip(plots, sizes, strict=True):
        body.append(plot.replace("<svg ", f'<svg x="{left:g}" y="0" ', 1).rstrip("\n"))
        left += size[0] + 20
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">'
    return f'{head}<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>' + "\n".join(body) + "</svg>\n"


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, default=ROOT / "results" / "quick", help="run folder")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="folder of the pictures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, text in pictures(arguments.run).items():
        (arguments.out / name).write_text(text, encoding="utf-8")
        print(arguments.out / name)


if __name__ == "__main__":
    main()
