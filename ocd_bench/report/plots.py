"""Writes the plots of a report as files: SVG, or PNG with the extra ``ocd-bench[png]`` (resvg, no system library)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ocd_bench.errors import Unavailable, UsageError
from ocd_bench.files import write_atomic
from ocd_bench.report.figures import fitting_figures, result_figures
from ocd_bench.report.style import for_files
from ocd_bench.report.table import Table

FORMATS = ("svg", "png")
SCALE = 2
"""Pixels of a PNG per unit of its SVG."""
FONT = "DejaVu Sans, Noto Sans, Liberation Sans, Arial, sans-serif"


def write_plots(table: Table, folder: Path, format: str = "svg") -> list[Path]:
    """Write every plot; the names are ``<task>-<dataset>-<number>-<first words of the caption>``.

    Raises:
        UsageError: for an unknown format, or if the folder cannot be written.
        Unavailable: if the package for PNG is not installed.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format of plots {format!r}; formats: {', '.join(FORMATS)}")
    convert: Callable[[str], bytes] = to_png() if format == "png" else lambda text: text.encode()
    written = []
    for group in table.groups:
        for number, (caption, text) in enumerate([*result_figures(group), *fitting_figures(group)], 1):
            words = re.sub(r"[^a-z0-9]+", "-", re.split(r"[;,]", caption.lower())[0]).strip("-")[:40]
            place = re.sub(r"[^\w+.-]+", "_", f"{group.task}-{group.dataset}")
            path = folder / f"{place}-{number:02d}-{words}.{format}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomic(path, convert(standalone(text)))
            except OSError as error:
                raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
            written.append(path)
    return written


def standalone(text: str) -> str:
    """A plot of a page as a file of its own: with its size, background and style sheet, in the light theme."""
    text = re.sub(r' (id|aria-labelledby)="[td]\d+[^"]*"', "", text)  # numbers of a page; a file has one title
    found = re.match(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    if found is None:
        raise ValueError("not a plot of ocd_bench.report.svg")
    width, height = found[1], found[2]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"' + text[4 : text.index(">")]
    style = f"<style>text{{font-family:{FONT}}}{for_files()}</style>"
    return f'{head}>{style}<rect width="{width}" height="{height}" fill="#ffffff"/>{text[text.index(">") + 1 :]}\n'


def to_png() -> Callable[[str], bytes]:
    """A function from SVG to the bytes of a PNG.

    Raises:
        Unavailable: if resvg_py is not installed.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise Unavailable("plots as PNG: unavailable: pip install 'ocd-bench[png]'") from error

    def convert(text: str) -> bytes:
        return bytes(resvg_py.svg_to_bytes(svg_string=text, zoom=SCALE))

    return convert
