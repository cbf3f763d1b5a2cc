"""What a comparison says: rows with verdicts, and an exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ocd_bench.comparison.evidence import Evidence
from ocd_bench.comparison.names import FAIL_ON, TESTED, VERDICTS
from ocd_bench.comparison.pairing import RowName
from ocd_bench.comparison.thresholds import large_loss
from ocd_bench.errors import UsageError


@dataclass(frozen=True)
class Summary:
    """One side of a row: mean and SD over the seeds that are compared."""

    mean: float
    sd: float | None
    seeds: tuple[int, ...]
    n_test: int


@dataclass(frozen=True)
class RowResult:
    """One row and metric of a comparison.

    Attributes:
        verdict: one of :data:`ocd_bench.comparison.names.VERDICTS`.
        p_holm: ``evidence.p`` adjusted over all rows that could be significant.
        seen_from: the smallest loss that would have been reported, in the metric's unit; None: no loss would.
        minimal_effect: the smallest loss that matters here, in the metric's unit; None: never gated.
        cost_ratio: candidate over baseline, by name: advisory, never gated; only for runs on the same machine.
        only_absent: whether the row is broken only because the candidate does not have all seeds.
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
    seen_from: float | None = None
    minimal_effect: float | None = None
    cost_ratio: tuple[tuple[str, float], ...] = ()
    note: str = ""
    only_absent: bool = False

    @property
    def path(self) -> str:
        """``task/dataset/method/metric``, what patterns of a thresholds file match."""
        return "/".join((*self.name, self.metric)) if self.metric else "/".join(self.name)

    @property
    def gain(self) -> float:
        """The change, positive if the candidate is better; 0 without numbers."""
        if self.evidence is None:
            return 0.0
        return self.evidence.change if self.higher_is_better else -self.evidence.change

    @property
    def lost_much(self) -> bool:
        """Whether the loss in these two runs is large, significant or not."""
        return self.baseline is not None and self.gain <= -large_loss(self.unit, self.baseline.mean) < 0


@dataclass(frozen=True)
class Comparison:
    """All rows, and their summary.

    Attributes:
        notes: lines that concern several rows: base models that differ, settings that differ.
    """

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

    def fails(self, row: RowResult, fail_on: str = "regression", allow_missing: bool = False) -> bool:
        """Whether a row gives exit code 1, under options as for :meth:`exit_code`."""
        if fail_on == "never":
            return False
        if row.verdict == "broken":
            return not (row.only_absent and allow_missing)
        if row.verdict == "cannot tell":
            return fail_on == "cannot-tell" or row.lost_much
        return row.verdict == "regression"

    def exit_code(self, fail_on: str = "regression", allow_missing: bool = False) -> int:
        """1: a row is worse, lost its number, or lost much and cannot be judged; 2: a row is missing or is another experiment;
        4: nothing could be told; else 0.

        Args:
            fail_on: ``regression``; ``cannot-tell``: every row that cannot be judged gives 1 too; ``never``: 1 and 2 become 0.
            allow_missing: rows and seeds of the baseline that the candidate lacks are fine.

        Raises:
            UsageError: for another ``fail_on``.
        """
        if fail_on not in FAIL_ON:
            raise UsageError(f"fail_on={fail_on!r}: expected one of {', '.join(FAIL_ON)}")
        if any(self.fails(row, fail_on, allow_missing) for row in self.rows):
            return 1
        counts = self.counts
        if fail_on != "never" and (counts.get("incomparable") or (counts.get("vanished") and not allow_missing)):
            return 2
        broken = counts.get("regression", 0) + counts.get("broken", 0)
        return 0 if broken or any(counts.get(verdict) for verdict in TESTED) else 4

    def table(self, format: str = "table", all_rows: bool = False) -> str:
        """The comparison as text.

        Args:
            format: ``table``, ``markdown``, ``html``, ``json`` or ``junit``, as for ``ocd-bench compare``.
            all_rows: whether a table shows rows that did not change too; the other formats always have them.

        Raises:
            UsageError: for an unknown format.
        """
        from ocd_bench.comparison import machine, output, page

        formats: dict[str, Callable[[], str]] = {
            "table": lambda: output.render_text(self, all_rows=all_rows),
            "markdown": lambda: page.render_markdown(self),
            "html": lambda: page.render_page(self),
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
        from ocd_bench.comparison.page import render_fragment

        return render_fragment(self)
