"""From two runs to verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ocd_bench.comparison.evidence import OTHER_SEEDS, REFIT_LEVEL, SAME_SEEDS, Evidence, steady, weigh
from ocd_bench.comparison.pairing import Pair, pair_rows
from ocd_bench.comparison.states import cost_ratio, lost_seeds, state, summary
from ocd_bench.comparison.thresholds import Thresholds, large_loss
from ocd_bench.comparison.verdicts import Comparison, RowResult
from ocd_bench.errors import UsageError
from ocd_bench.results import Run, primary_of
from ocd_bench.stats import holm

MOST_NAMED = 6


def compare_runs(
    baseline: Run,
    candidate: Run,
    thresholds: Thresholds | None = None,
    metrics: str = "primary",
    across_settings: bool = False,
) -> Comparison:
    """Compare every row of two runs.

    A row is a *regression* if its loss is larger than the smallest loss that matters, and significant after Holm's adjustment
    over all rows that could be significant. On the same base models, it must also be larger than what refitting explains.

    Args:
        metrics: ``primary`` or ``all``.
        across_settings: whether rows with different settings are compared; the settings are named in a note.

    Raises:
        UsageError: if a score archive is damaged.
    """
    if metrics not in ("primary", "all"):
        raise UsageError(f"--metrics {metrics!r}: expected primary or all")
    thresholds = thresholds or Thresholds()
    pairs = pair_rows(baseline, candidate, across_settings)
    rows = [row for pair in pairs for row in _rows(pair, baseline, candidate, thresholds, metrics)]
    rows = _judged(rows, thresholds.alpha)
    notes = [*_settings_notes(pairs), *_base_notes(rows)]
    notes += [f"thresholds: {pattern!r} matches no row" for pattern in thresholds.unused(row.path for row in rows)]
    return Comparison(baseline.name, candidate.name, thresholds.alpha, tuple(rows), tuple(notes))


def _rows(pair: Pair, baseline: Run, candidate: Run, thresholds: Thresholds, metrics: str) -> list[RowResult]:
    known = state(pair, baseline, candidate)
    if known is not None:
        return [known]
    cells = [run.cells[key] for run, side in ((baseline, pair.baseline), (candidate, pair.candidate)) for key in side.ok]
    names = [primary_of(cells[0])]
    if metrics == "all":
        names += [name for name in cells[0]["metrics"] if name not in names and all(name in cell["metrics"] for cell in cells)]
    return [_row(pair, baseline, candidate, thresholds, name) for name in names]


def _row(pair: Pair, baseline: Run, candidate: Run, thresholds: Thresholds, metric: str) -> RowResult:
    """A row with numbers in both runs, before any verdict but ``broken`` and ``ignored``."""
    info = baseline.cells[pair.baseline.ok[0]]["metrics"][metric]
    row = RowResult(pair.name, metric, info["unit"], info["higher_is_better"], "cannot tell")
    evidence = weigh(pair, baseline, candidate, metric)
    old = summary(baseline, pair.baseline, evidence.seeds[0], metric)
    effect = thresholds.effect(row.path, row.unit)
    lost, only_absent = lost_seeds(pair, candidate)
    notes = [*([evidence.reason] if evidence.reason else []), *lost]
    verdict = "broken" if lost else row.verdict
    if effect.ignored:
        verdict, notes = "ignored", [*notes, "ignored by the thresholds"]
    return replace(
        row,
        verdict=verdict,
        baseline=old,
        candidate=summary(candidate, pair.candidate, evidence.seeds[1], metric),
        evidence=evidence,
        minimal_effect=None if effect.ignored else effect.of(old.mean),
        cost_ratio=cost_ratio(pair, baseline, candidate),
        note="; ".join(notes),
        only_absent=only_absent,
    )


def _judged(rows: list[RowResult], alpha: float) -> list[RowResult]:
    """The rows with p-values adjusted over the table, and verdicts."""
    weighed = [place for place, row in enumerate(rows) if row.evidence]
    for place, evidence in zip(weighed, steady([_evidence(rows[place]) for place in weighed]), strict=True):
        rows[place] = replace(rows[place], evidence=evidence)
    tested = [place for place in weighed if _evidence(rows[place]).p is not None and rows[place].minimal_effect is not None]
    family = _family([_evidence(rows[place]).least for place in tested], alpha)
    adjusted = _adjusted(rows, [place for place, member in zip(tested, family, strict=True) if member], "p")
    refits = _adjusted(rows, [place for place in adjusted if _evidence(rows[place]).p_refit is not None], "p_refit")
    levels = alpha / max(1, len(adjusted)), REFIT_LEVEL / max(1, len(refits))
    for place in tested:
        p, refit = adjusted.get(place, 1.0), refits.get(place, 0.0)
        seen = _evidence(rows[place]).seen_from(*levels)
        row = replace(rows[place], p_holm=p, seen_from=seen)
        verdict = _verdict(row, p < alpha and refit < REFIT_LEVEL)
        keep = row.verdict == "broken" and verdict != "regression"
        rows[place] = replace(row, verdict="broken" if keep else verdict)
    return rows


def _evidence(row: RowResult) -> Evidence:
    assert row.evidence is not None
    return row.evidence


def _family(least: Sequence[float], alpha: float) -> list[bool]:
    """Which rows could be significant at all: Tarone (*Biometrics* 46, 1990).

    A row with three changed answers has no p below 1/8, whatever they are. It cannot be a false alarm, so the others need not
    be adjusted for it. How small a p can be depends on how many answers changed, not on their direction.
    """
    count = next((k for k in range(1, len(least) + 1) if sum(one <= alpha / k for one in least) <= k), 1)
    return [one <= alpha / count for one in least]


def _adjusted(rows: Sequence[RowResult], places: Sequence[int], which: str) -> dict[int, float]:
    return dict(zip(places, holm([getattr(rows[place].evidence, which) for place in places]), strict=True))


def _verdict(row: RowResult, significant: bool) -> str:
    assert row.minimal_effect is not None
    assert row.baseline is not None
    if _evidence(row).identical:
        return "identical"
    if significant and row.gain < -row.minimal_effect:
        return "regression"
    if significant and row.gain > row.minimal_effect:
        return "improvement"
    too_coarse = row.seen_from is None or row.seen_from > large_loss(row.unit, row.baseline.mean)
    return "cannot tell" if too_coarse and not significant else "no change"


# -- notes --------------------------------------------------------------------------------------------------------------
def _settings_notes(pairs: Sequence[Pair]) -> list[str]:
    """One line per set of settings that differ and are compared across."""
    by_settings: dict[tuple[str, ...], dict[str, None]] = {}
    for pair in pairs:
        if pair.settings and not pair.problem:
            by_settings.setdefault(pair.settings, {})[pair.name.task] = None
    return [f"settings differ ({', '.join(tasks)}): {', '.join(settings)}" for settings, tasks in by_settings.items()]


def _base_notes(rows: Sequence[RowResult]) -> list[str]:
    """One line about rows whose base models differ, and one about rows of other seeds."""
    found: dict[str, dict[str, None]] = {SAME_SEEDS: {}, OTHER_SEEDS: {}}
    for row in rows:
        if row.evidence is not None and row.evidence.seeds[0] != row.evidence.seeds[1]:
            found[OTHER_SEEDS][f"{row.name.task} {row.name.dataset}"] = None
        elif row.evidence is not None and row.evidence.base_differs:
            found[SAME_SEEDS][f"{row.name.task} {row.name.dataset}"] = None
    notes = []
    for design, text in (
        (
            SAME_SEEDS,
            "base models differ: a change is that of base and method together, judged by its spread over seeds",
        ),
        (OTHER_SEEDS, "no common seeds: a change is judged by the spread over seeds of both runs"),
    ):
        names = list(found[design])
        if names:
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            notes.append(f"{', '.join(names[:MOST_NAMED])}{more}: {text}")
    return notes
