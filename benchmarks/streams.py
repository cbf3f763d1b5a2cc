"""Accuracy of each method by the size of a batch and the order of the samples: one table and one figure of several runs.

    python benchmarks/streams.py results/default/cifar10-streams-*
    python benchmarks/streams.py results/default/cifar10-streams-* --figure docs/pictures/streams.svg

Each run has one ``run.batch_size``, and the same kinds of corruption in several streams (``--stream``). A number is the mean of
the primary metric over the kinds; where the kinds are mixed in each batch or follow one another, it is over them too.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pictures import beside

from ocd_bench.report import svg
from ocd_bench.report.plots import standalone
from ocd_bench.results import Run, parts_of, primary_of, read_run

SHOWN = "base", "bn-adapt", "tent", "ttn", "mixnorm", "ocd-norms"
"""Methods of the figure."""
Numbers = Mapping[tuple[str, str, int], float]
"""Method, stream and size of a batch to the mean over kinds, in per cent."""


def numbers(runs: Sequence[Run]) -> Numbers:
    """The means of all runs."""
    values: dict[tuple[str, str, int], list[float]] = {}
    for run in runs:
        for key, cell in run.cells.items():
            _, variant, stream = parts_of(key.dataset)
            if cell["status"] == "ok" and variant:
                size = run.info["tasks"][key.task]["config"]["run"]["batch_size"]
                value = 100 * cell["metrics"][primary_of(cell)]["value"]
                values.setdefault((key.method, stream or "iid", size), []).append(value)
    return {name: float(np.mean(found)) for name, found in values.items()}


def table(found: Numbers) -> str:
    """A Markdown table: a row for each method, a column for each stream and size."""
    methods, streams, sizes = axes(found)
    head = ["method", *(f"{stream}, {size}" for stream in streams for size in sizes)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    best = {
        (stream, size): max(found[m, stream, size] for m in methods if (m, stream, size) in found)
        for stream in streams
        for size in sizes
    }
    for method in methods:
        row = [method]
        for place in best:
            value = found.get((method, *place))
            text = "–" if value is None else f"{value:.1f}"
            row.append(f"**{text}**" if value == best[place] else text)
        lines.append(row)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def axes(found: Numbers) -> tuple[list[str], list[str], list[int]]:
    """Methods and streams in their order, sizes in rising order."""
    methods, streams, sizes = (list(dict.fromkeys(name[place] for name in found)) for place in range(3))
    return methods, streams, sorted(sizes)  # type: ignore[type-var, return-value]


def figure(found: Numbers) -> str:
    """A panel for each stream: accuracy by the size of a batch, a curve for each method of :data:`SHOWN`."""
    _, streams, sizes = axes(found)
    panels = []
    for stream in streams:
        curves = [
            (method, sizes, [found[method, stream, size] for size in sizes])
            for method in SHOWN
            if all((method, stream, size) in found for size in sizes)
        ]
        panels.append(standalone(svg.lines(curves, f"stream {stream}", f"{stream}: size of a batch", "accuracy [%]", log=True)))
    return beside(panels)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--figure", type=Path, help="an SVG to write")
    args = parser.parse_args(arguments)
    found = numbers([read_run(path) for path in args.runs])
    print(table(found), end="")
    if args.figure:
        args.figure.write_text(figure(found), encoding="utf-8")


if __name__ == "__main__":
    main()
