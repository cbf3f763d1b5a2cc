"""The comparison table as data: built from a stored run, rendered by the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ocd_bench.report.calibration import Reliability, of_cells
from ocd_bench.report.numbers import Style, seeds_text, style_for
from ocd_bench.results import Key, Run, primary_of
from ocd_bench.stats import MIN_SAMPLES, Estimate, Resampled, mean_sd

if TYPE_CHECKING:
    from pathlib import Path

BASE = "base"
COSTS = ("fit_s", "adapt_s", "samples_per_s", "peak_memory_mb", "parameters")
LEGEND = (
    "±: SD over seeds. Δ base: mean over seeds of the difference from base on the same test samples, "
    "with its 95 % bootstrap interval over test samples (not adjusted for the number of rows)."
)
BOLD = "Bold differences: the interval excludes zero."
"""For the formats that have bold."""
Hook = Callable[..., Any]
"""``ocd_bench_report_columns`` or ``ocd_bench_report_sections``: called by keyword, gives one mapping, or a list of mappings or
None."""


@dataclass(frozen=True)
class MetricColumn:
    """One metric of a group."""

    name: str
    unit: str
    higher_is_better: bool
    primary: bool
    style: Style

    @property
    def arrow(self) -> str:
        """The direction of improvement."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def heading(self) -> str:
        """``accuracy [%] ↑``"""
        return f"{self.name} [{self.style.unit}] {self.arrow}" if self.style.unit else f"{self.name} {self.arrow}"


@dataclass(frozen=True)
class Row:
    """One method in one group, over its seeds.

    Attributes:
        status: ``ok`` if any seed is; else that of the first cell.
        seeds: the seeds that count, those that are ok.
        metrics: metric name to (mean, SD or None) over these seeds.
        value: the primary metric with its interval over test samples.
        delta: difference from base on the primary metric; None for base itself, or without a base row.
        verdict: ``better`` or ``worse`` where the interval of ``delta`` excludes zero, else empty.
        cost: mean over seeds, by name; names no cell reports are absent.
        extra: plugins' columns.
        details: the cells' ``detail`` by seed, for plots.
        reliability: how sure the method is and how right, over all seeds' test samples, where the scores tell.
    """

    method: str
    status: str
    reason: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    by_seed: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    value: Estimate | None = None
    delta: Estimate | None = None
    verdict: str = ""
    cost: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    reliability: Reliability | None = None

    @property
    def problem(self) -> str:
        """``n/a: why`` or ``failed: why`` in place of numbers; empty for a row that has some."""
        if self.status == "ok":
            return ""
        return f"{'n/a' if self.status == 'not-applicable' else self.status}: {self.reason}"


@dataclass(frozen=True)
class Group:
    """The rows of one (task, dataset).

    Attributes:
        media: the task's own pictures, sounds and texts of the first seed that has any.
        media_seed: which seed that is.
        sections: plugins' sections of the HTML report, heading and HTML.
    """

    task: str
    dataset: str
    metrics: tuple[MetricColumn, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    n_test: int
    media: tuple[Path, ...] = ()
    media_seed: int | None = None
    sections: tuple[tuple[str, str], ...] = ()

    @property
    def primary(self) -> MetricColumn | None:
        """The metric that decides; None if no row has a number."""
        return next((metric for metric in self.metrics if metric.primary), None)

    @property
    def has_delta(self) -> bool:
        """Whether any row is compared with base."""
        return any(row.delta is not None for row in self.rows)


@dataclass(frozen=True)
class Table:
    """A run (or several shown as one) as a comparison table."""

    groups: tuple[Group, ...]
    extras: tuple[str, ...]
    info: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def caption(self) -> str:
        """One line: version, preset, seeds, device."""
        environments = list(self.info.get("environments", {}).values()) or [self.info.get("environment", {})]
        machines = {(environment.get("device"), environment.get("cpu")) for environment in environments}
        device, cpu = machines.pop() if len(machines) == 1 else ("several machines", None)
        if device == "cpu" and cpu:
            device = f"cpu ({cpu})"
        parts = [f"OCD-Bench {self.info.get('ocd_bench', '')}".strip()]
        if self.info.get("preset"):
            parts.append(f"preset {self.info['preset']}")
        if self.info.get("seeds"):
            parts.append(seeds_text(self.info["seeds"]))
        if device:
            parts.append(str(device))
        return ", ".join(parts)


def build_table(run: Run, columns: Hook | None = None, draws: int = 0, sections: Hook | None = None) -> Table:
    """The comparison table of ``run``.

    Args:
        columns, sections: the plugins' hooks for further columns, and for further sections of the HTML report.
        draws: bootstrap resamples; 0: :func:`ocd_bench.stats.draws_for` of the test set.

    Raises:
        UsageError: if a score archive is damaged.
    """
    from ocd_bench.report.average import averages, corruption_averages

    keys: dict[tuple[str, str], dict[str, list[Key]]] = {}
    for key in run.cells:
        keys.setdefault((key.task, key.dataset), {}).setdefault(key.method, []).append(key)
    problems: list[str] = []
    groups = [_group(run, *name, rows, columns, sections, problems, draws) for name, rows in keys.items()]
    for found in (corruption_averages(run, draws), averages(run, draws)):
        for task, means in found.items():
            last = max(place for place, group in enumerate(groups) if group.task == task)
            groups[last + 1 : last + 1] = means
    extras = tuple(dict.fromkeys(heading for group in groups for row in group.rows for heading in row.extra))
    notes = [LEGEND] if any(group.has_delta for group in groups) else []
    if any(row.method.startswith("oracle") and row.status == "ok" for group in groups for row in group.rows):
        notes.append("oracle rows are fitted to the test labels: an upper bound, not a method.")
    return Table(tuple(groups), extras, run.info, (*notes, *dict.fromkeys(problems)))


def _group(
    run: Run,
    task: str,
    dataset: str,
    methods: Mapping[str, Sequence[Key]],
    columns: Hook | None,
    sections: Hook | None,
    problems: list[str],
    draws: int,
) -> Group:
    ok = {name: [key for key in keys if run.cells[key]["status"] == "ok"] for name, keys in methods.items()}
    metrics = _metrics(run, [key for keys in ok.values() for key in keys])
    primary = next((metric for metric in metrics if metric.primary), None)
    resampled = _resample(run, ok, primary.name, draws) if primary else None
    rows = tuple(
        _row(run, name, keys, ok[name], ok.get(BASE, []), primary, resampled, columns, problems)
        for name, keys in methods.items()
    )
    sizes = {run.cells[key]["n_test"] for keys in ok.values() for key in keys}
    notes = _notes(run, task, dataset, methods, ok, sizes, resampled is not None and not resampled.complete)
    cells = [run.cells[key] for keys in methods.values() for key in keys]
    added = _from_plugins(sections, "sections", problems, task=task, dataset=dataset, cells=cells)
    seeds = sorted(seed for name, data, seed in run.figures if (name, data) == (task, dataset))
    media = tuple(run.figures[task, dataset, seeds[0]]) if seeds else ()
    seed = seeds[0] if seeds else None
    return Group(task, dataset, metrics, rows, notes, max(sizes, default=0), media, seed, tuple(added.items()))


def _metrics(run: Run, keys: Sequence[Key]) -> tuple[MetricColumn, ...]:
    """Every metric of the group, the primary one first."""
    found: dict[str, Mapping[str, Any]] = {}
    values: dict[str, list[float]] = {}
    primary = primary_of(run.cells[keys[0]]) if keys else ""
    for key in keys:
        for name, metric in run.cells[key]["metrics"].items():
            found.setdefault(name, metric)
            values.setdefault(name, []).append(metric["value"])
    return tuple(
        MetricColumn(name, metric["unit"], metric["higher_is_better"], name == primary, style_for(metric["unit"], values[name]))
        for name, metric in sorted(found.items(), key=lambda item: item[0] != primary)
    )


class _Resampled(Resampled):
    """Also knows whether every cell had scores."""

    complete = True


def _resample(run: Run, ok: Mapping[str, Sequence[Key]], metric: str, draws: int) -> _Resampled:
    scores, complete, reduce = {}, True, "mean"
    for name, keys in ok.items():
        for key in keys:
            array = run.scores(key, metric)
            if array is None:
                complete = False
                continue
            scores[name, key.seed] = array
            reduce = run.cells[key]["metrics"][metric].get("reduce", "mean")
    resampled = _Resampled(scores, reduce, draws)
    resampled.complete = complete
    return resampled


def _row(
    run: Run,
    method: str,
    keys: Sequence[Key],
    ok: Sequence[Key],
    base: Sequence[Key],
    primary: MetricColumn | None,
    resampled: Resampled | None,
    columns: Hook | None,
    problems: list[str],
) -> Row:
    cells = [run.cells[key] for key in keys]
    extra = _from_plugins(columns, "columns", problems, cells=cells)
    if not ok or primary is None or resampled is None:
        first = next((cell for cell in cells if cell["status"] == "failed"), cells[0])
        return Row(method, first["status"], str(first.get("reason") or "no reason given"), (), extra=extra)
    good = [run.cells[key] for key in ok]
    names = dict.fromkeys(name for cell in good for name in cell["metrics"])
    by_seed = {name: tuple(c["metrics"][name]["value"] for c in good if name in c["metrics"]) for name in names}
    costs = {name: [cell["cost"][name] for cell in good if cell["cost"].get(name) is not None] for name in COSTS}
    delta = None if method == BASE else _delta(run, ok, base, method, primary.name, resampled)
    return Row(
        method,
        "ok",
        "",
        tuple(key.seed for key in ok),
        metrics={name: mean_sd(values) for name, values in by_seed.items()},
        by_seed=by_seed,
        value=resampled.value(method) or Estimate(mean_sd(by_seed[primary.name])[0]),
        delta=delta,
        verdict=verdict(delta, primary.higher_is_better),
        cost={name: sum(values) / len(values) for name, values in costs.items() if values},
        extra=extra,
        details={key.seed: run.cells[key].get("detail") or {} for key in ok},
        reliability=of_cells(run, ok),
    )


def verdict(delta: Estimate | None, higher_is_better: bool) -> str:
    """``better`` or ``worse`` where the interval of a difference excludes zero, else empty."""
    sign = delta.sign if delta else 0
    return {0: "", 1: "better", -1: "worse"}[sign if higher_is_better else -sign]


def _delta(run: Run, ok: Sequence[Key], base: Sequence[Key], method: str, metric: str, resampled: Resampled) -> Estimate | None:
    """From the scores; where they are missing from the cells' values, without an interval."""
    theirs = {key.seed: run.cells[key]["metrics"][metric]["value"] for key in base if metric in run.cells[key]["metrics"]}
    mine = {key.seed: run.cells[key]["metrics"][metric]["value"] for key in ok if metric in run.cells[key]["metrics"]}
    common = [seed for seed in mine if seed in theirs]
    if not common:
        return None
    scored = set(resampled.seeds(method)) & set(resampled.seeds(BASE))
    if scored == set(common):
        return resampled.difference(method, BASE)
    return Estimate(sum(mine[seed] - theirs[seed] for seed in common) / len(common))


def _from_plugins(hook: Hook | None, what: str, problems: list[str], **arguments: Any) -> dict[str, str]:
    """Heading to text, of all plugins that answer."""
    if hook is None:
        return {}
    try:
        answer = hook(**arguments)
        answers = [answer] if isinstance(answer, Mapping) else answer or []
        return {str(heading): str(text) for part in answers for heading, text in (part or {}).items()}
    except Exception as error:  # a plugin's addition must not cost the table
        problems.append(f"a plugin's {what} are left out: {type(error).__name__}: {error}")
        return {}


def _notes(
    run: Run,
    task: str,
    dataset: str,
    methods: Mapping[str, Sequence[Key]],
    ok: Mapping[str, Sequence[Key]],
    sizes: set[int],
    unscored: bool,
) -> tuple[str, ...]:
    facts = []
    seeds = sorted({key.seed for keys in ok.values() for key in keys})
    if seeds:
        facts.append(seeds_text(seeds))
    if sizes:
        facts.append(" or ".join(f"{size:,}" for size in sorted(sizes)) + " test samples")
    facts += _layers(run, ok)
    notes = ["; ".join(facts)] if facts else []
    names = run.info.get("notes", {})
    note = names.get(f"{task}-{dataset}") or names.get(f"{task}-{dataset.partition('+')[0]}")
    if note:
        notes.append(str(note))
    if sizes and max(sizes) < MIN_SAMPLES:
        notes.append(f"fewer than {MIN_SAMPLES} test samples: no intervals")
    elif unscored:
        notes.append("rows without per-sample scores have no interval")
    if BASE not in methods and ok:
        notes.append("no base row: no differences")
    for name, keys in methods.items():
        missing = [key for key in keys if key not in ok[name]]
        if ok[name] and missing:
            cell = run.cells[missing[0]]
            which = seeds_text(key.seed for key in missing)
            notes.append(f"{name}: {which} {cell['status']}: {cell.get('reason')}; numbers over the other seeds")
        elif ok[name] and {key.seed for key in keys} != set(seeds):
            notes.append(f"{name}: {seeds_text(key.seed for key in keys)} only")
    return tuple(notes)


def _layers(run: Run, ok: Mapping[str, Sequence[Key]]) -> list[str]:
    layers: dict[str, set[int]] = {}
    for keys in ok.values():
        for key in keys:
            if run.cells[key].get("layer"):
                layers.setdefault(run.cells[key]["layer"], set()).add(key.seed)
    if len(layers) < 2:
        return [f"layer {name}" for name in layers]
    return ["layer " + ", ".join(f"{name} ({seeds_text(seeds)})" for name, seeds in layers.items())]
