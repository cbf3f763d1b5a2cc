"""Numbers as text: decimals by unit, fractions in per cent, signs, times."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ocd_bench.stats import Estimate


@dataclass(frozen=True)
class Style:
    """How the values of one metric are printed.

    Attributes:
        unit: as printed beside a value.
        difference_unit: as printed beside a difference of two values.
    """

    factor: float = 1.0
    decimals: int = 4
    scientific: bool = False
    unit: str = ""
    difference_unit: str = ""

    def value(self, number: float) -> str:
        """``98.75``"""
        scaled = number * self.factor
        text = f"{scaled:.{self.decimals}{'e' if self.scientific else 'f'}}"
        return text.lstrip("-") if float(text) == 0 else text

    def signed(self, number: float) -> str:
        """``+0.42``, ``-0.10``, ``0.00``"""
        text = self.value(number)
        return text if text.startswith("-") or float(text) == 0 else f"+{text}"

    def spread(self, mean: float, sd: float | None) -> str:
        """``98.75 ± 0.10``; for one seed, which has no SD, ``98.75``."""
        return self.value(mean) if sd is None else f"{self.value(mean)} ± {self.value(sd)}"

    def difference(self, estimate: Estimate) -> str:
        """``+0.42 [+0.11, +0.73]``; without an interval ``+0.42``."""
        if estimate.low is None or estimate.high is None:
            return self.signed(estimate.value)
        return f"{self.signed(estimate.value)} {self.interval((estimate.low, estimate.high))}"

    def interval(self, ends: tuple[float, float]) -> str:
        """``[+0.11, +0.73]``"""
        return f"[{self.signed(ends[0])}, {self.signed(ends[1])}]"


def style_for(unit: str, values: Iterable[float]) -> Style:
    """The style of a metric with these values.

    Fractions are in per cent with two decimals, dB have two decimals. Any other unit has as many decimals as give the median
    value four significant digits.
    """
    if unit == "fraction":
        return Style(100.0, 2, unit="%", difference_unit="points")
    if unit == "dB":
        return Style(1.0, 2, unit=unit, difference_unit=unit)
    sizes = sorted(abs(value) for value in values if value)
    typical = sizes[len(sizes) // 2] if sizes else 1.0
    if not 1e-4 <= typical < 1e6:
        return Style(1.0, 3, scientific=True, unit=unit, difference_unit=unit)
    decimals = min(6, max(0, 3 - math.floor(math.log10(typical))))
    return Style(1.0, decimals, unit=unit, difference_unit=unit)


def quantity(number: float | None) -> str:
    """A time, rate or size with three significant digits, four decimals at most; a dash for none.

    ``0.0007``, ``0.123``, ``4.56``, ``78.9``, ``1,234``.
    """
    if number is None:
        return "–"
    size = abs(number)
    if size >= 100:
        return f"{number:,.0f}"
    if size == 0:
        return "0"
    return f"{number:.{min(4, 2 - math.floor(math.log10(size)))}f}"


def seeds_text(seeds: Iterable[int]) -> str:
    """``seed 0``, ``seeds 0, 1, 7``, ``seeds 0 to 9`` for a long run of them."""
    numbers = sorted(set(seeds))
    if len(numbers) == 1:
        return f"seed {numbers[0]}"
    if len(numbers) > 3 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"seeds {numbers[0]} to {numbers[-1]}"
    return "seeds " + ", ".join(str(number) for number in numbers)
