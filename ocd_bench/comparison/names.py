"""The verdicts on a row, and their groups."""

from __future__ import annotations

VERDICTS = (
    "regression",
    "broken",
    "vanished",
    "incomparable",
    "cannot tell",
    "improvement",
    "repaired",
    "new",
    "no change",
    "identical",
    "ignored",
    "no number",
)
"""Worst first. ``broken``: a number in the baseline, none in the candidate. ``no number``: none in either run."""
TESTED = ("regression", "improvement", "no change", "identical")
QUIET = ("no change", "identical", "ignored", "no number")
"""Verdicts of rows that are folded to one line."""
FAIL_ON = ("regression", "cannot-tell", "never")
