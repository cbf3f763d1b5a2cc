"""Writes docs/datasets.md from what the plugins declare: ``python -m ocd_bench.data.page docs/datasets.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from ocd_bench.data.catalogue import Entry, catalogue
from ocd_bench.task import Task

PLUGINS = ("images", "recon3d", "tabular", "speech", "nlp")
"""The plugins of this repository. The page has no others, even if they are installed."""

HEAD = """\
# Datasets

`python -m ocd_bench.data.page docs/datasets.md` writes this page from what the plugins declare, and a test fails if it is not
up to date.

A dataset is looked for in `--data-dir`, then in `$OCD_BENCH_DATA`, then in the user's cache folder, each time in the
sub-folder named in the tables. Without `--dataset`, a task takes the first one (`tabular`: the first two),
which comes with the package.

```console
$ ocd-bench data list
$ ocd-bench data fetch mnist california_housing --data-dir DATA
$ ocd-bench data verify mnist california_housing --data-dir DATA
```

`fetch` downloads from the addresses below, and continues an interrupted download. It keeps a file only if its SHA-256 is the
one recorded here. Without names, it fetches everything that can be fetched. `verify` checks the files that exist (exit code
2: a file is not the recorded one, 4: there is none). A run refuses a file with a recorded name and another content.
`--offline` never uses the network, and lists the missing files.

*By hand* in a table means that a licence must be accepted first, that the official file has no recorded checksum, or that the
task reads another format: put the files into the named folder yourself.

Data have licences of their own, which you must observe. This package contains none of the downloaded datasets.
"""


def page(tasks: Mapping[str, Task]) -> str:
    """The whole page for ``tasks``, in their order."""
    entries = catalogue(tasks)
    parts = [HEAD]
    for task in tasks.values():
        own = [entry for entry in entries if entry.task == task.name]
        parts.append(f"## {task.name}\n\n{_sentence(task.description)}\n\n{_table(own)}\n")
        if sources := _sources(own):
            parts.append(f"Files:\n\n{sources}\n")
        if cited := [f"- `{e.dataset.name}`: {e.dataset.citation}" for e in own if e.dataset.citation]:
            parts.append("To be cited:\n\n" + "\n".join(cited) + "\n")
    return "\n".join(parts)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _table(entries: Iterable[Entry]) -> str:
    rows = [
        (f"`{e.dataset.name}`", e.dataset.description, _origin(e), _folder(e), e.dataset.licence or "none stated")
        for e in entries
    ]
    return _pipes(("dataset", "what", "from", "folder", "licence"), rows)


def _origin(entry: Entry) -> str:
    dataset = entry.dataset
    if dataset.embedded:
        return "the package"
    size = sum(source.size for source in dataset.sources)
    how = f"`fetch`, {size / 1e6:,.1f} MB" if dataset.sources else "by hand"
    return f"{how}; [homepage]({dataset.homepage})" if dataset.homepage else how


def _folder(entry: Entry) -> str:
    return "" if entry.dataset.embedded else f"`{entry.folder}`"


def _sources(entries: Iterable[Entry]) -> str:
    rows = [
        (f"[`{entry.folder}/{source.path}`]({source.url})", f"{source.size:,}", f"`{source.sha256}`")
        for entry in entries
        for source in entry.dataset.sources
    ]
    return _pipes(("file", "bytes", "sha256"), rows) if rows else ""


def _pipes(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def main(path: Path) -> None:
    """Write the page of this checkout's plugins to ``path``."""
    from ocd_bench.plugin.manager import load_plugins

    path.write_text(page(load_plugins(only=PLUGINS).tasks), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/datasets.md"))
