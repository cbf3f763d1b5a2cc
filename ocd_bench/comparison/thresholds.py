"""The smallest loss that matters, by unit, and how a TOML file changes it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from ocd_bench.errors import UsageError

ALPHA = 0.01
"""Probability that any row of a comparison is called changed although nothing changed (family-wise, two-sided)."""
ABSOLUTE: Mapping[str, float] = {"fraction": 0.002, "dB": 0.05}
"""Smallest loss that matters, by unit: 0.2 percentage points, 0.05 dB."""
RELATIVE = 0.01
"""Smallest loss that matters for every other unit: 1 % of the baseline's number."""


LARGE = 0.05
"""A loss of 5 points of a fraction, or of 5 % of the baseline's number for any other unit, is large. A row that lost so much,
or may have lost so much unseen, is never called unchanged."""


def large_loss(unit: str, baseline: float) -> float:
    """:data:`LARGE` in the metric's own unit."""
    return LARGE if unit == "fraction" else LARGE * abs(baseline)


@dataclass(frozen=True)
class Effect:
    """The smallest loss that matters, absolute or as a share of the baseline's number. ``ignored`` rows are never gated."""

    size: float
    relative: bool = False
    ignored: bool = False

    def of(self, baseline: float) -> float:
        """In the metric's own unit."""
        return self.size * abs(baseline) if self.relative else self.size


@dataclass(frozen=True)
class Thresholds:
    """``rules``: glob over ``task/dataset/method/metric`` to effect; the last one that matches counts."""

    alpha: float = ALPHA
    rules: Mapping[str, Effect] = field(default_factory=dict)

    def effect(self, row: str, unit: str) -> Effect:
        """The smallest loss that matters in ``row`` (``task/dataset/method/metric``)."""
        for pattern, effect in reversed(list(self.rules.items())):
            if _matches(pattern, row):
                return effect
        return Effect(ABSOLUTE[unit]) if unit in ABSOLUTE else Effect(RELATIVE, relative=True)

    def unused(self, rows: Iterable[str]) -> list[str]:
        """Patterns that match none of ``rows``; they are probably misspelt."""
        rows = list(rows)
        return [pattern for pattern in self.rules if not any(_matches(pattern, row) for row in rows)]


def _matches(pattern: str, row: str) -> bool:
    """A pattern with fewer parts matches everything below it: ``images/mnist``, ``*/*/ocd*``."""
    return fnmatchcase(row, pattern) or fnmatchcase(row, f"{pattern}/*")


def read_thresholds(path: Path) -> Thresholds:
    """Thresholds from a file such as::

        alpha = 0.01

        [minimal-effect]
        "images/*/*/accuracy" = 0.005     # in the metric's own unit: half a point
        "speech" = "2 %"                  # of the baseline's number
        "*/*/oracle*" = "ignore"          # shown, never gated

    Raises:
        UsageError: if the file cannot be read, or has other content.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--thresholds {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--thresholds {path}: not valid TOML: {error}") from error
    unknown = sorted(set(content) - {"alpha", "minimal-effect"})
    if unknown:
        raise UsageError(f"--thresholds {path}: unknown key {unknown[0]!r}; known: alpha, minimal-effect")
    alpha = content.get("alpha", ALPHA)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1:
        raise UsageError(f"--thresholds {path}: alpha = {alpha!r}: expected a number between 0 and 1")
    rules = content.get("minimal-effect", {})
    if not isinstance(rules, dict):
        raise UsageError(f"--thresholds {path}: minimal-effect: expected a table of patterns")
    return Thresholds(float(alpha), {pattern: _effect(path, pattern, value) for pattern, value in rules.items()})


def _effect(path: Path, pattern: str, value: object) -> Effect:
    if value == "ignore":
        return Effect(0.0, ignored=True)
    number: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str) and value.rstrip().endswith("%"):
        try:
            number = float(value.rstrip().removesuffix("%")) / 100
        except ValueError:
            number = None
    if number is None or not 0 <= number < float("inf"):
        raise UsageError(
            f'--thresholds {path}: "{pattern}" = {value!r}: expected a number, a share such as "2 %", or "ignore"; '
            'patterns look like "task/dataset/method/metric"'
        )
    return Effect(number, relative=isinstance(value, str))
