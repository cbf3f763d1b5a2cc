"""Small plots as inline SVG: intervals, bars, lines, points. Colours are CSS classes, so that a page can have two themes.

The viewBox of every plot is about as wide as a phone, so that text is readable there. Plots are a little larger on wider
screens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count

WIDTH = 420
LINE = 13.0
"""Height of a line of small text."""
_LETTER = 6.4
_ids = count()


@dataclass(frozen=True)
class Item:
    """One line of an interval plot.

    Attributes:
        mark: a class: ``better``, ``worse``, ``oracle``, or empty.
        method: whose line it is, for the page's filter; empty for none.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    mark: str = ""
    method: str = ""


@dataclass(frozen=True)
class Axis:
    """Maps numbers to positions along one side of a plot, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers within the range of the axis."""
        if self.log:
            decades = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            if len(decades) >= 2:
                every = -(-len(decades) // 5)
                return [10.0**power for power in list(decades)[::every]]
            steps = [factor * 10.0**power for power in range(decades.start - 1, decades.stop + 1) for factor in (1, 2, 5)]
            return [step for step in steps if self.low <= step <= self.high] or [self.low, self.high]
        unit = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step = unit * next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (unit * factor) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def axis_over(values: Sequence[float], start: float, end: float, log: bool = False, zero: bool = False) -> Axis:
    """An axis with a margin on both sides, also around a single value.

    Args:
        log: whether to use a logarithmic axis, if all values are positive.
        zero: whether the axis must contain zero.
    """
    low, high = min(values), max(values)
    if log and low > 0:
        room = max(1.1, (high / low) ** 0.05)
        return Axis(low / room, high * room, start, end, log=True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    return Axis(low - room, high + room, start, end)


def short(number: float) -> str:
    """A tick's label."""
    size = abs(number)
    if size >= 1e9 or 0 < size < 1e-3:
        return f"{number:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    if size >= 1e6:
        return f"{number / 1e6:g}M"
    if size >= 1000:
        return f"{number / 1000:g}k"
    return f"{number:.4g}"


def plot(body: Sequence[str], height: float, title: str, description: str) -> str:
    """An ``svg`` element that a screen reader announces by its title and description."""
    number = next(_ids)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-labelledby="t{number} d{number}">'
        f'<title id="t{number}">{escape(title)}</title><desc id="d{number}">{escape(description)}</desc>'
        f"{''.join(body)}</svg>"
    )


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """Text whose baseline begins, is centred or ends at (x, y)."""
    extra = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of class ``kind``."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def of_method(body: Sequence[str], method: str) -> str:
    """Elements that the page's filter shows or hides with the rows of a method."""
    return f'<g data-m="{escape(method)}">{"".join(body)}</g>' if method else "".join(body)


def intervals(
    items: Sequence[Item], title: str, unit: str, form: Callable[[float], str], zero: bool = False, bars: bool = False
) -> str:
    """One line per item: a dot with its interval or, with ``bars``, a bar from zero with the number beside it.

    Args:
        unit: the label of the axis.
        form: function that formats a number.
        zero: whether to draw a line at zero.
    """
    left = 14 + min(150.0, max(len(item.label) for item in items) * _LETTER)
    values = [v for item in items for v in (item.value, item.low, item.high) if v is not None]
    axis = axis_over(values, left, WIDTH - (60 if bars else 14), zero=zero or bars)
    bottom = 12 + 24 * len(items)
    body = _bottom_axis(axis, bottom, unit, 4)
    if zero or bars:
        body.append(line(axis(0), 4, axis(0), bottom, "zero"))
    for place, item in enumerate(items):
        y = 20 + 24 * place
        label = item.label if len(item.label) * _LETTER <= 150 else item.label[:22] + "…"
        own = [text(left - 8, y + 4, label, "end")]
        if bars:
            x, width = min(axis(0), axis(item.value)), abs(axis(item.value) - axis(0))
            own.append(f'<rect x="{x:.1f}" y="{y - 6}" width="{width:.1f}" height="12" class="bar {item.mark}"/>')
            own.append(text(x + width + 6, y + 4, form(item.value)))
            body.append(of_method(own, item.method))
            continue
        whiskers = ""
        if item.low is not None and item.high is not None:
            own.append(line(axis(item.low), y, axis(item.high), y, f"whisker {item.mark}"))
            whiskers = f" [{form(item.low)}, {form(item.high)}]"
        own.append(
            f'<circle cx="{axis(item.value):.1f}" cy="{y}" r="4.5" class="dot {item.mark}">'
            f"<title>{escape(item.label)}: {escape(form(item.value) + whiskers)}</title></circle>"
        )
        body.append(of_method(own, item.method))
    description = "; ".join(f"{item.label} {form(item.value)}" for item in items)
    return plot(body, bottom + 34, title, description)


def lines(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    title: str,
    below: str,
    beside: str = "",
    unit_square: bool = False,
    mark: tuple[float, str] | None = None,
    log: bool = False,
) -> str:
    """Curves ``(label, xs, ys)``, each with an entry in the legend.

    Args:
        below, beside: labels of the axes.
        mark: a position on the horizontal axis, and its label.
        log: whether the horizontal axis is logarithmic.
        unit_square: labels are methods, both axes go from 0 to 1, every point is marked, and the line x = y is drawn.
    """
    across = 2 if len(series) > 6 else 1
    rows = -(-len(series) // across)
    left, top, bottom = 46.0, 10.0 + 18 * rows, 200.0 + 18 * rows
    values = [value for _, _, ys in series for value in ys]
    positive = min(values) > 0 and max(values) / min(values) > 100
    up = Axis(0, 1, bottom, top) if unit_square else axis_over(values, bottom, top, log=positive)
    places = [x for _, xs, _ in series for x in xs]
    along = Axis(0, 1, left, WIDTH - 14) if unit_square else axis_over(places, left, WIDTH - 14, log=log)
    body = _bottom_axis(along, bottom, below, top)
    body += _left_axis(up, left)
    if beside:
        body.append(text(4, top - 4, beside, kind="small"))
    if unit_square:
        body.append(line(along(0), up(0), along(1), up(1), "zero"))
    if mark is not None:
        x, side = along(mark[0]), "end" if along(mark[0]) > WIDTH / 2 else "start"
        body += [line(x, top, x, bottom, "zero"), text(x + (-6 if side == "end" else 6), top + 12, mark[1], side, "small")]
    for place, (label, xs, ys) in enumerate(series):
        kind = f"line s{place % 6}"
        step = max(1, len(xs) // 300)
        path = " ".join(f"{along(x):.1f},{up(y):.1f}" for x, y in zip(xs[::step], ys[::step], strict=True))
        own = [f'<polyline points="{path}" class="{kind}"/>']
        if unit_square:
            own += [
                f'<circle cx="{along(x):.1f}" cy="{up(y):.1f}" r="2.5" class="{kind}"/>' for x, y in zip(xs, ys, strict=True)
            ]
        x0, y0 = left + place // rows * 180, 10 + 18 * (place % rows)
        own += [line(x0, y0, x0 + 22, y0, kind), text(x0 + 28, y0 + 4, label)]
        body.append(of_method(own, label if unit_square else ""))
    description = "; ".join(f"{label} from {short(ys[0])} to {short(ys[-1])}" for label, _, ys in series)
    return plot(body, bottom + 34, title, description)


def points(
    places: Sequence[tuple[float, float, str, str]],
    title: str,
    below: str,
    beside: str,
    log: tuple[bool, bool] = (False, False),
    diagonal: bool = False,
) -> str:
    """Points ``(x, y, label, mark)``. Labels, which are methods, stand in a column on the right, each joined to its point by a
    thin line; an empty label is not drawn.

    Args:
        log: whether each axis is logarithmic.
        diagonal: both axes have the same scale, and the line x = y is drawn.
    """
    labels = [place[2] for place in places if place[2]]
    left, top = 46.0, 26.0
    bottom = max(236.0, top + LINE * len(labels))
    right = WIDTH - 24 - min(130.0, max((len(label) for label in labels), default=-3) * _LETTER + 18)
    xs, ys = [place[0] for place in places], [place[1] for place in places]
    if diagonal:
        xs = ys = xs + ys
    along = axis_over(xs, left, right, log=log[0])
    up = axis_over(ys, bottom, top, log=log[1])
    body = _bottom_axis(along, bottom, below, top) + _left_axis(up, left) + [text(4, 14, beside, kind="small")]
    if diagonal:
        body.append(line(along(along.low), up(up.low), along(along.high), up(up.high), "zero"))
    heights = _spread([up(y) for _, y, label, _ in places if label], top, bottom)
    for x, y, label, mark in places:
        at = along(x), up(y)
        kind = f"dot {mark}" if label else "point"
        radius = 4.5 if label else 2.2
        own = [
            f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius}" class="{kind}">'
            f"<title>{escape(f'{label} ' if label else '')}{short(x)}, {short(y)}</title></circle>"
        ]
        if label:
            height = heights.pop(0)
            own.insert(0, line(at[0], at[1], right + 12, height, "leader"))
            own.append(text(right + 16, height + 4, label if len(label) <= 18 else f"{label[:17]}…", kind="small"))
        body.append(of_method(own, label))
    description = "; ".join(f"{label} {short(x)}, {short(y)}" for x, y, label, _ in places if label)
    return plot(body, bottom + 34, title, description or f"{len(places)} points")


def _spread(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """The heights, moved as little as is needed to be :data:`LINE` apart, in their order from top to bottom."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    placed = dict.fromkeys(order, 0.0)
    least = top
    for place in order:
        placed[place] = max(heights[place], least)
        least = placed[place] + LINE
    most = bottom
    for place in reversed(order):
        placed[place] = min(placed[place], most)
        most = placed[place] - LINE
    return [placed[place] for place in range(len(heights))]


def _bottom_axis(axis: Axis, bottom: float, unit: str, top: float) -> list[str]:
    body = [line(axis.start, bottom, axis.end, bottom, "axis")]
    for tick in axis.ticks():
        body += [
            line(axis(tick), top, axis(tick), bottom, "grid"),
            text(axis(tick), bottom + 14, short(tick), "middle", "small"),
        ]
    body.append(text((axis.start + axis.end) / 2, bottom + 30, unit, "middle", "small"))
    return body


def _left_axis(axis: Axis, left: float) -> list[str]:
    body = [line(left, axis.start, left, axis.end, "axis")]
    for tick in axis.ticks():
        y = axis(tick)
        body += [line(left, y, WIDTH - 14, y, "grid"), text(left - 5, y + 4, short(tick), "end", "small")]
    return body
