"""Lines below a group on what its intervals leave out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ocd_bench.merging import missing
from ocd_bench.report.numbers import seeds_text
from ocd_bench.report.table import Row
from ocd_bench.results import Key, Run, parts_of
from ocd_bench.stats import SEEDS


def of_intervals(run: Run, keys: Iterable[Key], rows: Sequence[Row]) -> tuple[str, ...]:
    """What the intervals of differences do not cover, and why there are none, or none in bold.

    Args:
        keys: the cells that have numbers.
    """
    differences = {row.method: row.delta for row in rows if row.delta is not None and not row.no_difference}
    notes = []
    if any(found.low is not None for found in differences.values()) and not all(run.cells[key].get("groups") for key in keys):
        notes.append("no groups of test samples are stated: intervals take the samples for independent")
    remarks: dict[str, list[str]] = {}
    for method, found in differences.items():
        if found.low is not None and found.wide is None:
            remark = f"fewer than {SEEDS} seeds: the interval covers new test samples only, and nothing is bold"
            remarks.setdefault(remark, []).append(method)
        if found.doubt:
            effect = "the interval may cover less than 95 %, so nothing is bold" if found.low is not None else "no intervals"
            remarks.setdefault(f"{found.doubt}: {effect}", []).append(method)
    notes += [
        remark if len(names) == len(differences) else f"{', '.join(names)}: {remark}" for remark, names in remarks.items()
    ]
    return tuple(notes)


def of_gains(rows: Sequence[Row]) -> tuple[str, ...]:
    """Which rows are the base model, because no other gain was clearly better on validation samples."""
    equal = [row.method for row in rows if row.equals_base]
    notes = []
    if equal:
        notes.append(f"gain 0, equal to base: no other gain was clearly better on validation samples ({', '.join(equal)})")
    some = [row for row in rows if row.unchanged and not row.equals_base]
    return (*notes, *(f"{row.method}: gain 0, equal to base, with {seeds_text(row.unchanged)}" for row in some))


def of_tuning(run: Run, task: str, datasets: Iterable[str]) -> tuple[str, ...]:
    """Whether default settings were revised after scores on a test set had been seen."""
    seen = set(run.info.get("tasks", {}).get(task, {}).get("seen_in_tuning", ()))
    if any(parts_of(dataset)[0] in seen for dataset in datasets):
        return ("test set seen in tuning: default settings were revised after scores on it had been seen",)
    return ()


def of_missing(run: Run) -> tuple[str, ...]:
    """How many of the run's combinations of dataset, method and seed have no cell, and the first of them: it was broken off, it
    was continued with other rows, or a part of its folder has been lost. Means are over what is there."""
    _, absent = missing(run.parts or [run])
    if not absent or not run.cells:
        return ()
    some = ", ".join(key.stem for key in absent[:3]) + (", ..." if len(absent) > 3 else "")
    return (f"{len(absent):,} of {len({*absent, *run.cells}):,} combinations of dataset, method and seed have no cell: {some}",)
