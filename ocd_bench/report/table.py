"""The model of a table: a run's :class:`Table` has groups, a group has rows and columns, a column has one text per row.

The renderers in this package loop over columns, and treat none of them specially. The columns of a report are declared in
:mod:`ocd_bench.report.columns`, those of a comparison in :mod:`ocd_bench.comparison.output`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ocd_bench.report.numbers import Style, quantity, seeds_text
from ocd_bench.results import BASE
from ocd_bench.shapes import STATUSES
from ocd_bench.stats import Estimate

if TYPE_CHECKING:
    from pathlib import Path

    from ocd_bench.report.calibration import Reliability

DASH = "–"
"""The text of a row that has no value in a column."""
BOLD = "Bold differences: the interval over seeds and samples excludes zero."
"""A note for the formats that have bold."""
R = TypeVar("R")


class Kind(Enum):
    """What the entries of a column are."""

    LABEL = "label"
    """Words: a name, a verdict."""
    METRIC = "metric"
    """Means over seeds with their SD."""
    DIFFERENCE = "difference"
    """Differences between two methods or two runs, or their intervals."""
    TEST = "test"
    """The result of a statistical test."""
    COST = "cost"
    """Times, rates and sizes."""
    PLUGIN = "plugin"
    """The text of a plugin."""

    @property
    def numeric(self) -> bool:
        """Whether entries are numbers, aligned to the right."""
        return self not in (Kind.LABEL, Kind.PLUGIN)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        kind: what the entries are.
        heading: as printed.
        values: for each row what CSV and JSON write and HTML sorts by, unrounded; None where the row has none.
        texts: for each row the text that people read.
        name: the field's name in CSV, the key in JSON. Empty for a metric, which has lines of its own in CSV.
        marks: for each row ``better``, ``worse`` or empty. A marked entry is bold, or has a colour.
        rank: which columns a narrow terminal keeps: the lowest ranks first.
        compact: whether terminal, Markdown and LaTeX have it. HTML, CSV and JSON have every column.
    """

    kind: Kind
    heading: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]
    name: str = ""
    marks: tuple[str, ...] = ()
    rank: int = 0
    compact: bool = True

    @property
    def numeric(self) -> bool:
        """Whether it is aligned to the right."""
        return self.kind.numeric

    @property
    def empty(self) -> bool:
        """Whether no row has an entry."""
        return all(text == DASH for text in self.texts)

    def mark(self, place: int) -> str:
        """The mark of the row at ``place``; empty for none."""
        return self.marks[place] if self.marks else ""


def _no_mark(row: Any) -> str:
    return ""


def _text(value: Any) -> str:
    if value is None:
        return DASH
    return quantity(value) if isinstance(value, int | float) else str(value)


@dataclass(frozen=True)
class Field(Generic[R]):
    """How a column is made of rows of type ``R``: the one place to edit for a further column of the core.

    Attributes:
        value: from a row to its value, None for none; see :attr:`Column.values`.
        text: from a row to its text; default: the value, a number with three significant digits.
        mark: from a row to its mark; see :attr:`Column.marks`.
        kind, heading, name, rank, compact: see :class:`Column`.
    """

    name: str
    heading: str
    value: Callable[[R], Any]
    text: Callable[[R], str] | None = None
    kind: Kind = Kind.COST
    mark: Callable[[R], str] = _no_mark
    rank: int = 50
    compact: bool = True

    def column(self, rows: Sequence[R]) -> Column:
        """The column over ``rows``."""
        values = tuple(self.value(row) for row in rows)
        texts = tuple(map(self.text, rows)) if self.text else tuple(map(_text, values))
        marks = tuple(self.mark(row) for row in rows)
        return Column(self.kind, self.heading, values, texts, self.name, marks, self.rank, self.compact)


@dataclass(frozen=True)
class TableMetric:
    """One metric of a group of rows, and how its values are printed."""

    name: str
    unit: str
    higher_is_better: bool
    primary: bool
    style: Style

    @property
    def heading(self) -> str:
        """``accuracy [%] ↑``; the arrow is the direction of improvement."""
        arrow = "↑" if self.higher_is_better else "↓"
        return f"{self.name} [{self.style.unit}] {arrow}" if self.style.unit else f"{self.name} {arrow}"


@dataclass(frozen=True)
class Row:
    """One method in one group, over its seeds.

    Attributes:
        status: ``ok`` if the cell of any seed is; else that of the first cell.
        reason: why there are no numbers; empty if there are.
        seeds: the seeds whose cells are ok. All numbers are over these.
        metrics: metric name to (mean, SD); the SD of one seed is None.
        by_seed: metric name to one value per seed.
        value: the primary metric with its interval over test samples.
        delta: difference from ``against`` on the primary metric; None for that row itself, or if it is missing.
        verdict: ``better`` or ``worse`` where the interval of ``delta`` over seeds and samples excludes zero, else empty.
        cost: mean over seeds, by name; a name that no cell reports is absent.
        extra: plugins' columns, heading to text.
        oracle: whether it is fitted to the test labels: an upper bound, which has no verdict.
        details: the cells' ``detail`` by seed, for plots.
        chosen: how the hyper-parameters were chosen, and which the user set; empty for cells of earlier versions.
        against: the method that ``delta`` is the difference from.
        reliability: calibration over all seeds' test samples; None for a task without class probabilities.
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
    oracle: bool = False
    details: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    reliability: Reliability | None = None
    chosen: str = ""
    against: str = BASE

    @property
    def problem(self) -> str:
        """``n/a: why`` or ``failed: why`` in place of numbers; empty for a row that has some."""
        if self.status == "ok":
            return ""
        return f"{STATUSES[self.status]}: {self.reason}"

    @property
    def folded(self) -> bool:
        """Whether the method does not apply here. Such rows are one line per reason."""
        return self.status == "not-applicable"

    @property
    def gains(self) -> dict[int, float]:
        """The gain on the weight change that was chosen on validation samples, by seed, of a method that chooses one."""
        found = {seed: detail.get("gain") for seed, detail in self.details.items()}
        return {seed: gain for seed, gain in found.items() if isinstance(gain, int | float) and not isinstance(gain, bool)}

    @property
    def equals_base(self) -> bool:
        """Whether the chosen gain is 0 for every seed: the method then is the base model."""
        return bool(self.gains) and len(self.unchanged) == len(self.seeds)

    @property
    def no_difference(self) -> bool:
        """Whether there can be no difference: the row equals the base, and the base is what it is compared with."""
        return self.equals_base and self.against == BASE

    @property
    def unchanged(self) -> list[int]:
        """Seeds for which the chosen gain is 0, in every layer of a method that changes several."""
        return [seed for seed, gain in self.gains.items() if gain == 0 and not _earlier_gains(self.details[seed])]


def _earlier_gains(detail: Mapping[str, Any]) -> list[Any]:
    """The gains other than 0 of a method that changes several layers."""
    gains = detail.get("gains")
    return [gain for gain in gains if gain != 0] if isinstance(gains, list) else []


@dataclass(frozen=True)
class Group:
    """The rows of one (task, dataset).

    Attributes:
        columns: every column, the method's name first, also those that no row has an entry in.
        media: the task's own pictures, sounds and texts of the first seed that has any.
        media_seed: which seed that is.
        sections: plugins' sections of the HTML report, heading and HTML.
        mean: whether its numbers are means over other groups.
    """

    task: str
    dataset: str
    metrics: tuple[TableMetric, ...]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    n_test: int
    media: tuple[Path, ...] = ()
    media_seed: int | None = None
    sections: tuple[tuple[str, str], ...] = ()
    mean: bool = False

    @property
    def title(self) -> str:
        """``images, mnist``"""
        return f"{self.task}, {self.dataset}"

    @property
    def primary(self) -> TableMetric | None:
        """The metric that decides; None if no row has a number."""
        return next((metric for metric in self.metrics if metric.primary), None)

    @property
    def has_delta(self) -> bool:
        """Whether any row is compared with base."""
        return any(row.delta is not None for row in self.rows)

    @property
    def blocks(self) -> list[list[int]]:
        """The places of the rows to print, in two blocks at most: methods, then oracles. Rows that do not apply are in
        :attr:`folded`, unless no row has a number or has failed."""
        kept = [place for place, row in enumerate(self.rows) if not row.folded]
        blocks = [[place for place in kept if self.rows[place].oracle is oracle] for oracle in (False, True)]
        return [block for block in blocks if block]

    @property
    def folded(self) -> list[tuple[str, str]]:
        """``n/a`` and what follows it, one pair per reason: the methods, and why."""
        reasons: dict[str, list[str]] = {}
        for row in self.rows:
            if row.folded:
                reasons.setdefault(row.reason, []).append(row.method)
        return [(", ".join(methods), reason) for reason, methods in reasons.items()]

    def shown(self, compact: bool = True) -> list[Column]:
        """The columns in which a row has an entry, the method's name first.

        Args:
            compact: whether to return only the columns for narrow formats.
        """
        return [column for column in self.columns if not column.empty and (column.compact or not compact)]

    def shown_with_result(self, compact: bool = True) -> list[Column]:
        """As :meth:`shown`. If no row has a number, with a column ``result`` for the reasons."""
        columns = self.shown(compact)
        reasons = tuple(row.problem for row in self.rows)
        return columns if len(columns) > 1 else [*columns, Column(Kind.LABEL, "result", reasons, reasons)]


@dataclass(frozen=True)
class Table:
    """A run (or several shown as one) as a comparison table.

    Attributes:
        fields: names of the columns that have one value per row, whatever its metrics: costs and plugins' columns.
        info: content of ``run.json``.
        plain: whether CSV has the columns as they are, one line per row, and not a line per metric.
    """

    groups: tuple[Group, ...]
    fields: tuple[str, ...]
    info: Mapping[str, Any]
    notes: tuple[str, ...]
    plain: bool = False

    @property
    def notes_with_bold(self) -> tuple[str, ...]:
        """The notes of a format that has bold."""
        return (*self.notes, BOLD) if any(group.has_delta for group in self.groups) else self.notes

    @property
    def changed_settings(self) -> list[str]:
        """``ocd.steps=50`` for each setting that the user changed from the preset's; with the tasks behind it if others that
        have this setting kept the preset's value."""
        tasks: Mapping[str, Any] = self.info.get("tasks", {})
        if tasks and all("changed" in entry for entry in tasks.values()):
            found: dict[tuple[str, str], list[str]] = {}
            for name, entry in tasks.items():
                for key, value in entry["changed"].items():
                    found.setdefault((key, _setting(value)), []).append(name)
            return [_of_tasks(key, value, names, tasks) for (key, value), names in found.items()]
        overrides = (self.info.get("request") or {}).get("overrides") or {}
        return [f"{name}={_setting(value)}" for name, value in overrides.items()]

    @property
    def caption(self) -> str:
        """One line: version, preset, settings that differ from it, seeds, device."""
        environments = list(self.info.get("environments", {}).values()) or [self.info.get("environment", {})]
        machines = {(environment.get("device"), environment.get("cpu")) for environment in environments}
        device, cpu = machines.pop() if len(machines) == 1 else ("several machines", None)
        if device == "cpu" and cpu:
            device = f"cpu ({cpu})"
        parts = [f"OCD-Bench {self.info.get('ocd_bench', '')}".strip()]
        if self.info.get("preset"):
            parts.append(f"preset {self.info['preset']}")
        parts += self.changed_settings
        if self.info.get("seeds"):
            parts.append(seeds_text(self.info["seeds"]))
        if device:
            parts.append(str(device))
        return ", ".join(parts)


def _of_tasks(key: str, value: str, names: Sequence[str], tasks: Mapping[str, Any]) -> str:
    everywhere = all(name in names for name, entry in tasks.items() if key.partition(".")[0] in entry.get("config", {}))
    return f"{key}={value}" if everywhere else f"{key}={value} ({', '.join(names)})"


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_setting, value)) if isinstance(value, list | tuple) else str(value)


def verdict(delta: Estimate | None, higher_is_better: bool) -> str:
    """``better`` or ``worse`` where the interval of a difference over seeds and samples excludes zero, else empty."""
    sign = delta.sign if delta else 0
    return {0: "", 1: "better", -1: "worse"}[sign if higher_is_better else -sign]
