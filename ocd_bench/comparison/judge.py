"""From two runs to verdicts and an exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from ocd_bench.comparison.evidence import Evidence, steady, weigh
from ocd_bench.comparison.pairing import Pair, RowName, Side, pair_rows
from ocd_bench.comparison.thresholds import Thresholds
from ocd_bench.errors import UsageError
from ocd_bench.report.numbers import seeds_text
from ocd_bench.report.table import BASE
from ocd_bench.results import Run, primary_of
from ocd_bench.stats import holm, mean_sd

TESTED = ("regression", "improvement", "no change")
VERDICTS = ("regression", "broken", "vanished", "improvement", "repaired", "new", "untested", "no change", "no number")
"""Worst first. ``broken``: a number in the baseline, none in the candidate. ``no number``: none in either run."""
ADVISORY = {"fit_s": 0.5, "adapt_s": 0.5, "peak_memory_mb": 0.0}
"""Costs whose ratio is reported, with the smallest cost for which it is: shorter times cannot be compared."""
REFIT_LEVEL = 0.02
"""Level of each of two two-sided tests, family-wise: the probability that any row counts as changed although only the random
numbers of the fits changed."""


@dataclass(frozen=True)
class Summary:
    """One side of a row: mean and SD over its seeds."""

    mean: float
    sd: float | None
    seeds: tuple[int, ...]
    n_test: int


@dataclass(frozen=True)
class RowResult:
    """One row and metric of a comparison.

    Attributes:
        verdict: one of :data:`VERDICTS`.
        p_holm: ``evidence.p`` adjusted over all tested rows.
        minimal_effect: the smallest loss that matters here, in the metric's unit; None: never gated.
        cost_ratio: candidate over baseline, by name: advisory, never gated.
    """

    name: RowName
    metric: str = ""
    unit: str = ""
    higher_is_better: bool = True
    verdict: str = "no number"
    baseline: Summary | None = None
    candidate: Summary | None = None
    evidence: Evidence | None = None
    p_holm: float | None = None
    minimal_effect: float | None = None
    cost_ratio: tuple[tuple[str, float], ...] = ()
    note: str = ""

    @property
    def path(self) -> str:
        """``task/dataset/method/metric``, what patterns of a thresholds file match."""
        return "/".join((*self.name, self.metric)) if self.metric else "/".join(self.name)


@dataclass(frozen=True)
class Comparison:
    """All rows, and their summary."""

    baseline: str
    candidate: str
    alpha: float
    rows: tuple[RowResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Rows by verdict, worst first."""
        counted = Counter(row.verdict for row in self.rows)
        return {verdict: counted[verdict] for verdict in VERDICTS if counted[verdict]}

    def exit_code(self, fail_on: str = "regression", allow_missing: bool = False) -> int:
        """1: a row is worse or lost its number; 2: a row is missing; 4: nothing could be compared; else 0.

        Args:
            fail_on: ``never`` turns 1 and 2 into 0.
            allow_missing: rows of the baseline that the candidate lacks are fine.
        """
        counts = self.counts
        findings = counts.get("regression", 0) + counts.get("broken", 0)
        missing = 0 if allow_missing else counts.get("vanished", 0)
        if fail_on != "never" and (findings or missing):
            return 1 if findings else 2
        if not findings and not any(counts.get(verdict) for verdict in TESTED):
            return 4
        return 0

    def table(self, format: str = "table") -> str:
        """The comparison as text.

        Args:
            format: ``table``, ``markdown``, ``json`` or ``junit``, as for ``ocd-bench compare``.

        Raises:
            UsageError: for an unknown format.
        """
        from ocd_bench.comparison import machine, output

        formats: dict[str, Callable[[], str]] = {
            "table": lambda: output.render_text(self),
            "markdown": lambda: output.render_markdown(self),
            "json": lambda: machine.render_json(self, self.exit_code()),
            "junit": lambda: machine.render_junit(self),
        }
        if format not in formats:
            raise UsageError(f"unknown format {format!r}; formats: {', '.join(formats)}")
        return formats[format]()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items())
        return f"<ocd_bench.Comparison {self.baseline} → {self.candidate}: {counts or 'no rows'}>"

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        from ocd_bench.comparison.output import render_html

        return render_html(self)


def compare_runs(baseline: Run, candidate: Run, thresholds: Thresholds | None = None, metrics: str = "primary") -> Comparison:
    """Compare every row of two runs.

    A row is a *regression* if all of these hold:

    * its loss is larger than the smallest loss that matters, with and without the base model's own change subtracted;
    * the loss is significant after Holm's adjustment over all tested rows;
    * with the same seeds in both runs, the loss is larger than refitting explains (Holm's adjustment over the rows whose
      scores differ).

    Args:
        metrics: ``primary`` or ``all``.

    Raises:
        UsageError: if the runs are not the same experiment, or a score archive is damaged.
    """
    if metrics not in ("primary", "all"):
        raise UsageError(f"--metrics {metrics!r}: expected primary or all")
    thresholds = thresholds or Thresholds()
    pairs = pair_rows(baseline, candidate)
    by_name = {pair.name: pair for pair in pairs}
    rows: list[RowResult] = []
    for pair in pairs:
        base = by_name.get(RowName(pair.name.task, pair.name.dataset, BASE))
        rows += _rows(pair, base, baseline, candidate, thresholds, metrics)
    weighed = [place for place, row in enumerate(rows) if row.evidence]
    for place, evidence in zip(weighed, steady([rows[place].evidence for place in weighed]), strict=True):  # type: ignore[misc]
        rows[place] = replace(rows[place], evidence=evidence)
    tested = [place for place, row in enumerate(rows) if row.evidence and row.evidence.p is not None and not _ignored(row)]
    adjusted = holm([rows[place].evidence.p for place in tested])  # type: ignore[union-attr, misc]
    redrawn = [place for place in tested if rows[place].evidence.p_refit is not None]  # type: ignore[union-attr]
    refits = holm([rows[place].evidence.p_refit for place in redrawn])  # type: ignore[union-attr, misc]
    refitted = {place for place, p in zip(redrawn, refits, strict=True) if p >= REFIT_LEVEL}
    for place, p in zip(tested, adjusted, strict=True):
        verdict = "no change" if place in refitted else _verdict(rows[place], p, thresholds.alpha)
        keep = rows[place].verdict == "broken" and verdict != "regression"
        rows[place] = replace(rows[place], p_holm=p, verdict="broken" if keep else verdict)
    unused = thresholds.unused(row.path for row in rows)
    notes = [f"thresholds: {pattern!r} matches no row" for pattern in unused]
    return Comparison(baseline.name, candidate.name, thresholds.alpha, tuple(rows), tuple(notes))


def _ignored(row: RowResult) -> bool:
    return row.minimal_effect is None


def _verdict(row: RowResult, p: float, alpha: float) -> str:
    evidence = row.evidence
    assert evidence is not None
    assert row.minimal_effect is not None
    direction = 1 if row.higher_is_better else -1
    gains = direction * evidence.change, direction * evidence.adjusted
    if p >= alpha:
        return "no change"
    if max(gains) < -row.minimal_effect:
        return "regression"
    return "improvement" if min(gains) > row.minimal_effect else "no change"


def _rows(
    pair: Pair, base: Pair | None, baseline: Run, candidate: Run, thresholds: Thresholds, metrics: str
) -> list[RowResult]:
    state = _state(pair, baseline, candidate)
    if state is not None:
        return [state]
    cells = [run.cells[key] for run, side in ((baseline, pair.baseline), (candidate, pair.candidate)) for key in side.ok]
    names = [primary_of(cells[0])]
    if metrics == "all":
        names += [name for name in cells[0]["metrics"] if name not in names and all(name in cell["metrics"] for cell in cells)]
    return [_row(pair, base, baseline, candidate, thresholds, name) for name in names]


def _state(pair: Pair, baseline: Run, candidate: Run) -> RowResult | None:
    """The result of a row that has a number in one run at most; None for any other."""
    if pair.baseline.ok and pair.candidate.ok:
        return None
    empty = RowResult(pair.name)
    if pair.candidate.other and pair.baseline.ok:
        return replace(empty, verdict="broken", note=_why(candidate, pair.candidate))
    if pair.candidate.ok and pair.baseline.other:
        return replace(empty, verdict="repaired", note=f"in the baseline {_why(baseline, pair.baseline)}")
    if pair.baseline.ok:
        return replace(empty, verdict="vanished", note="not in the candidate")
    if pair.candidate.ok:
        return replace(empty, verdict="new", note="not in the baseline")
    side, run = (pair.candidate, candidate) if pair.candidate.other else (pair.baseline, baseline)
    return replace(empty, note=_why(run, side))


def _why(run: Run, side: Side) -> str:
    cell = run.cells[side.other[0]]
    return f"{cell['status']}: {cell.get('reason')}"


def _row(pair: Pair, base: Pair | None, baseline: Run, candidate: Run, thresholds: Thresholds, metric: str) -> RowResult:
    """A row with numbers in both runs; its verdict is ``untested`` until Holm has seen all rows."""
    info = baseline.cells[pair.baseline.ok[0]]["metrics"][metric]
    row = RowResult(pair.name, metric, info["unit"], info["higher_is_better"], "untested")
    old, new = _summary(baseline, pair.baseline, metric), _summary(candidate, pair.candidate, metric)
    effect = thresholds.effect(row.path, row.unit)
    evidence = weigh(pair, base, baseline, candidate, metric)
    notes = [evidence.reason] if evidence.reason else []
    lost = [key for key in pair.candidate.other if key.seed in pair.baseline.seeds]
    if lost:
        notes.append(f"{seeds_text(key.seed for key in lost)} {_why(candidate, pair.candidate)}")
    if effect.ignored:
        notes.append("ignored by the thresholds")
    verdict = "untested" if effect.ignored or not lost else "broken"
    return replace(
        row,
        verdict=verdict,
        baseline=old,
        candidate=new,
        evidence=evidence,
        minimal_effect=None if effect.ignored else effect.of(old.mean),
        cost_ratio=_cost_ratio(pair, baseline, candidate),
        note="; ".join(notes),
    )


def _summary(run: Run, side: Side, metric: str) -> Summary:
    mean, sd = mean_sd([run.cells[key]["metrics"][metric]["value"] for key in side.ok])
    return Summary(mean, sd, side.seeds, run.cells[side.ok[0]]["n_test"])


def _cost_ratio(pair: Pair, baseline: Run, candidate: Run) -> tuple[tuple[str, float], ...]:
    ratios = []
    for name, least in ADVISORY.items():
        old, new = (
            [run.cells[key]["cost"][name] for key in side.ok if run.cells[key]["cost"].get(name)]
            for run, side in ((baseline, pair.baseline), (candidate, pair.candidate))
        )
        if not old or not new:
            continue
        means = sum(old) / len(old), sum(new) / len(new)
        if max(means) >= least:
            ratios.append((name, means[1] / means[0]))
    return tuple(ratios)
