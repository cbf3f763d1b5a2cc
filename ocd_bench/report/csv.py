"""The table as CSV: one line per (task, dataset, method, metric), numbers unrounded and in their own unit."""

from __future__ import annotations

import csv
import io

from ocd_bench.report.table import COSTS, Table

FIELDS = (
    "task", "dataset", "method", "status", "reason", "metric", "unit", "higher_is_better", "primary", "seeds", "n_test",
    "mean", "sd", "low", "high", "delta", "delta_low", "delta_high", "verdict", *COSTS,
)  # fmt: skip


def render(table: Table) -> str:
    """A header and one line per metric of each row; a row without numbers has one line."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*FIELDS, *table.extras], lineterminator="\n")
    writer.writeheader()
    for group in table.groups:
        for row in group.rows:
            common: dict[str, object] = {
                "task": group.task,
                "dataset": group.dataset,
                "method": row.method,
                "status": row.status,
            }
            common |= {"reason": row.reason, "seeds": " ".join(str(seed) for seed in row.seeds), "n_test": group.n_test}
            common |= {**row.cost, **row.extra}
            if not row.metrics:
                writer.writerow(_safe(common))
            for metric in group.metrics:
                if metric.name not in row.metrics:
                    continue
                mean, sd = row.metrics[metric.name]
                line = common | {"metric": metric.name, "unit": metric.unit, "mean": mean, "sd": sd}
                line |= {"higher_is_better": str(metric.higher_is_better).lower(), "primary": str(metric.primary).lower()}
                if metric.primary:
                    line["verdict"] = row.verdict
                    if row.value:
                        line |= {"low": row.value.low, "high": row.value.high}
                    if row.delta:
                        line |= {"delta": row.delta.value, "delta_low": row.delta.low, "delta_high": row.delta.high}
                writer.writerow(_safe(line))
    return buffer.getvalue()


def _safe(line: dict[str, object]) -> dict[str, object]:
    """Text that a spreadsheet would run as a formula is quoted with an apostrophe, as OWASP advises."""
    return {
        name: f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
        for name, value in line.items()
    }
