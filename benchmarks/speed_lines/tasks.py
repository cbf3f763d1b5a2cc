"""Lines of the other tasks: adapted predictions beside the base, on data that come with the plugins or random ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ocd_bench import Samples, Splits
from ocd_bench.config import resolve
from ocd_bench.engine.ocd import FittedOCD, fit
from ocd_bench.method import Context
from ocd_bench.methods import builtin
from ocd_bench.methods.ocd import problem_of
from ocd_bench.plugin.manager import load_plugins
from ocd_bench.task import Request, Task
from speed_lines.naive import apply_loop
from speed_lines.timing import Line, Pair, Side, Skipped, Wrong, same

SHOWN = 4
"""Samples of the check against a loop."""


def context_of(
    name: str, dataset: str, splits: Splits | None = None, preset: str = "quick", **settings: Any
) -> tuple[Context, Samples]:
    """A context with an untrained base, and test samples.

    Args:
        splits: in place of the dataset's.
        settings: of the task.
    """
    manager = load_plugins(())
    if name not in manager.tasks:
        raise Skipped(f"no plugin has the task {name}")
    task: Task = manager.task(name)
    if reason := manager.availability(task):
        raise Skipped(reason)
    config = resolve(task, builtin(), preset, {f"{name}.{key}": value for key, value in settings.items()})
    request = Request(name, dataset, config.section(name), preset, 0, True, ())
    splits = splits or task.load_data(request)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = task.base_model(splits, request).eval().requires_grad_(False)
    layer = task.select_layer(base, request) or "head"
    hidden = replace(splits, test=splits.val)
    context = Context(
        task=task, request=request, splits=hidden, base=base, layer=layer, device=torch.device("cpu"), settings=config.section,
        batch_size=config.section("run").batch_size, ranking=lambda: [(layer, 0.0)],
    )  # fmt: skip
    return context, splits.test


def random_pictures(side: int = 32, classes: int = 10, count: int = 256) -> Splits:
    """Random colour pictures."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(count, 3, side, side, generator=generator), torch.arange(count) % classes
    samples = Samples(x, y)
    return Splits(samples, samples, samples)


def random_rows(count: int = 4096, columns: int = 8) -> Splits:
    """Random rows of California's size and a target."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, columns, generator=generator)
    samples = Samples(x, (x.sin().sum(1) + x[:, 0] * x[:, 1])[:, None])
    return Splits(samples, samples, samples)


def fit_once(context: Context) -> FittedOCD:
    """A hypernetwork after one training step, made as `ocd` makes it."""
    settings = replace(context.settings("ocd"), steps=1, evaluations=1, val_samples=8, batch_size=16, passes=0)
    return fit(problem_of(context, context.layer), settings)


def beside_base(make: Callable[[], tuple[Context, Samples]], batch: int) -> Callable[[Any], Pair]:
    """Adapted predictions, one draw, beside the base."""

    def build(options: Any) -> Pair:
        context, test = make()
        made, x = fit_once(context), test.inputs[:batch]

        def check() -> str:
            few = x[:SHOWN]
            deltas = [(trace, delta) for trace in made.problem.layer.traces(few) for delta in made.draw(trace)]
            loop = apply_loop(context.base, context.layer, few, torch.cat([delta.matrix() for _, delta in deltas]))
            return same(made.predict(few), loop, "outputs and those of a loop", 1e-3)

        def base() -> Tensor:
            with torch.no_grad():
                return context.base(x)

        return Pair(Side("adapted predictions", lambda: made.predict(x), len(x)), Side("base forward", base, len(x)), check)

    return build


def california(options: Any) -> Pair:
    """Adapted rows beside XGBoost's, on random rows of California's size."""
    try:
        from xgboost import XGBRegressor
    except ImportError as error:
        raise Skipped(str(error)) from error
    context, test = context_of(*CALIFORNIA)
    made, x = fit_once(context), test.inputs[:200]
    trees = XGBRegressor(n_estimators=500, max_depth=6, n_jobs=torch.get_num_threads())
    rows = x.numpy()
    trees.fit(test.inputs.numpy(), test.targets[:, 0].numpy())

    def check() -> str:
        if len(trees.predict(rows)) != len(made.predict(x)):
            raise Wrong("another number of rows")
        return "a yardstick: rows"

    return Pair(
        Side("adapted rows, batches of 200", lambda: made.predict(x), len(x)),
        Side("XGBoost, 500 trees of depth 6", lambda: trees.predict(rows), len(x)),
        check,
    )


CALIFORNIA = "tabular", "california_housing", random_rows(), "default"
LINES = [
    Line(
        "ResNet-20, 32 × 32 × 3 / base",
        beside_base(lambda: context_of("images", "cifar10", random_pictures(), model="resnet20"), 64),
    ),
    Line("TinyNeRF / base", beside_base(lambda: context_of("recon3d", "primitives"), 2)),
    Line("Gated-LSTM / base", beside_base(lambda: context_of("speech", "voices"), 4)),
    Line("text head / base", beside_base(lambda: context_of("nlp", "requests"), 200)),
    Line("California-sized rows / base", beside_base(lambda: context_of(*CALIFORNIA), 200)),
    Line("California-sized rows / XGBoost", california, "≥ 1"),
]
