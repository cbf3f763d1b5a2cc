"""The plots of a group: values, differences, cost against quality, calibration, and data in the cells' ``detail``.

These keys of ``detail`` are drawn. A value of another shape is ignored, because plugins may write any value there.
``entropies``: {layer: nats}; ``history``: [[step, training loss, validation loss], ...]; ``history_parts``: {part: [[step,
value], ...]}; ``gain_candidates`` and ``gain_losses``: [numbers]; ``rho``: [[true, predicted], ...].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ocd_bench.report import svg
from ocd_bench.report.numbers import quantity
from ocd_bench.report.table import BASE, Group, Row, TableMetric
from ocd_bench.stats import Estimate

MANY = 400
"""Maximum number of points in a scatter plot. From more points, an evenly spaced subset is drawn."""
FEWEST = 5
"""Fewest samples of a confidence bin whose accuracy is drawn."""


def result_figures(group: Group) -> Iterator[tuple[str, str]]:
    """Caption and SVG of each plot of results."""
    primary = group.primary
    if primary is None:
        return
    caption = f"{primary.name}: mean over seeds, 95 % interval over test samples"
    items = _items(primary, [(row, row.value) for row in group.rows])
    yield (
        caption,
        svg.intervals(
            items,
            f"{primary.name} by method, {group.title}",
            primary.heading,
            lambda number: primary.style.value(number / primary.style.factor),
        ),
    )
    yield from _differences(group)
    yield from _cost(group)
    yield from _calibration(group)


def fitting_figures(group: Group) -> Iterator[tuple[str, str]]:
    """Caption and SVG of each plot of layer selection and fitting, from the cells' ``detail``.

    A fit that several rows share, such as an ensemble's, is drawn once.
    """
    yield from _layers(group)
    plots = (
        (_training, ("history",)),
        (_parts, ("history_parts",)),
        (_gain, ("gain_candidates", "gain_losses")),
        (_rho, ("rho",)),
    )
    drawn: list[Any] = []
    for row in group.rows:
        for draw, names in plots:
            shown = names, {seed: [detail.get(name) for name in names] for seed, detail in row.details.items()}
            if shown not in drawn:
                drawn.append(shown)
                yield from draw(row, group.title)


def _items(metric: TableMetric, estimates: Sequence[tuple[Row, Estimate | None]]) -> list[svg.Item]:
    """Each row's estimate with its interval, in the unit that is printed; rows without one are left out."""
    factor = metric.style.factor
    return [
        svg.Item(
            f"{row.method} (gain 0)" if row.equals_base else row.method,
            estimate.value * factor,
            None if estimate.low is None else estimate.low * factor,
            None if estimate.high is None else estimate.high * factor,
            _mark(row),
            row.method,
        )
        for row, estimate in estimates
        if estimate is not None
    ]


def _mark(row: Row) -> str:
    return "oracle" if row.oracle else row.verdict


def _differences(group: Group) -> Iterator[tuple[str, str]]:
    primary = group.primary
    if primary is None or not group.has_delta:
        return
    style = primary.style
    known = [(row, row.delta.widest) for row in group.rows if row.delta]
    items = _items(primary, [(row, Estimate(0.0) if row.no_difference else delta) for row, delta in known])
    covered = "seeds and test samples" if any(row.delta and row.delta.wide for row in group.rows) else "test samples"
    better = "right" if primary.higher_is_better else "left"
    what = f"difference from {group.rows[0].against}"
    unit = f"{what} [{style.difference_unit}]" if style.difference_unit else what
    yield (
        f"Paired {what}, 95 % interval over {covered}; improvement is to the {better}",
        svg.intervals(
            items,
            f"{primary.name}, {what}, {group.title}",
            unit,
            lambda number: style.signed(number / style.factor),
            zero=True,
        ),
    )


def _cost(group: Group) -> Iterator[tuple[str, str]]:
    primary = group.primary
    places = [
        (row.cost["samples_per_s"], row.value.value * primary.style.factor, row.method, _mark(row))
        for row in group.rows
        if primary and row.value and row.cost.get("samples_per_s", 0) > 0
    ]
    if primary and len(places) > 1:
        heading = f"Cost against quality: {primary.name} over test samples per second"
        yield heading, svg.points(places, f"{heading}, {group.title}", "samples/s", primary.heading, log=(True, False))


def _calibration(group: Group) -> Iterator[tuple[str, str]]:
    known = [(row, row.reliability) for row in group.rows if row.reliability is not None]
    if not known:
        return
    caption = "Expected calibration error, all seeds together; 0 is best"
    items = [svg.Item(row.method, 100 * found.error, mark=_mark(row), method=row.method) for row, found in known]
    yield caption, svg.intervals(items, f"{caption}, {group.title}", "points", lambda error: f"{error:.2f}", bars=True)
    methods = sorted(((row, found) for row, found in known if not row.oracle), key=lambda pair: pair[0].method != BASE)
    curves = []
    for row, found in methods:
        if bins := [(sure, right) for sure, right, count in found.curve if count >= FEWEST]:
            curves.append((row.method, [sure for sure, _ in bins], [right for _, right in bins]))
    caption = (
        "Reliability: share of right answers by confidence; below the dashed line a method is overconfident. "
        f"Bins of {FEWEST} samples or more; equal curves hide each other: choose methods above"
    )
    if curves:
        yield caption, svg.lines(curves, f"{caption}, {group.title}", "confidence", "right", unit_square=True)


def _layers(group: Group) -> Iterator[tuple[str, str]]:
    for row in group.rows:
        for seed, detail in row.details.items():
            scores = detail.get("entropies")
            if not isinstance(scores, Mapping):
                continue
            ranked = sorted(((str(name), score) for name, score in scores.items() if _is_number(score)), key=lambda i: -i[1])
            if ranked:
                caption = f"Layer selection: entropy of the losses under weight noise, seed {seed}"
                items = [svg.Item(name, float(score)) for name, score in ranked]
                yield caption, svg.intervals(items, f"{caption}, {group.title}", "nats", quantity, bars=True)
                return


def _training(row: Row, where: str) -> Iterator[tuple[str, str]]:
    for seed, detail in row.details.items():
        records = _records(detail.get("history"), 3)
        series = [(name, records, column) for name, column in (("training loss", 1), ("validation loss", 2))]
        curves = [curve for curve in (_curve(*one) for one in series) if curve]
        if curves:
            caption = f"{row.method}: training, seed {seed}"
            yield caption, svg.lines(curves, f"{caption}, {where}", "step", "loss")
            return


def _parts(row: Row, where: str) -> Iterator[tuple[str, str]]:
    """The parts of the loss, which have units of their own: a plot each."""
    for seed, detail in row.details.items():
        parts = detail.get("history_parts")
        if not isinstance(parts, Mapping):
            continue
        for name, records in parts.items():
            curve = _curve(str(name), _records(records, 2), 1)
            if curve:
                caption = f"{row.method}: training, {name} part of the loss, seed {seed}"
                yield caption, svg.lines([curve], f"{caption}, {where}", "step", "loss")
        return


def _records(value: Any, width: int) -> list[list[Any]]:
    """A list of lists of ``width``; empty if it is anything else."""
    if not isinstance(value, list | tuple) or not all(isinstance(r, list | tuple) and len(r) == width for r in value):
        return []
    return [list(record) for record in value]


def _curve(name: str, records: list[list[Any]], column: int) -> tuple[str, list[float], list[float]] | None:
    """Steps and numbers of one column; None with fewer than two numbers. A validation loss may be missing at some steps."""
    kept = [record for record in records if _is_number(record[0]) and _is_number(record[column])]
    if len(kept) < 2:
        return None
    return name, [float(record[0]) for record in kept], [float(record[column]) for record in kept]


def _gain(row: Row, where: str) -> Iterator[tuple[str, str]]:
    for seed, detail in row.details.items():
        gains, losses = _numbers(detail.get("gain_candidates")), _numbers(detail.get("gain_losses"))
        if len(gains) == len(losses) > 1:
            caption = f"{row.method}: validation loss by gain, seed {seed}"
            chosen = row.gains.get(seed)
            mark = None if chosen is None else (chosen, f"chosen: {chosen:g}" + (", equal to base" if chosen == 0 else ""))
            if chosen == 0 and min(losses) < losses[gains.index(0.0) if 0.0 in gains else 0]:
                caption += "; gain 0, because no other is better by more than a standard error, or costs no quality"
            ordered = sorted(zip(gains, losses, strict=True))
            curve = ("validation loss", [gain for gain, _ in ordered], [loss for _, loss in ordered])
            yield caption, svg.lines([curve], f"{caption}, {where}", "gain on the weight change", "loss", mark=mark)
            return


def _rho(row: Row, where: str) -> Iterator[tuple[str, str]]:
    for seed, detail in row.details.items():
        known = [pair for pair in _records(detail.get("rho"), 2) if all(map(_is_number, pair))]
        if not known:
            continue
        pairs = [(float(x), float(y), "", "") for x, y in known[:: max(1, len(known) // MANY)]]
        caption = f"{row.method}: predicted against true size ρ of the weight change, seed {seed}"
        yield caption, svg.points(pairs, f"{caption}, {where}", "true ρ", "predicted ρ", log=(True, True), diagonal=True)
        return


def _numbers(values: Any) -> list[float]:
    """A list of finite numbers; empty if it is anything else."""
    if not isinstance(values, list | tuple) or not all(_is_number(value) for value in values):
        return []
    return [float(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
