"""The report as one HTML file: tables that sort, plots as inline SVG, dark and light, nothing fetched from anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from ocd_bench.report.columns import DASH, title
from ocd_bench.report.figures import fitting_figures, result_figures
from ocd_bench.report.media import arranged, gallery
from ocd_bench.report.numbers import quantity, seeds_text
from ocd_bench.report.style import CSS, SCRIPT
from ocd_bench.report.table import BOLD, Group, MetricColumn, Row, Table

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:; "
    "base-uri 'none'; form-action 'none'"
)
COSTS = (
    ("fit s", "fit_s"),
    ("test s", "adapt_s"),
    ("samples/s", "samples_per_s"),
    ("memory MB", "peak_memory_mb"),
    ("parameters", "parameters"),
)


def render(table: Table) -> str:
    """The whole page."""
    names = [f"g{place}" for place in range(len(table.groups))]
    sections = "".join(_section(group, table, name) for name, group in zip(names, table.groups, strict=True))
    contents = ""
    if len(names) > 1:
        links = "".join(
            f'<li><a href="#{name}">{escape(title(group))}</a></li>' for name, group in zip(names, table.groups, strict=True)
        )
        contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>'
    notes = [*table.notes, BOLD] if any(group.has_delta for group in table.groups) else table.notes
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(_page_title(table))}</title><style>{CSS}</style></head>\n<body><header><h1>OCD-Bench</h1>"
        '<button id="theme" type="button" hidden>Theme</button></header>\n<main>'
        f'<p class="quiet">{escape(table.caption)}</p>{_list(notes)}{contents}\n{sections}'
        f"<h2>About this run</h2>{_facts(table.info)}</main>\n<script>{SCRIPT}</script></body></html>\n"
    )


def _page_title(table: Table) -> str:
    return "OCD-Bench: " + "; ".join(title(group) for group in table.groups) if table.groups else "OCD-Bench"


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in lines)
    return f'<ul class="quiet">{items}</ul>' if items else ""


def _facts(info: Mapping[str, Any]) -> str:
    """What the run was: plain values only."""
    environments = list(info.get("environments", {}).values()) or [info.get("environment", {})]
    facts: list[tuple[str, object]] = [(key, info.get(key)) for key in ("created", "ocd_bench", "preset")]
    facts.append(("seeds", seeds_text(info["seeds"]) if info.get("seeds") else None))
    for name in dict.fromkeys(name for environment in environments for name in environment):
        values = dict.fromkeys(str(environment.get(name)) for environment in environments if environment.get(name) is not None)
        facts.append((name, "; ".join(values)))
    facts.append(("plugins", ", ".join(f"{name} {version}" for name, version in info.get("plugins", {}).items())))
    return (
        "<dl>"
        + "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in facts if v not in (None, ""))
        + "</dl>"
    )


def _section(group: Group, table: Table, name: str) -> str:
    fitting = _plots(fitting_figures(group))
    folded = f"<details><summary>Layer selection and fitting</summary>{fitting}</details>" if fitting else ""
    return (
        f'<section id="{name}" aria-labelledby="{name}h"><h2 id="{name}h">{escape(title(group))}</h2>{_list(group.notes)}'
        f"{_table(group, table, name)}{_plots(result_figures(group))}{_media(group)}{folded}"
        f"{''.join(f'<h3>{escape(heading)}</h3>{body}' for heading, body in group.sections)}</section>\n"
    )


def _media(group: Group) -> str:
    """What the task itself has to show."""
    if not group.media:
        return ""
    files = arranged(group.media, [row.method for row in group.rows])
    return f"<h3>Test samples, seed {group.media_seed}</h3>{gallery(files)}"


def _plots(figures: Iterable[tuple[str, str]]) -> str:
    plots = "".join(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" for caption, svg in figures)
    return f'<div class="plots">{plots}</div>' if plots else ""


def _table(group: Group, table: Table, name: str) -> str:
    costs = [(heading, key) for heading, key in COSTS if any(key in row.cost for row in group.rows)]
    extras = [heading for heading in table.extras if any(heading in row.extra for row in group.rows)]
    headings = ["method"]
    for metric in group.metrics:
        headings.append(metric.heading)
        if metric.primary and group.has_delta:
            unit = metric.style.difference_unit
            headings.append(f"Δ base [{unit}]" if unit else "Δ base")
    headings += [heading for heading, _ in costs] + extras
    if len(headings) == 1:
        headings.append("result")
    head = "".join(f'<th scope="col"><button type="button">{escape(heading)}</button></th>' for heading in headings)
    body = "".join(_row(row, group, [key for _, key in costs], extras, len(headings) - 1) for row in group.rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{name}c"><table>'
        f'<caption id="{name}c"><span>Methods on {escape(title(group))}; choose a heading to sort</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(row: Row, group: Group, costs: list[str], extras: list[str], width: int) -> str:
    head = f'<th scope="row" data-v="{escape(row.method)}">{escape(row.method)}</th>'
    if row.problem:
        kind = "words failed" if row.status == "failed" else "words"
        return f'<tr>{head}<td class="{kind}" colspan="{width}"><span>{escape(row.problem)}</span></td></tr>'
    cells = []
    for metric in group.metrics:
        cells.append(_metric(row, metric))
        if metric.primary and group.has_delta:
            cells.append(_delta(row, metric))
    cells += [_cell(quantity(row.cost.get(key)), row.cost.get(key)) for key in costs]
    cells += [_cell(row.extra.get(name, DASH), _leading_number(row.extra.get(name))) for name in extras]
    return f"<tr>{head}{''.join(cells)}</tr>"


def _cell(text: str, value: object = None, kind: str = "", spoken: str = "") -> str:
    """A cell; ``value`` is what it sorts by, ``spoken`` is heard by a screen reader only."""
    classes = f' class="{kind}"' if kind else ""
    sort = f' data-v="{escape(str(value))}"' if value is not None else ""
    heard = f'<span class="hidden"> {escape(spoken)}</span>' if spoken else ""
    return f"<td{classes}{sort}>{escape(_minus(text))}{heard}</td>"


def _metric(row: Row, metric: MetricColumn) -> str:
    if metric.name not in row.metrics:
        return _cell(DASH)
    mean, sd = row.metrics[metric.name]
    return _cell(metric.style.spread(mean, sd), mean)


def _delta(row: Row, metric: MetricColumn) -> str:
    if row.delta is None:
        return _cell(DASH)
    return _cell(metric.style.difference(row.delta), row.delta.value, row.verdict, row.verdict)


def _leading_number(text: str | None) -> str | None:
    """What a plugin's column sorts by: the number it begins with, else its words."""
    found = re.match(r"-?\d+(\.\d+)?", text or "")
    return found[0] if found else text


def _minus(text: str) -> str:
    """Hyphens that stand for a minus sign as one."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)
