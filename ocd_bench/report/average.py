"""Groups that are means over other groups: over the kinds of corruption of a dataset, and over the datasets of a task.

A task says by ``Task.average`` that the primary metrics of its datasets may be averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ocd_bench.report import remarks
from ocd_bench.report.columns import columns_of
from ocd_bench.report.numbers import seeds_text, style_for
from ocd_bench.report.table import Group, Row, TableMetric, verdict
from ocd_bench.results import Key, Run, is_oracle, parts_of, primary_of
from ocd_bench.stats import Estimate, Paired, estimate, mean_sd

NAME = "average"


def averages(run: Run) -> dict[str, tuple[Group, ...]]:
    """For each task and test variant (a corruption, or none) with two or more datasets: a group of means over the datasets."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for key in run.cells:
        if run.info.get("tasks", {}).get(key.task, {}).get("average"):
            _, variant, stream = parts_of(key.dataset)
            title = (f"+{variant}" if variant else "") + (f"@{stream}" if stream else "")
            found.setdefault(key.task, {}).setdefault(title, {})[key.dataset] = None
    return {
        task: tuple(_group(run, task, variant, list(names)) for variant, names in variants.items() if len(names) > 1)
        for task, variants in found.items()
    }


def corruption_averages(run: Run) -> dict[str, tuple[Group, ...]]:
    """Groups of means over kinds of corruption by task, for each dataset and stream: over each named set that the run was asked
    for; and, of the kinds in no such set, over all of one severity where there are two or more. Kinds that training's copies
    contain are apart.

    Every kind has the same test samples, so the interval is that of one test set, of the samples' means over kinds. There is no
    such group if scores are missing, or if a metric is not the mean of its scores.
    """
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    for key in run.cells:
        name, variant, stream = parts_of(key.dataset)
        if variant:
            found.setdefault((key.task, name, f"@{stream}" if stream else ""), {})[variant] = None
    groups: dict[str, tuple[Group, ...]] = {}
    for (task, name, stream), variants in found.items():
        for title, members in _families(run, task, list(variants)).items():
            for part, chosen, note in _apart(run, task, [(member, f"{name}+{member}{stream}") for member in members]):
                if group := _corruptions(run, task, f"{name}{stream}: {title}{part}", chosen):
                    groups[task] = (*groups.get(task, ()), replace(group, notes=(*group.notes, *note)))
    return groups


def _apart(run: Run, task: str, members: Sequence[tuple[str, str]]) -> list[tuple[str, list[str], tuple[str, ...]]]:
    """The members of a family, those that training's copies contain apart: what is added to the title, the datasets whose mean
    is due (two or more), and notes.

    Args:
        members: kind with severity, and name of the dataset in the cells.
    """
    marked = {key.dataset for key, cell in run.cells.items() if key.task == task and cell.get("in_copies")}
    if not any(dataset in marked for _, dataset in members):
        return [("", [dataset for _, dataset in members], ())]
    copied = [dataset for _, dataset in members if dataset in marked]
    others = [dataset for _, dataset in members if dataset not in marked]
    alone = [member for member, dataset in members if dataset in marked] if len(copied) == 1 else []
    note = tuple(f"left out, since training's copies contain it: {member}" for member in alone)
    parts = [
        (f": {len(copied)} kinds in training's copies", copied, ()),
        (f": {len(others)} other kinds", others, note),
    ]
    return [part for part in parts if len(part[1]) > 1]


def _families(run: Run, task: str, variants: Sequence[str]) -> dict[str, list[str]]:
    """Title to the variants (``fog-3``) whose mean is due: the complete sets of ``run.json``, then what is left by severity."""
    families: dict[str, list[str]] = {}
    left = dict.fromkeys(variants)
    for name, labels in run.info.get("tasks", {}).get(task, {}).get("corruption_sets", {}).items():
        members = [label.removeprefix("+") for label in labels]
        if len(members) > 1 and set(members) <= set(variants):
            set_name, _, severity = name.partition(":")
            families[f"{set_name}, {len(members)} corruptions, severity {severity}"] = members
            for member in members:
                left.pop(member, None)
    by_severity: dict[str, list[str]] = {}
    for variant in left:
        by_severity.setdefault(variant.rpartition("-")[2], []).append(variant)
    for severity, members in by_severity.items():
        if len(members) > 1:
            families[f"{len(members)} corruptions, severity {severity}"] = members
    return families


def _corruptions(run: Run, task: str, title: str, datasets: Sequence[str]) -> Group | None:
    methods = list(dict.fromkeys(key.method for key in run.cells if key.task == task and key.dataset in datasets))
    seeds = {method: _common_seeds(run, task, method, datasets) for method in methods}
    scores: dict[tuple[str, int], Any] = {}
    groups: dict[int, Any] = {}
    for method in methods:
        for seed in seeds[method]:
            keys = [Key(task, dataset, method, seed) for dataset in datasets]
            metrics = [run.cells[key]["metrics"][primary_of(run.cells[key])] for key in keys]
            arrays = [run.scores(key, primary_of(run.cells[key])) for key in keys]
            if any(metric.get("reduce", "mean") != "mean" for metric in metrics) or any(array is None for array in arrays):
                return None
            if len({len(array) for array in arrays if array is not None}) > 1:
                return None
            scores[method, seed] = np.stack([array for array in arrays if array is not None])
            groups[seed] = run.groups(keys[0])
            info, primary = metrics[0], primary_of(run.cells[keys[0]])
    if not scores:
        return None
    size = max(rows.shape[1] for rows in scores.values())
    parts = [Paired(scores, "mean", groups)]
    by_method = {m: tuple(float(scores[m, seed].mean()) for seed in seeds[m]) for m in methods}
    metric, rows = _means(run, info, seeds, by_method, parts, datasets)
    notes = _seeds_notes(f"mean over {len(datasets)} kinds of corruption of {primary}", seeds, size)
    notes += _remarks(run, task, datasets, seeds, rows)
    return Group(task, title, (metric,), rows, columns_of(rows, (metric,)), notes, size, mean=True)


def _group(run: Run, task: str, variant: str, datasets: Sequence[str]) -> Group:
    methods = list(dict.fromkeys(key.method for key in run.cells if key.task == task and key.dataset in datasets))
    seeds = {method: _common_seeds(run, task, method, datasets) for method in methods}
    kept = {dataset: [Key(task, dataset, m, s) for m in methods for s in seeds[m]] for dataset in datasets}
    sizes = {dataset: max((run.cells[key]["n_test"] for key in keys), default=0) for dataset, keys in kept.items()}
    parts = _paired(run, kept)
    by_method = {m: tuple(_mean(run, task, m, seed, datasets) for seed in seeds[m]) for m in methods}
    metric, rows = _means(run, run.info["tasks"][task]["average"], seeds, by_method, parts, datasets)
    title = f"average of {len(datasets)} datasets{variant}"
    size = sum(sizes.values())
    notes = _notes(run, kept, seeds, size) + _remarks(run, task, datasets, seeds, rows)
    return Group(task, title, (metric,), rows, columns_of(rows, (metric,)), notes, size, mean=True)


def _means(
    run: Run,
    info: Mapping[str, Any],
    seeds: Mapping[str, tuple[int, ...]],
    by_method: Mapping[str, tuple[float, ...]],
    parts: Sequence[Paired] | None,
    datasets: Sequence[str],
) -> tuple[TableMetric, tuple[Row, ...]]:
    """The column of the means, and a row for each method; ``info`` has the unit and the direction."""
    style = style_for(info["unit"], [value for values in by_method.values() for value in values])
    metric = TableMetric(NAME, info["unit"], info["higher_is_better"], True, style)
    reference = dict(zip(seeds.get(run.against, ()), by_method.get(run.against, ()), strict=True))
    rows = (_row(run, m, seeds[m], by_method[m], reference, parts, metric, datasets) for m in by_method)
    return metric, tuple(rows)


def _common_seeds(run: Run, task: str, method: str, datasets: Sequence[str]) -> tuple[int, ...]:
    """Seeds with a number on every dataset."""
    ok = [
        {key.seed for key, cell in run.cells.items() if key[:3] == (task, dataset, method) and cell["status"] == "ok"}
        for dataset in datasets
    ]
    return tuple(sorted(set.intersection(*ok)))


def _mean(run: Run, task: str, method: str, seed: int, datasets: Sequence[str]) -> float:
    cells = [run.cells[Key(task, dataset, method, seed)] for dataset in datasets]
    return sum(cell["metrics"][primary_of(cell)]["value"] for cell in cells) / len(cells)


def _paired(run: Run, kept: Mapping[str, Sequence[Key]]) -> list[Paired] | None:
    """The scores of each dataset; None where some are missing."""
    parts = []
    for keys in kept.values():
        scores, groups, reduce = {}, {}, "mean"
        for key in keys:
            cell = run.cells[key]
            array = run.scores(key, primary_of(cell))
            if array is None:
                return None
            scores[key.method, key.seed], groups[key.seed] = array, run.groups(key)
            reduce = cell["metrics"][primary_of(cell)].get("reduce", "mean")
        parts.append(Paired(scores, reduce, groups))
    return parts


def _estimate(parts: Sequence[Paired], method: str, reference: str | None = None) -> Estimate | None:
    """Mean over independent test sets of the value of ``method``, or of its difference; None if one lacks it."""
    found = [part.part(method, reference) for part in parts]
    known = [one for one in found if one is not None]
    return estimate(known) if len(known) == len(found) else None


def _row(
    run: Run,
    method: str,
    seeds: tuple[int, ...],
    values: tuple[float, ...],
    reference: Mapping[int, float],
    parts: Sequence[Paired] | None,
    metric: TableMetric,
    datasets: Sequence[str],
) -> Row:
    oracle, against = is_oracle(run.info, method), run.against
    if not seeds:
        named = ", ".join(datasets) if len(datasets) <= 6 else f"the {len(datasets)}"
        return Row(method, "not-applicable", f"no seed has a number on all of {named}", (), against=against)
    row = Row(method, "ok", "", seeds, {NAME: mean_sd(values)}, {NAME: values}, oracle=oracle, against=against)
    differences = [value - reference[seed] for seed, value in zip(seeds, values, strict=True) if seed in reference]
    value = (_estimate(parts, method) if parts else None) or Estimate(mean_sd(values)[0])
    if method == against or not differences:
        return replace(row, value=value)
    delta = _estimate(parts, method, against) if parts else None
    delta = delta or Estimate(sum(differences) / len(differences))
    found = "" if oracle else verdict(delta, metric.higher_is_better)
    return replace(row, value=value, delta=delta, verdict=found)


def _notes(run: Run, kept: Mapping[str, Sequence[Key]], seeds: Mapping[str, Sequence[int]], size: int) -> tuple[str, ...]:
    """A note on the metrics and the seeds of the mean."""
    primaries: dict[str, list[str]] = {}
    for dataset, keys in kept.items():
        cells: list[Any] = [run.cells[key] for key in keys]
        if cells:
            primaries.setdefault(primary_of(cells[0]), []).append(dataset)
    what = " and ".join(f"{name} ({', '.join(names)})" for name, names in primaries.items())
    return _seeds_notes(f"mean over datasets of {what}, within each seed", seeds, size)


def _seeds_notes(what: str, seeds: Mapping[str, Sequence[int]], size: int) -> tuple[str, ...]:
    every = sorted({seed for own in seeds.values() for seed in own})
    if not every:
        return ()
    facts = [f"{what}; {seeds_text(every)}; {size:,} test samples"]
    facts += [f"{m}: {seeds_text(own)} only" for m, own in seeds.items() if own and list(own) != every]
    return tuple(facts)


def _remarks(
    run: Run, task: str, datasets: Sequence[str], seeds: Mapping[str, Sequence[int]], rows: Sequence[Row]
) -> tuple[str, ...]:
    keys = [Key(task, dataset, method, seed) for dataset in datasets for method, own in seeds.items() for seed in own]
    return remarks.of_tuning(run, task, datasets) + remarks.of_intervals(run, keys, rows)
