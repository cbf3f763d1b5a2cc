"""A comparison for machines: JSON, and JUnit XML for CI."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any
from xml.etree import ElementTree

from ocd_bench.compare.judge import Comparison, RowResult
from ocd_bench.compare.output import cells_of, cost_remark

SCHEMA = 1


def as_dict(comparison: Comparison, exit_code: int) -> dict[str, Any]:
    """The shape documented in docs/comparing.md; plain values only."""
    return {
        "schema": SCHEMA,
        "baseline": comparison.baseline,
        "candidate": comparison.candidate,
        "alpha": comparison.alpha,
        "exit_code": exit_code,
        "counts": comparison.counts,
        "rows": [_row(row) for row in comparison.rows],
        "notes": list(comparison.notes),
    }


def _row(row: RowResult) -> dict[str, Any]:
    evidence = row.evidence
    return {
        "task": row.name.task,
        "dataset": row.name.dataset,
        "method": row.name.method,
        "metric": row.metric or None,
        "unit": row.unit,
        "higher_is_better": row.higher_is_better,
        "verdict": row.verdict,
        "baseline": dataclasses.asdict(row.baseline) if row.baseline else None,
        "candidate": dataclasses.asdict(row.candidate) if row.candidate else None,
        "change": evidence.change if evidence else None,
        "change_at_equal_base": evidence.adjusted if evidence else None,
        "interval": [evidence.low, evidence.high] if evidence and evidence.low is not None else None,
        "p": evidence.p if evidence else None,
        "p_holm": row.p_holm,
        "design": evidence.design if evidence else None,
        "minimal_effect": row.minimal_effect,
        "cost_ratio": dict(row.cost_ratio),
        "note": row.note or None,
    }


def render_json(comparison: Comparison, exit_code: int) -> str:
    """One object, indented."""
    return json.dumps(as_dict(comparison, exit_code), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_junit(comparison: Comparison, allow_missing: bool = False) -> str:
    """One test suite per (task, dataset), one test case per row: regressions and broken rows fail, vanished rows are errors,
    rows that could not be tested are skipped."""
    root = ElementTree.Element("testsuites", name="ocd-bench compare")
    suites: dict[tuple[str, str], list[RowResult]] = {}
    for row in comparison.rows:
        suites.setdefault((row.name.task, row.name.dataset), []).append(row)
    totals = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for (task, dataset), rows in suites.items():
        suite = ElementTree.SubElement(root, "testsuite", name=_clean(f"{task}.{dataset}"))
        counts = dict.fromkeys(totals, 0)
        for row in rows:
            case = ElementTree.SubElement(
                suite, "testcase", classname=_clean(f"{task}.{dataset}"), name=_clean(f"{row.name.method} {row.metric}".strip())
            )
            counts["tests"] += 1
            outcome = _outcome(row, allow_missing)
            if outcome:
                tag, plural = outcome
                counts[plural] += 1
                element = ElementTree.SubElement(case, tag, message=_clean(_message(row)))
                if tag != "skipped":
                    element.set("type", row.verdict)
            text = "; ".join(filter(None, (_message(row), row.note, cost_remark(row))))
            ElementTree.SubElement(case, "system-out").text = _clean(text)
        for name, count in counts.items():
            suite.set(name, str(count))
            totals[name] += count
    for name, count in totals.items():
        root.set(name, str(count))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _outcome(row: RowResult, allow_missing: bool) -> tuple[str, str] | None:
    if row.verdict in ("regression", "broken"):
        return "failure", "failures"
    if row.verdict == "vanished" and not allow_missing:
        return "error", "errors"
    if row.verdict in ("untested", "vanished", "new", "repaired", "no number"):
        return "skipped", "skipped"
    return None


def _message(row: RowResult) -> str:
    if row.evidence is None:
        return f"{row.verdict}: {row.note}"
    cells = cells_of(row)
    return f"{row.verdict}: {cells[1]} {cells[2]} to {cells[3]}, change {cells[4]} {cells[5]}, p {cells[6]}"


def _clean(text: str) -> str:
    """Without the control characters that XML 1.0 has no place for."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", " ", text)
