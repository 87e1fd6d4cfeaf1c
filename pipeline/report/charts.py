"""Charts as inline SVG, small and without scripts: curves and histograms.

Places are shares of the plot, whose size the style sheet decides, so that texts and lines have the same size
in charts of any width. Colours come from the style sheet too, by class, and follow its light or dark theme.
All texts are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.printable import escape_unprintable

_UNITS = 1000
"""Sides of the drawing of curves, which is stretched to the plot."""
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


def draw_curves(
    title: str, curves: Sequence[Curve], x_axis: Axis, y_axis: Axis, marks: Sequence[Mark] = ()
) -> Markup:
    """Draw lines over two linear axes, and below them the names of those that are not `faint`."""
    lines = [_draw_curve(curve, x_axis, y_axis) for curve in curves]
    points = [_draw_mark(mark, x_axis, y_axis) for mark in marks if _is_number(mark.x, mark.y)]
    content = Markup(
        '<svg viewBox="0 0 {0} {0}" preserveAspectRatio="none" width="100%" height="100%">{1}</svg>{2}'
    ).format(_UNITS, Markup("").join(lines), Markup("").join(points))
    return _wrap(title, _draw_frame(x_axis, y_axis) + content, x_axis, y_axis) + _draw_key(curves)


def _draw_curve(curve: Curve, x_axis: Axis, y_axis: Axis) -> Markup:
    points = _thin([(x, y) for x, y in zip(curve.x, curve.y, strict=True) if _is_number(x, y)])
    path = " ".join(
        f"{_UNITS * _scale(x, x_axis):.0f},{_UNITS * (1 - _scale(y, y_axis)):.0f}"
        for x, y in points
    )
    return Markup('<polyline class="curve s{} {}" points="{}"><title>{}</title></polyline>').format(
        curve.colour, curve.style, path, escape_unprintable(curve.name)
    )


def _draw_mark(mark: Mark, x_axis: Axis, y_axis: Axis) -> Markup:
    return Markup('<circle class="mark" cx="{}" cy="{}" r="5"><title>{}</title></circle>').format(
        _place_x(mark.x, x_axis), _place_y(mark.y, y_axis), mark.text
    )


def _draw_key(curves: Sequence[Curve]) -> Markup:
    """The names of the curves; none if only one is not faint."""
    shown = [curve for curve in curves if curve.style != "faint"]
    if len(shown) < 2:
        return Markup("")
    item = Markup(
        '<li><svg viewBox="0 0 26 8" aria-hidden="true"><path class="curve s{} {}" d="M1 4H25"/></svg>{}</li>'
    )
    items = [item.format(c.colour, c.style, escape_unprintable(c.name)) for c in shown]
    return Markup('<ul class="key">{}</ul>').format(Markup("").join(items))


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
    ticks = _choose_ticks(max([*counts, 1.0]))
    y_axis = Axis(y_title, 0.0, ticks[-1], ticks)
    columns = []
    links = hrefs or [None] * len(counts)
    for left, right, count, href in zip(edges, edges[1:], counts, links, strict=False):
        start, end = _scale(left, x_axis), _scale(right, x_axis)
        height = _scale(count, y_axis)
        column = Markup(
            '<rect class="column s1" x="{}" y="{}" width="{}" height="{}">'
            "<title>{:g} to {:g}: {:,.0f}</title></rect>"
        ).format(
            _format_share(start + 0.002),
            _format_share(1 - height),
            _format_share(end - start - 0.004),
            _format_share(height),
            left,
            right,
            count,
        )
        columns.append(_link(column, href))
    content = Markup("").join(columns)
    return _wrap(title, _draw_frame(x_axis, y_axis) + content, x_axis, y_axis)


def _link(content: Markup, href: str | None) -> Markup:
    return content if href is None else Markup('<a href="{}">{}</a>').format(href, content)


def _wrap(title: str, content: Markup, x_axis: Axis, y_axis: Axis) -> Markup:
    """The plot between the titles of its axes."""
    return Markup(
        '<div class="chart"><svg class="plot" role="img" aria-label="{}">{}</svg>'
        '<span class="y-title">{}</span><span class="x-title">{}</span></div>'
    ).format(escape_unprintable(title), content, y_axis.title, x_axis.title)


def _draw_frame(x_axis: Axis, y_axis: Axis) -> Markup:
    """Grid lines and the texts of the ticks, which stand outside the plot."""
    parts = [
        Markup(
            '<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>'
            '<text class="end" x="-8" y="{0}" dy="4">{1}</text>'
        ).format(_place_y(tick, y_axis), text)
        for tick, text in zip(y_axis.ticks, _format_ticks(y_axis.ticks), strict=True)
    ]
    parts += [
        Markup('<text class="middle" x="{}" y="100%" dy="18">{}</text>').format(
            _place_x(tick, x_axis), text
        )
        for tick, text in zip(x_axis.ticks, _format_ticks(x_axis.ticks), strict=True)
    ]
    return Markup("").join(parts)


def _place_x(value: float, axis: Axis) -> str:
    return _format_share(_scale(value, axis))


def _place_y(value: float, axis: Axis) -> str:
    return _format_share(1 - _scale(value, axis))


def _format_share(share: float) -> str:
    return f"{100 * share:.2f}%"


def _scale(value: float, axis: Axis) -> float:
    share = (value - axis.low) / (axis.high - axis.low) if axis.high > axis.low else 0.0
    return min(1.0, max(0.0, share))


def _choose_ticks(highest: float) -> list[float]:
    """Two to six round numbers from 0 to the highest count or above."""
    step = max(1.0, 10.0 ** math.floor(math.log10(highest / 2)))
    while highest / step > 5:
        step *= 2 if highest / step <= 10 else 5
    return [step * index for index in range(math.ceil(highest / step - 1e-9) + 1)]


def _format_ticks(ticks: Sequence[float]) -> list[str]:
    """Texts with the same number of decimals."""
    largest = max(map(abs, ticks), default=0.0)
    for limit, unit in ((1_000_000, "M"), (10_000, "k")):
        if largest >= limit:
            divisor = 1_000_000 if unit == "M" else 1000
            return ["0" if tick == 0 else f"{tick / divisor:g}{unit}" for tick in ticks]
    decimals = max((len(f"{tick:.6g}".partition(".")[2]) for tick in ticks), default=0)
    return [f"{tick:.{decimals}f}" for tick in ticks]


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= _MOST_POINTS:
        return points
    step = (len(points) - 1) / (_MOST_POINTS - 1)
    return [points[round(index * step)] for index in range(_MOST_POINTS)]


def _is_number(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)
