"""Builds the comparison table of a run from its cells and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ocd_bench.report import remarks
from ocd_bench.report.average import averages, corruption_averages
from ocd_bench.report.calibration import of_cells
from ocd_bench.report.columns import columns_of, field_names
from ocd_bench.report.numbers import quantity, seeds_text, style_for
from ocd_bench.report.table import BASE, Group, Row, Table, TableMetric, verdict
from ocd_bench.results import Key, Run, is_oracle, parts_of, primary_of
from ocd_bench.stats import Estimate, Paired, mean_sd

SPREAD = "±: SD over seeds."
LEGEND = (
    "Δ {0}: mean over seeds of the difference from {0} on the same test samples, with its 95 % interval "
    "over new test samples, for these trained models (not adjusted for the number of rows)."
)
LEGEND_WIDE = "seeds and samples: 95 % interval of that difference over new seeds and new test samples."
Hook = Callable[..., Any]
"""``ocd_bench_report_columns`` or ``ocd_bench_report_sections``: called by keyword, gives one mapping, or a list of mappings or
None."""


def build_table(run: Run, columns: Hook | None = None, sections: Hook | None = None) -> Table:
    """The comparison table of ``run``.

    Args:
        columns, sections: the plugins' hooks for further columns, and for further sections of the HTML report.

    Raises:
        UsageError: if a score archive is damaged.
    """
    keys: dict[tuple[str, str], dict[str, list[Key]]] = {}
    for key in run.cells:
        keys.setdefault((key.task, key.dataset), {}).setdefault(key.method, []).append(key)
    problems: list[str] = []
    groups = [_group(run, *name, rows, columns, sections, problems) for name, rows in keys.items()]
    for found in (corruption_averages(run), averages(run)):
        for task, means in found.items():
            last = max(place for place, group in enumerate(groups) if group.task == task)
            groups[last + 1 : last + 1] = means
    fields = field_names([row for group in groups for row in group.rows])
    notes = [SPREAD] if any(len(row.seeds) > 1 for group in groups for row in group.rows) else []
    notes += [LEGEND.format(run.against)] if any(group.has_delta for group in groups) else []
    if any(row.delta and row.delta.wide for group in groups for row in group.rows):
        notes.append(LEGEND_WIDE)
    if any(row.oracle and row.status == "ok" for group in groups for row in group.rows):
        notes.append("oracle rows are fitted to the test labels: an upper bound, not a method.")
    notes += remarks.of_missing(run)
    return Table(tuple(groups), fields, run.info, (*notes, *dict.fromkeys(problems)))


def _group(
    run: Run,
    task: str,
    dataset: str,
    methods: Mapping[str, Sequence[Key]],
    columns: Hook | None,
    sections: Hook | None,
    problems: list[str],
) -> Group:
    ok = {name: [key for key in keys if run.cells[key]["status"] == "ok"] for name, keys in methods.items()}
    metrics = _metrics(run, [key for keys in ok.values() for key in keys])
    primary = next((metric for metric in metrics if metric.primary), None)
    paired = _paired(run, ok, primary.name) if primary else None
    rows = tuple(
        _row(run, name, keys, ok[name], ok.get(run.against, []), primary, paired, columns, problems)
        for name, keys in methods.items()
    )
    sizes = {run.cells[key]["n_test"] for keys in ok.values() for key in keys}
    keys = [key for found in ok.values() for key in found]
    notes = _notes(run, task, dataset, methods, ok, sizes)
    if paired is not None and any(key.seed not in paired.seeds(key.method) for key in keys):
        notes += ("rows without per-sample scores have no interval",)
    notes += remarks.of_intervals(run, keys, rows) + remarks.of_gains(rows)
    cells = [run.cells[key] for keys in methods.values() for key in keys]
    added = _from_plugins(sections, "sections", problems, task=task, dataset=dataset, cells=cells)
    seeds = sorted(seed for name, data, seed in run.figures if (name, data) == (task, dataset))
    media = tuple(run.figures[task, dataset, seeds[0]]) if seeds else ()
    seed = seeds[0] if seeds else None
    return Group(
        task, dataset, metrics, rows, columns_of(rows, metrics), notes, max(sizes, default=0), media, seed, tuple(added.items())
    )


def _metrics(run: Run, keys: Sequence[Key]) -> tuple[TableMetric, ...]:
    """Every metric of the group, the primary one first."""
    found: dict[str, Mapping[str, Any]] = {}
    values: dict[str, list[float]] = {}
    primary = primary_of(run.cells[keys[0]]) if keys else ""
    for key in keys:
        for name, metric in run.cells[key]["metrics"].items():
            found.setdefault(name, metric)
            values.setdefault(name, []).append(metric["value"])
    return tuple(
        TableMetric(name, metric["unit"], metric["higher_is_better"], name == primary, style_for(metric["unit"], values[name]))
        for name, metric in sorted(found.items(), key=lambda item: item[0] != primary)
    )


def _paired(run: Run, ok: Mapping[str, Sequence[Key]], metric: str) -> Paired:
    """All available per-sample scores."""
    scores, groups, reduce = {}, {}, "mean"
    for name, keys in ok.items():
        for key in keys:
            array = run.scores(key, metric)
            if array is not None:
                scores[name, key.seed], groups[key.seed] = array, run.groups(key)
                reduce = run.cells[key]["metrics"][metric].get("reduce", "mean")
    return Paired(scores, reduce, groups)


def _row(
    run: Run,
    method: str,
    keys: Sequence[Key],
    ok: Sequence[Key],
    reference: Sequence[Key],
    primary: TableMetric | None,
    paired: Paired | None,
    columns: Hook | None,
    problems: list[str],
) -> Row:
    cells = [run.cells[key] for key in keys]
    extra = _from_plugins(columns, "columns", problems, cells=cells)
    if not ok or primary is None or paired is None:
        first = next((cell for cell in cells if cell["status"] == "failed"), cells[0])
        reason = str(first.get("reason") or "no reason given")
        return Row(method, first["status"], reason, (), extra=extra, oracle=is_oracle(run.info, method), against=run.against)
    good = [run.cells[key] for key in ok]
    names = dict.fromkeys(name for cell in good for name in cell["metrics"])
    by_seed = {name: tuple(c["metrics"][name]["value"] for c in good if name in c["metrics"]) for name in names}
    spent: dict[str, list[float]] = {}
    for cell in good:
        for name, cost in cell["cost"].items():
            if isinstance(cost, int | float):
                spent.setdefault(name, []).append(cost)
    delta = None if method == run.against else _delta(run, ok, reference, method, primary.name, paired)
    oracle = is_oracle(run.info, method)
    return Row(
        method,
        "ok",
        "",
        tuple(key.seed for key in ok),
        metrics={name: mean_sd(values) for name, values in by_seed.items()},
        by_seed=by_seed,
        value=paired.value(method) or Estimate(mean_sd(by_seed[primary.name])[0]),
        delta=delta,
        verdict="" if oracle else verdict(delta, primary.higher_is_better),
        cost={name: sum(values) / len(values) for name, values in spent.items()},
        extra=extra,
        oracle=oracle,
        details={key.seed: run.cells[key].get("detail") or {} for key in ok},
        reliability=of_cells(run, ok),
        chosen=_chosen(good),
        against=run.against,
    )


def _chosen(cells: Sequence[Mapping[str, Any]]) -> str:
    """``validation; set by user: ocd.steps``."""
    ways = dict.fromkeys(str(cell["chosen"]) for cell in cells if cell.get("chosen"))
    own = dict.fromkeys(str(key) for cell in cells for key in cell.get("set_by_user") or ())
    return "; ".join(filter(None, [", ".join(ways), f"set by user: {', '.join(own)}" if own else ""]))


def _delta(run: Run, ok: Sequence[Key], reference: Sequence[Key], method: str, metric: str, paired: Paired) -> Estimate | None:
    """Difference from the reference, by per-sample scores; without an interval by the cells' values if scores are missing."""
    theirs = {key.seed: run.cells[key]["metrics"][metric]["value"] for key in reference if metric in run.cells[key]["metrics"]}
    mine = {key.seed: run.cells[key]["metrics"][metric]["value"] for key in ok if metric in run.cells[key]["metrics"]}
    common = [seed for seed in mine if seed in theirs]
    if not common:
        return None
    scored = set(paired.seeds(method)) & set(paired.seeds(run.against))
    if scored == set(common):
        return paired.difference(method, run.against)
    return Estimate(sum(mine[seed] - theirs[seed] for seed in common) / len(common))


def _from_plugins(hook: Hook | None, what: str, problems: list[str], **arguments: Any) -> dict[str, str]:
    """The results of all plugins as one mapping from heading to text."""
    if hook is None:
        return {}
    try:
        answer = hook(**arguments)
        answers = [answer] if isinstance(answer, Mapping) else answer or []
        return {str(heading): str(text) for part in answers for heading, text in (part or {}).items()}
    except Exception as error:  # an error in a plugin's addition must not prevent the table
        problems.append(f"a plugin's {what} are left out: {type(error).__name__}: {error}")
        return {}


def _notes(
    run: Run,
    task: str,
    dataset: str,
    methods: Mapping[str, Sequence[Key]],
    ok: Mapping[str, Sequence[Key]],
    sizes: set[int],
) -> tuple[str, ...]:
    facts = []
    seeds = sorted({key.seed for keys in ok.values() for key in keys})
    if seeds:
        facts.append(seeds_text(seeds))
    if sizes:
        facts.append(" or ".join(f"{size:,}" for size in sorted(sizes)) + " test samples" + _origins(run, ok))
    facts += _layers(run, ok)
    trained = [run.cells[key]["cost"].get("base_fit_s") for key in ok.get(BASE, [])]
    if known := [seconds for seconds in trained if isinstance(seconds, int | float) and seconds > 0]:
        facts.append(f"base trained in {quantity(sum(known) / len(known))} s")
    notes = ["; ".join(facts)] if facts else []
    names = run.info.get("notes", {})
    note = names.get(f"{task}-{dataset}") or names.get(f"{task}-{parts_of(dataset)[0]}")
    if note:
        notes.append(str(note))
    if any(run.cells[key].get("in_copies") for keys in methods.values() for key in keys):
        notes.append("training's copies (Task.augment) contain this kind of corruption")
    notes += remarks.of_tuning(run, task, [dataset])
    if run.against not in methods and ok:
        notes.append(f"no {run.against} row: no differences")
    for name, keys in methods.items():
        missing = [key for key in keys if key not in ok[name]]
        if ok[name] and missing:
            cell = run.cells[missing[0]]
            which = seeds_text(key.seed for key in missing)
            notes.append(f"{name}: {which} {cell['status']}: {cell.get('reason')}; numbers over the other seeds")
        elif ok[name] and {key.seed for key in keys} != set(seeds):
            notes.append(f"{name}: {seeds_text(key.seed for key in keys)} only")
    return tuple(notes)


def _origins(run: Run, ok: Mapping[str, Sequence[Key]]) -> str:
    """`` of 10 groups``; empty where every test sample is a group of its own, or the run states no groups."""
    counts = {
        (run.cells[key]["groups"], run.cells[key]["n_test"])
        for keys in ok.values()
        for key in keys
        if run.cells[key].get("groups")
    }
    fewer = sorted({count for count, size in counts if count < size})
    return f" of {' or '.join(f'{count:,}' for count in fewer)} groups" if fewer else ""


def _layers(run: Run, ok: Mapping[str, Sequence[Key]]) -> list[str]:
    layers: dict[str, set[int]] = {}
    for keys in ok.values():
        for key in keys:
            if run.cells[key].get("layer"):
                layers.setdefault(run.cells[key]["layer"], set()).add(key.seed)
    if len(layers) < 2:
        chosen = [f"layer {name}" for name in layers]
    else:
        chosen = ["layer " + ", ".join(f"{name} ({seeds_text(seeds)})" for name, seeds in layers.items())]
    return chosen + _several_layers(run, ok)


def _several_layers(run: Run, ok: Mapping[str, Sequence[Key]]) -> list[str]:
    """``layers fc1, fc2 (ocd)`` or ``2 batch norm layers (norm-rule)`` for methods that change several layers at once, and
    ``layer fc2 (ocd-layer2)`` for one that changes another layer than the others."""
    methods: dict[str, list[str]] = {}
    for method, keys in ok.items():
        cell = run.cells[keys[0]] if keys else {}
        detail = cell.get("detail") or {}
        layers, own = detail.get("layers"), detail.get("layer")
        if isinstance(layers, int):
            methods.setdefault(f"{layers} batch norm layer{'s' * (layers != 1)}", []).append(method)
        elif isinstance(layers, list):
            methods.setdefault("layers " + ", ".join(map(str, layers)), []).append(method)
        elif isinstance(own, str) and own != cell.get("layer"):
            methods.setdefault(f"layer {own}", []).append(method)
    return [f"{text} ({', '.join(names)})" for text, names in methods.items()]
