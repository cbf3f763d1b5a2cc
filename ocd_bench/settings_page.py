"""Generates docs/settings.md, and the tables of settings in the plugins' READMEs, from the declarations of the settings.

``python -m ocd_bench.settings_page docs/settings.md plugins/*/README.md`` writes them. A test fails if they are out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ocd_bench.config import PRESETS
from ocd_bench.data.page import PLUGINS
from ocd_bench.plugin.manager import Manager, load_plugins
from ocd_bench.reference import Row, as_text, by_section, rows

HEAD = """\
# Settings

This page is made by `python -m ocd_bench.settings_page docs/settings.md` from the declarations in the code. A test fails when
it is out of date.

A setting is changed with `--set section.key=value`, or in a TOML file given with `--config`. `--set` wins over the file, and
the file over the preset. A list is written with commas: `--set ocd.gains=0,0.5,1`. An unknown key, a value of another type and
a value out of range are errors (exit code 2) before anything runs.

```console
$ ocd-bench list settings ocd.steps --preset quick
$ ocd-bench config new settings.toml --preset quick --task tabular
$ ocd-bench run --task tabular --preset quick --config settings.toml --methods base --out runs/settings
```

The columns `quick` and `paper` show the value under that preset where it differs from the default. A task may choose values of
its own for any section; the last table lists them.
"""

MARKS = re.compile(r"(<!-- settings: ([\w,]+) -->\n).*?(<!-- end of settings -->)", re.DOTALL)
"""Marks around the table of one or more sections in a page."""


def page(manager: Manager) -> str:
    """The whole of docs/settings.md."""
    found = rows(list(manager.tasks.values()), list(manager.methods.values()))
    parts = [HEAD]
    for section, own in by_section(found).items():
        users = [f"`{method.name}`" for method in manager.methods.values() if method.section == section]
        what = f"Methods: {', '.join(users)}." if users else "A task's own." if section in manager.tasks else "All runs."
        parts.append(f"## `{section}`\n\n{what}\n\n{table(own)}")
    parts.append(f"## Values that tasks choose\n\n{_choices(found)}")
    return "\n".join(parts)


def table(own: list[Row]) -> str:
    """The settings of one section as a Markdown table."""
    lines = ["| key | default | quick | paper | accepted | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for row in own:
        default = row.values["default"]
        others = [_code(row.values[preset]) if row.values[preset] != default else "" for preset in ("quick", "paper")]
        unit = f" Unit: {row.known.unit}." if row.known.unit else ""
        cells = [f"`{row.name}`", _code(default), *others, row.expected, row.known.help + unit]
        lines.append("".join(f"| {cell.replace('|', '&#124;')} " if cell else "| " for cell in cells) + "|")
    return "\n".join(lines) + "\n"


def _choices(found: list[Row]) -> str:
    """Settings that a task changes in sections of others: key, task, and the value under each preset that the task sets."""
    lines = [f"| key | task | {' | '.join(PRESETS)} |", f"| --- | --- |{' --- |' * len(PRESETS)}"]
    for row in found:
        for task in sorted({task for changes in row.tasks.values() for task in changes}):
            values = [row.tasks[preset].get(task, row.values[preset]) for preset in PRESETS]
            lines.append(f"| `{row.key}` | {task} | {' | '.join(map(_code, values))} |")
    return "\n".join(lines) + "\n"


def _code(value: object) -> str:
    text = as_text(value)
    return f"`{text}`" if text else "(empty)"


def filled(text: str, manager: Manager) -> str:
    """A page with the tables between the marks generated again."""

    def fill(found: re.Match[str]) -> str:
        own = by_section(rows(list(manager.tasks.values()), list(manager.methods.values())))
        return f"{found[1]}{chr(10).join(table(own[section]) for section in found[2].split(','))}{found[3]}"

    return MARKS.sub(fill, text)


def main(paths: list[str]) -> None:
    """Write the pages: all of ``settings.md``; in other pages only the text between the marks."""
    manager = load_plugins(only=PLUGINS, declared=True)
    for path in map(Path, paths):
        text = page(manager) if path.name == "settings.md" else filled(path.read_text(encoding="utf-8"), manager)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
