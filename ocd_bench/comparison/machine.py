"""A comparison as JSON, and as JUnit XML for CI."""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ocd_bench.comparison.names import TESTED
from ocd_bench.comparison.output import columns_of, cost_remark, texts_of
from ocd_bench.report import markdown

if TYPE_CHECKING:
    from ocd_bench.comparison.verdicts import Comparison, RowResult

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
        "rows": _rows(comparison),
        "notes": list(comparison.notes),
    }


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The row's name and its verdict, then every other column of the comparison."""
    columns = columns_of(comparison.rows, compact=False)
    rows = []
    for place, row in enumerate(comparison.rows):
        head = {
            "task": row.name.task,
            "dataset": row.name.dataset,
            "method": row.name.method,
            "metric": row.metric or None,
            "unit": row.unit,
            "higher_is_better": row.higher_is_better,
            "verdict": row.verdict,
        }
        rows.append(head | {column.name: column.values[place] for column in columns if column.name not in ("row", *head)})
    return rows


def render_json(comparison: Comparison, exit_code: int) -> str:
    """One object, indented."""
    return json.dumps(as_dict(comparison, exit_code), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_junit(comparison: Comparison, allow_missing: bool = False, fail_on: str = "regression") -> str:
    """One test suite per (task, dataset), one test case per row. Rows that give exit code 1 fail; vanished and incomparable
    rows are errors; rows that could not be tested are skipped.

    Args:
        allow_missing, fail_on: as for :meth:`Comparison.exit_code`; with ``never``, what ``regression`` says is still shown.
    """
    fail_on = "regression" if fail_on == "never" else fail_on
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
            outcome = _outcome(comparison, row, allow_missing, fail_on)
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


def _outcome(comparison: Comparison, row: RowResult, allow_missing: bool, fail_on: str) -> tuple[str, str] | None:
    if comparison.fails(row, fail_on, allow_missing):
        return "failure", "failures"
    if row.verdict == "incomparable" or (row.verdict == "vanished" and not allow_missing):
        return "error", "errors"
    return None if row.verdict in TESTED else ("skipped", "skipped")


def _message(row: RowResult) -> str:
    if row.evidence is None:
        return f"{row.verdict}: {row.note}"
    text = texts_of(row)
    change = f"{text['metric']} {text['baseline']} to {text['candidate']}, change {text['change']} {text['interval']}"
    return f"{row.verdict}: {change}, p {text['p_holm']}"


def not_compared(baseline: object, candidate: object, reason: str, format: str) -> str:
    """What ``--out`` holds where a run cannot be read, so that a job that shows the file shows why."""
    reason = _clean(reason)
    if format == "json":
        names = {"schema": SCHEMA, "baseline": str(baseline), "candidate": str(candidate)}
        return json.dumps({**names, "exit_code": 2, "error": reason}, indent=1, ensure_ascii=True) + "\n"
    if format == "junit":
        root = ElementTree.Element("testsuites", name="ocd-bench compare", tests="1", failures="0", errors="1", skipped="0")
        suite = ElementTree.SubElement(root, "testsuite", name="compare")
        ElementTree.SubElement(ElementTree.SubElement(suite, "testcase", name="compare"), "error", message=reason)
        return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
    if format == "html":
        return f'<!doctype html>\n<meta charset="utf-8"><title>OCD-Bench</title><p>Not compared: {escape(reason)}</p>\n'
    if format == "markdown":
        return f"### OCD-Bench: not compared\n\n{markdown.escape(reason)}\n"
    return f"not compared: {reason}\n"


def _clean(text: str) -> str:
    """``text`` without the control characters that XML 1.0 forbids."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", " ", text)
