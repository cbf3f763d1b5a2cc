"""The report as one HTML file: sortable tables, plots as inline SVG, a dark and a light theme. The page loads no other file.

``templates/page.html`` is the page. Jinja escapes all text; only plots, style sheet, script and plugins' sections are inserted
unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from ocd_bench.report.figures import fitting_figures, result_figures
from ocd_bench.report.media import Gallery, arranged, gallery
from ocd_bench.report.numbers import seeds_text
from ocd_bench.report.style import CSS, SCRIPT
from ocd_bench.report.table import Group, Table

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:; "
    "base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Part:
    """A section of the page.

    Attributes:
        name: its ``id``. The ids of its heading and table begin with it.
        results, fitting: caption and SVG of each plot.
        gallery: the task's own sample files; None if there are none.
    """

    name: str
    group: Group
    results: list[tuple[str, str]]
    fitting: list[tuple[str, str]]
    gallery: Gallery | None


def render(table: Table) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader("ocd_bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(sort_key=_sort_key, minus=_minus)
    return environment.get_template("page.html").render(
        table=table,
        title=_title(table),
        parts=[_part(f"g{place}", group) for place, group in enumerate(table.groups)],
        facts=_facts(table),
        policy=POLICY,
        css=CSS,
        script=SCRIPT,
    )


def _title(table: Table) -> str:
    return "OCD-Bench: " + "; ".join(group.title for group in table.groups) if table.groups else "OCD-Bench"


def _part(name: str, group: Group) -> Part:
    methods = [row.method for row in group.rows]
    samples = gallery(arranged(group.media, methods), methods) if group.media else None
    return Part(name, group, list(result_figures(group)), list(fitting_figures(group)), samples)


def _facts(table: Table) -> list[tuple[str, object]]:
    """The properties of the run, by name. Values are plain."""
    info = table.info
    environments = list(info.get("environments", {}).values()) or [info.get("environment", {})]
    facts: list[tuple[str, object]] = [(key, info.get(key)) for key in ("created", "ocd_bench", "preset")]
    facts.append(("changed settings", ", ".join(table.changed_settings)))
    facts.append(("seeds", seeds_text(info["seeds"]) if info.get("seeds") else None))
    for name in dict.fromkeys(name for environment in environments for name in environment):
        values = dict.fromkeys(str(environment.get(name)) for environment in environments if environment.get(name) is not None)
        facts.append((name, "; ".join(values)))
    facts.append(("plugins", ", ".join(f"{name} {version}" for name, version in info.get("plugins", {}).items())))
    return [(name, value) for name, value in facts if value not in (None, "")]


def _sort_key(value: object) -> object:
    """The sort key of an entry: a number, else the number at the start of the text, else the text."""
    if not isinstance(value, str):
        return value
    found = re.match(r"-?\d+(\.\d+)?", value)
    return found[0] if found else value


def _minus(text: str) -> str:
    """The text with minus signs in place of the hyphens that mean one."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)
