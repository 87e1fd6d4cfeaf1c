"""Bars of differences between two runs, to the left and right of zero, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.printable import escape_unprintable

_WIDTH, _ROW = 440, 30
_START, _END = 138, 66


@dataclass(frozen=True)
class ChangeBar:
    """One difference and its interval."""

    name: str
    value: float
    low: float
    high: float
    text: str
    is_good_up: bool = True
    """Whether a positive difference is an improvement."""


def draw_changes(title: str, bars: Sequence[ChangeBar]) -> Markup:
    """Draw the differences; bars whose interval holds zero are grey."""
    limit = (
        max([abs(v) for bar in bars for v in (bar.value, bar.low, bar.high)], default=0.0) or 1.0
    )
    rows = [_draw_row(bar, index * _ROW, limit) for index, bar in enumerate(bars)]
    centre = _START + (_WIDTH - _START - _END) / 2
    height = _ROW * len(bars) + 4
    line = Markup('<path class="zero" d="M{:.1f} 0V{}"/>').format(centre, height)
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>'
    ).format(_WIDTH, height, escape_unprintable(title), Markup("").join(rows), line)


def _draw_row(bar: ChangeBar, top: int, limit: float) -> Markup:
    half = (_WIDTH - _START - _END) / 2
    centre = _START + half
    ends = sorted((centre, centre + bar.value / limit * half))
    low, high = (centre + v / limit * half for v in (bar.low, bar.high))
    is_sure = bar.low > 0 or bar.high < 0
    colour = 0 if not is_sure else 3 if (bar.value > 0) == bar.is_good_up else 2
    name = escape_unprintable(bar.name)
    name = name if len(name) <= 20 else f"{name[:19]}…"
    y = top + 15
    return Markup(
        '<text class="name" x="{}" y="{}">{}</text>'
        '<rect class="column s{}" x="{:.1f}" y="{}" width="{:.1f}" height="14" rx="2"/>'
        '<path class="whisker" d="M{:.1f} {}H{:.1f}"/>'
        '<text class="value" x="{}" y="{}">{}</text>'
    ).format(
        _START - 8,
        y + 4,
        name,
        colour,
        ends[0],
        top + 8,
        max(1.0, ends[1] - ends[0]),
        low,
        y,
        high,
        _WIDTH - 4,
        y + 4,
        bar.text,
    )
