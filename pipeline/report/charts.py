"""Charts as inline SVG, small and without scripts: curves, bars and histograms.

Colours come from the page's style sheet, by class, so that charts follow its light or dark theme. All texts
are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.printable import escape_unprintable

_WIDTH, _HEIGHT = 440, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 44
_MOST_POINTS = 160
"""Points of a drawn curve; more would not be visible."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 1
    """Number of the series' colour, from 1."""
    style: str = ""
    """Further classes of the style sheet: `faint`, `dashed`."""


@dataclass(frozen=True)
class Axis:
    """One axis of a chart."""

    title: str
    low: float = 0.0
    high: float = 1.0
    ticks: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Mark:
    """A point of interest on a chart."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Bar:
    """One bar of a chart: its value, and optionally an interval and a page."""

    name: str
    value: float | None
    text: str
    low: float | None = None
    high: float | None = None
    href: str | None = None
    colour: int = 1


def draw_curves(
    title: str, curves: Sequence[Curve], x_axis: Axis, y_axis: Axis, marks: Sequence[Mark] = ()
) -> Markup:
    """Draw lines over two linear axes."""
    parts = [_draw_frame(x_axis, y_axis)]
    for curve in curves:
        points = _thin([(x, y) for x, y in zip(curve.x, curve.y, strict=True) if _is_number(x, y)])
        if not points:
            continue
        path = " ".join(f"{_place_x(x, x_axis):.1f},{_place_y(y, y_axis):.1f}" for x, y in points)
        parts.append(
            Markup(
                '<polyline class="curve s{} {}" points="{}"><title>{}</title></polyline>'
            ).format(curve.colour, curve.style, path, escape_unprintable(curve.name))
        )
    for mark in marks:
        if _is_number(mark.x, mark.y):
            parts.append(
                Markup(
                    '<circle class="mark" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>'
                ).format(_place_x(mark.x, x_axis), _place_y(mark.y, y_axis), mark.text)
            )
    return _wrap(title, Markup("").join(parts))


def draw_histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    x_axis: Axis,
    y_title: str,
    hrefs: Sequence[str | None] | None = None,
) -> Markup:
    """Draw counts between edges, with a page for each column."""
    highest = max([*counts, 0.0]) or 1.0
    y_axis = Axis(y_title, 0.0, highest, _choose_ticks(highest))
    parts = [_draw_frame(x_axis, y_axis)]
    links = hrefs or [None] * len(counts)
    for left, right, count, href in zip(edges, edges[1:], counts, links, strict=False):
        x1, x2 = _place_x(left, x_axis), _place_x(right, x_axis)
        y = _place_y(count, y_axis)
        column = Markup(
            '<rect class="column s1" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
            "<title>{:g} to {:g}: {:,.0f}</title></rect>"
        ).format(x1 + 0.5, y, max(0.5, x2 - x1 - 1), _HEIGHT - _BOTTOM - y, left, right, count)
        parts.append(_link(column, href))
    return _wrap(title, Markup("").join(parts))


def draw_bars(title: str, bars: Sequence[Bar], highest: float | None = None) -> Markup:
    """Draw horizontal bars with their names and values, each linked to its page."""
    values = [v for bar in bars for v in (bar.value, bar.high) if v is not None]
    limit = highest or max([*values, 0.0]) or 1.0
    height = 34
    parts = []
    for index, bar in enumerate(bars):
        parts.append(_link(_draw_bar(bar, index * height, limit), bar.href))
    return _wrap(title, Markup("").join(parts), height=height * len(bars) + 4)


def _draw_bar(bar: Bar, top: int, limit: float) -> Markup:
    start, length = 142, _WIDTH - 142 - 66
    parts = [
        Markup('<text class="name" x="{}" y="{}">{}</text>').format(
            start - 10, top + 21, _shorten(bar.name, 22)
        )
    ]
    parts.append(
        Markup('<rect class="track" x="{}" y="{}" width="{}" height="16" rx="3"/>').format(
            start, top + 8, length
        )
    )
    if bar.value is not None:
        width = max(0.0, min(1.0, bar.value / limit)) * length
        parts.append(
            Markup(
                '<rect class="column s{}" x="{}" y="{}" width="{:.1f}" height="16" rx="3"/>'
            ).format(bar.colour, start, top + 8, width)
        )
    if bar.low is not None and bar.high is not None:
        x1, x2 = (start + max(0.0, min(1.0, v / limit)) * length for v in (bar.low, bar.high))
        y = top + 16
        parts.append(
            Markup(
                '<path class="whisker" d="M{0:.1f} {2}H{1:.1f}M{0:.1f} {3}v8M{1:.1f} {3}v8"/>'
            ).format(x1, x2, y, y - 4)
        )
    parts.append(
        Markup('<text class="value" x="{}" y="{}">{}</text>').format(_WIDTH - 4, top + 21, bar.text)
    )
    return Markup("").join(parts)


def _link(content: Markup, href: str | None) -> Markup:
    return content if href is None else Markup('<a href="{}">{}</a>').format(href, content)


def _wrap(title: str, content: Markup, height: int = _HEIGHT) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, height, escape_unprintable(title), content)


def _draw_frame(x_axis: Axis, y_axis: Axis) -> Markup:
    """Grid lines, tick texts and axis titles."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for tick in y_axis.ticks:
        y = _place_y(tick, y_axis)
        parts.append(
            Markup(
                '<path class="grid" d="M{} {:.1f}H{}"/><text class="tick end" x="{}" y="{:.1f}">{}</text>'
            ).format(_LEFT, y, right, _LEFT - 7, y + 4, _format_tick(tick))
        )
    for tick in x_axis.ticks:
        x = _place_x(tick, x_axis)
        parts.append(
            Markup('<text class="tick middle" x="{:.1f}" y="{}">{}</text>').format(
                x, bottom + 17, _format_tick(tick)
            )
        )
    parts.append(
        Markup('<text class="axis middle" x="{}" y="{}">{}</text>').format(
            (_LEFT + right) / 2, _HEIGHT - 6, x_axis.title
        )
    )
    parts.append(
        Markup(
            '<text class="axis middle" transform="translate(13 {}) rotate(-90)">{}</text>'
        ).format((_TOP + bottom) / 2, y_axis.title)
    )
    return Markup("").join(parts)


def _place_x(value: float, axis: Axis) -> float:
    return _LEFT + _scale(value, axis) * (_WIDTH - _LEFT - _RIGHT)


def _place_y(value: float, axis: Axis) -> float:
    bottom = _HEIGHT - _BOTTOM
    return bottom - _scale(value, axis) * (bottom - _TOP)


def _scale(value: float, axis: Axis) -> float:
    share = (value - axis.low) / (axis.high - axis.low) if axis.high > axis.low else 0.0
    return min(1.0, max(0.0, share))


def _choose_ticks(highest: float) -> list[float]:
    """About four round values from 0 to the highest."""
    step = 10.0 ** math.floor(math.log10(highest / 2)) if highest > 0 else 1.0
    while highest / step > 5:
        step *= 2 if highest / step <= 10 else 5
    return [step * index for index in range(int(highest / step) + 1)]


def _format_tick(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= _MOST_POINTS:
        return points
    step = (len(points) - 1) / (_MOST_POINTS - 1)
    return [points[round(index * step)] for index in range(_MOST_POINTS)]


def _is_number(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


def _shorten(text: str, length: int) -> str:
    text = escape_unprintable(text)
    return text if len(text) <= length else text[: length - 1] + "…"
