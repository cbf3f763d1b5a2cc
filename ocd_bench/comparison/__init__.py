"""Comparison of two stored runs: is any row of the candidate worse than in the baseline?"""

from __future__ import annotations

from ocd_bench.comparison.judge import compare_runs
from ocd_bench.comparison.thresholds import Thresholds, read_thresholds
from ocd_bench.comparison.verdicts import Comparison, RowResult

__all__ = ["Comparison", "RowResult", "Thresholds", "compare_runs", "read_thresholds"]
