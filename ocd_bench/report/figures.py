"""Which plots a group gets: values, differences, cost against quality, and what the cells' ``detail`` carries.

Known keys of ``detail``; anything of another shape is passed over, since plugins may put what they like there:
``layer_entropy``: {layer: score}; ``history``: [[step, training loss, validation loss], ...]; ``curves``: {name: [numbers]};
``gain_candidates`` and ``gain_losses``: [numbers]; ``rho``: {"true": [numbers], "predicted": [numbers]}.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ocd_bench.report import svg
from ocd_bench.report.columns import title
from ocd_bench.report.numbers import quantity
from ocd_bench.report.table import Group, Row

MANY = 400
"""Points of a cloud that are drawn; more are thinned evenly."""


def result_figures(group: Group) -> Iterator[tuple[str, str]]:
    """Caption and SVG of each plot of results."""
    primary = group.primary
    if primary is None:
        return
    style, rows = primary.style, [row for row in group.rows if row.value is not None]
    items = [
        svg.Item(
            row.method,
            row.value.value * style.factor,
            None if row.value.low is None else row.value.low * style.factor,
            None if row.value.high is None else row.value.high * style.factor,
            row.verdict,
        )
        for row in rows
        if row.value
    ]

    def form(number: float) -> str:
        return style.value(number / style.factor)

    yield (
        f"{primary.name}: mean over seeds, 95 % interval over test samples",
        svg.intervals(items, f"{primary.name} by method, {title(group)}", primary.heading, form),
    )
    yield from _differences(group)
    yield from _cost(group)


def fitting_figures(group: Group) -> Iterator[tuple[str, str]]:
    """Caption and SVG of each plot of what the cells tell about layer selection and fitting."""
    yield from _layers(group)
    for row in group.rows:
        for draw in (_training, _gain, _rho):
            yield from draw(row, title(group))


def _differences(group: Group) -> Iterator[tuple[str, str]]:
    primary = group.primary
    compared = [row for row in group.rows if row.delta is not None]
    if primary is None or not compared:
        return
    factor = primary.style.factor
    items = [
        svg.Item(
            row.method,
            row.delta.value * factor,
            None if row.delta.low is None else row.delta.low * factor,
            None if row.delta.high is None else row.delta.high * factor,
            row.verdict,
        )
        for row in compared
        if row.delta
    ]
    better = "right" if primary.higher_is_better else "left"
    unit = (
        f"difference from base [{primary.style.difference_unit}]" if primary.style.difference_unit else "difference from base"
    )
    yield (
        f"Paired difference from base, 95 % interval over test samples; improvement is to the {better}",
        svg.intervals(
            items,
            f"{primary.name}, difference from base, {title(group)}",
            unit,
            lambda number: primary.style.signed(number / factor),
            zero=True,
        ),
    )


def _cost(group: Group) -> Iterator[tuple[str, str]]:
    primary = group.primary
    places = [
        (row.cost["samples_per_s"], row.value.value * primary.style.factor, row.method, row.verdict)
        for row in group.rows
        if primary and row.value and row.cost.get("samples_per_s", 0) > 0
    ]
    if primary and len(places) > 1:
        heading = f"Cost against quality: {primary.name} over test samples per second"
        yield heading, svg.points(places, f"{heading}, {title(group)}", "samples/s", primary.heading, log=(True, False))


def _layers(group: Group) -> Iterator[tuple[str, str]]:
    for row in group.rows:
        for seed, detail in row.details.items():
            scores = detail.get("layer_entropy")
            if not isinstance(scores, Mapping):
                continue
            items = [svg.Item(str(name), float(score)) for name, score in scores.items() if _is_number(score)]
            if items:
                caption = f"Layer selection: entropy of the losses under weight noise, seed {seed}"
                yield caption, svg.intervals(items, f"{caption}, {title(group)}", "entropy", quantity, bars=True)
                return


def _training(row: Row, where: str) -> Iterator[tuple[str, str]]:
    for seed, detail in row.details.items():
        series = list(_history(detail.get("history")))
        curves = detail.get("curves")
        for name, values in curves.items() if isinstance(curves, Mapping) else ():
            numbers = _numbers(values)
            if len(numbers) > 1:
                series.append((str(name), [float(place + 1) for place in range(len(numbers))], numbers))
        if series:
            caption = f"{row.method}: training, seed {seed}"
            yield caption, svg.lines(series, f"{caption}, {where}", "step")
            return


def _history(records: Any) -> Iterator[tuple[str, list[float], list[float]]]:
    """Training and validation loss by step; a validation loss may be missing now and then."""
    if not isinstance(records, list | tuple) or not all(isinstance(r, list | tuple) and len(r) == 3 for r in records):
        return
    for name, column in (("training loss", 1), ("validation loss", 2)):
        kept = [record for record in records if _is_number(record[0]) and _is_number(record[column])]
        if len(kept) > 1:
            yield name, [float(record[0]) for record in kept], [float(record[column]) for record in kept]


def _gain(row: Row, where: str) -> Iterator[tuple[str, str]]:
    for seed, detail in row.details.items():
        gains, losses = _numbers(detail.get("gain_candidates")), _numbers(detail.get("gain_losses"))
        if len(gains) == len(losses) > 1:
            caption = f"{row.method}: validation loss by gain, seed {seed}"
            ordered = sorted(zip(gains, losses, strict=True))
            curve = ("validation loss", [gain for gain, _ in ordered], [loss for _, loss in ordered])
            yield caption, svg.lines([curve], f"{caption}, {where}", "gain on the weight change")
            return


def _rho(row: Row, where: str) -> Iterator[tuple[str, str]]:
    for seed, detail in row.details.items():
        rho = detail.get("rho")
        if not isinstance(rho, Mapping):
            continue
        true, predicted = _numbers(rho.get("true")), _numbers(rho.get("predicted"))
        if len(true) != len(predicted) or not true:
            continue
        step = max(1, len(true) // MANY)
        pairs = [(x, y, "", "") for x, y in zip(true[::step], predicted[::step], strict=True)]
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
