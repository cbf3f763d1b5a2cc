"""How time and memory grow: with samples, width of the layer, positions per sample, draws and classes.

For each axis the same step runs at several sizes, each in a process of its own, with the peak of its memory above the imports
and its CPU seconds. The slope is that of the logarithms, by least squares over the upper half of the sizes: 1 is linear, 0 is
flat. The last column names the largest size that ran and what stopped the next one.

    python benchmarks/growth.py
    python benchmarks/growth.py --only width --quick
    python benchmarks/growth.py --plot growth.svg

Steps: `samples` fits `ocd` for 20 steps on so many synthetic samples; `width` and `full` do the same on a layer of so many
inputs and outputs, with the code chosen by the engine and with all of ΔW; `positions` overfits samples with so many positions
each; `draws` predicts with so many draws; `classes` fits `ocd` with so many outputs.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

AXES: dict[str, tuple[int, ...]] = {
    "samples": (1_000, 10_000, 100_000, 1_000_000),
    "width": (64, 256, 1024, 4096, 8192),
    "full": (16, 64, 256, 1024, 8192),
    "positions": (1, 16, 256, 4096, 16_384),
    "draws": (1, 4, 16, 64),
    "classes": (2, 10, 100, 1000, 10_000),
}
STEPS = 20
LIMIT = 600
"""Seconds that one size may take."""


def problem(samples: int = 2000, width: int = 64, classes: int = 10, positions: int = 1) -> Any:
    """A perceptron of three layers on random numbers; the layer in the middle is changed."""
    import torch
    from torch import nn

    from ocd_bench.engine.capture import TargetLayer
    from ocd_bench.engine.problem import Problem

    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(1)

    torch.manual_seed(0)
    layers = [nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), Mean(), nn.Linear(width, classes)]
    model = nn.Sequential(*(layers if positions > 1 else [*layers[:4], layers[5]])).eval().requires_grad_(False)
    shape = (positions, 16) if positions > 1 else (16,)

    def data(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(count, *shape), torch.randint(classes, (count,))

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target, reduction="none")

    return Problem(TargetLayer(model, "2"), data(samples), data(256), loss)


def settings(**more: Any) -> Any:
    """Those of the preset quick, for a few steps."""
    from ocd_bench.engine.settings import OCDSettings

    return OCDSettings(**{**OCDSettings.presets["quick"], "steps": STEPS, "evaluations": 1, "val_samples": 256, **more})


def step(axis: str, size: int) -> Callable[[], Any]:
    """What is measured; what it needs is built first."""
    import torch

    from ocd_bench.engine.ocd import fit
    from ocd_bench.engine.overfit import Overfit, overfitted

    if axis in ("samples", "width", "classes"):
        task = problem(**{axis: size})
        return lambda: fit(task, settings())
    if axis == "full":
        task = problem(width=size)
        return lambda: fit(task, settings(form="full"))
    if axis == "positions":
        task = problem(64, positions=size)
        return lambda: [None for _ in overfitted(task.layer, *task.train, task.loss, Overfit())]
    made = fit(problem(), settings())
    x = torch.randn(200, 16)
    return lambda: [made.predict(x, size) for _ in range(10)]


def peak() -> float:
    """Megabytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def one(axis: str, size: int) -> None:
    """Measure one size in this process, and print the numbers as JSON."""
    import torch

    from ocd_bench.engine.ocd import fit
    from ocd_bench.errors import OCDBenchError

    torch.set_num_threads(1)
    fit(problem(64, 8), settings(steps=1))  # imports that torch puts off
    before = peak()
    call = step(axis, size)
    start = time.process_time()
    try:
        call()
    except OCDBenchError as error:
        print(json.dumps({"refused": str(error)}))
        return
    print(json.dumps({"seconds": time.process_time() - start, "mb": peak() - before}))


def measured(axis: str, size: int) -> dict[str, Any]:
    """The numbers of one size, or why there are none."""
    command = [sys.executable, __file__, "--one", axis, str(size)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"refused": f"over {LIMIT} s"}
    if done.returncode:
        return {"refused": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def slope(sizes: list[int], values: list[float]) -> float:
    """Of the logarithms, by least squares over the upper half of the sizes (two at least)."""
    first = min(len(sizes) // 2, len(sizes) - 2)
    x, y = [math.log(size) for size in sizes[first:]], [math.log(max(value, 1e-3)) for value in values[first:]]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def row(axis: str, sizes: tuple[int, ...]) -> tuple[str, dict[int, dict[str, Any]]]:
    """The line of an axis, and its numbers by size."""
    found: dict[int, dict[str, Any]] = {}
    stopped = ""
    for size in sizes:
        result = measured(axis, size)
        if "refused" in result:
            stopped = f"{size:,}: {result['refused']}"
            break
        found[size] = result
    ran = list(found)
    if len(ran) < 2:
        return f"| {axis} | – | – | – | – | {stopped} |", found
    seconds, mb = ([found[size][name] for size in ran] for name in ("seconds", "mb"))
    numbers = f"{slope(ran, seconds):.2f} | {', '.join(f'{value:,.0f}' for value in mb)} | {slope(ran, mb):.2f}"
    shown = ", ".join(f"{value:.2g}" for value in seconds)
    return f"| {axis} {', '.join(f'{size:,}' for size in ran)} | {shown} | {numbers} | {stopped or 'all ran'} |", found


def figure(results: dict[str, dict[int, dict[str, Any]]]) -> str:
    """Seconds and megabytes against size, as an SVG of two panels; axes of which two sizes ran."""
    from pictures import beside

    from ocd_bench.report import svg
    from ocd_bench.report.plots import standalone

    panels = []
    for name, unit in (("seconds", "CPU seconds"), ("mb", "peak memory above imports, MB (at least 1)")):
        least = 1.0 if name == "mb" else 0.0
        curves = [
            (axis, list(found), [max(least, result[name]) for result in found.values()])
            for axis, found in results.items()
            if len(found) > 1
        ]
        panels.append(standalone(svg.lines(curves, f"{unit} by size", "size", unit, log=True)))
    return beside(panels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=AXES, help="one axis")
    parser.add_argument("--quick", action="store_true", help="the smaller sizes")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves, as an SVG")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], int(options.one[1]))
        return
    results = {}
    print("| axis and sizes | CPU s | slope | peak MB above imports | slope | stopped by |")
    print("| --- | --- | --- | --- | --- | --- |")
    for axis, sizes in AXES.items():
        if options.only in (None, axis):
            line, results[axis] = row(axis, sizes[:3] if options.quick else sizes)
            print(line, flush=True)
    if options.plot is not None:
        options.plot.write_text(figure(results), encoding="utf-8")


if __name__ == "__main__":
    main()
