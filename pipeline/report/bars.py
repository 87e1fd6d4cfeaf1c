"""Horizontal bars with names and values, as HTML lists whose tracks are inline SVG.

Names and values are text of the page, so that they have its size and wrap however wide the chart is; lengths
are shares of the track's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.printable import escape_unprintable
from pipeline.report.cells import Cell


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
    count: int | None = None
    """The total of the page at `href`, if the bar's text is that total."""


def build_count_bar(name: str, cell: Cell, colour: int = 1) -> Bar:
    """The bar of a count that leads to its images."""
    return Bar(name, cell.value, cell.text, href=cell.href, colour=colour, count=cell.count)


@dataclass(frozen=True)
class ChangeBar:
    """One difference between two runs and its interval."""

    name: str
    value: float
    low: float
    high: float
    text: str
    is_good_up: bool = True
    """Whether a positive difference is an improvement."""
    href: str | None = None


def draw_bars(title: str, bars: Sequence[Bar], highest: float | None = None) -> Markup:
    """Draw bars from zero on; `highest` is the value of a full track, by default the largest one."""
    values = [v for bar in bars for v in (bar.value, bar.high) if v is not None]
    limit = highest or max([*values, 0.0]) or 1.0
    return _list_rows(title, [_draw_bar(bar, limit) for bar in bars])


def draw_changes(title: str, bars: Sequence[ChangeBar]) -> Markup:
    """Draw differences to the left and right of zero; bars whose interval holds zero are grey."""
    ends = [abs(v) for bar in bars for v in (bar.value, bar.low, bar.high)]
    limit = max(ends, default=0.0) or 1.0
    return _list_rows(title, [_draw_change(bar, limit) for bar in bars])


def draw_interval(value: float, low: float, high: float) -> Markup:
    """Draw a rate and its interval on a track from 0 to 1."""
    return Markup(
        '<svg class="interval" aria-hidden="true"><line class="ground" x1="0" x2="100%" y1="50%" y2="50%"/>'
        '<line class="span" x1="{}" x2="{}" y1="50%" y2="50%"/><circle cx="{}" cy="50%" r="4"/></svg>'
    ).format(_format_share(low), _format_share(high), _format_share(value))


def _list_rows(title: str, rows: Sequence[Markup]) -> Markup:
    return Markup('<ul class="bars" aria-label="{}">{}</ul>').format(
        escape_unprintable(title), Markup("").join(rows)
    )


def _draw_bar(bar: Bar, limit: float) -> Markup:
    marks = Markup("")
    if bar.value is not None:
        marks += _draw_rect(bar.colour, 0.0, bar.value / limit)
    if bar.low is not None and bar.high is not None:
        marks += _draw_whisker(bar.low / limit, bar.high / limit)
    return _draw_row(bar.name, marks, bar.text, bar.href, bar.count)


def _draw_change(bar: ChangeBar, limit: float) -> Markup:
    is_sure = bar.low > 0 or bar.high < 0
    colour = 0 if not is_sure else 3 if (bar.value > 0) == bar.is_good_up else 6
    start, end = sorted((0.5, _place(bar.value, limit)))
    marks = _draw_rect(colour, start, max(0.003, end - start))
    marks += _draw_whisker(_place(bar.low, limit), _place(bar.high, limit))
    marks += Markup('<line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/>')
    return _draw_row(bar.name, marks, bar.text, bar.href)


def _place(value: float, limit: float) -> float:
    """The place of a difference on a track whose middle is zero."""
    return 0.5 + 0.5 * value / limit


def _draw_rect(colour: int, start: float, width: float) -> Markup:
    return Markup(
        '<rect class="column s{}" x="{}" y="15%" width="{}" height="70%" rx="3"/>'
    ).format(colour, _format_share(start), _format_share(width))


def _draw_whisker(low: float, high: float) -> Markup:
    """A line from low to high with a stroke at both ends."""
    x1, x2 = _format_share(low), _format_share(high)
    line = Markup('<line class="whisker" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    lines = ((x1, x2, "50%", "50%"), (x1, x1, "28%", "72%"), (x2, x2, "28%", "72%"))
    return Markup("").join(line.format(*ends) for ends in lines)


def _format_share(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def _draw_row(
    name: str, marks: Markup, text: str, href: str | None, count: int | None = None
) -> Markup:
    track = Markup(
        '<svg class="track" aria-hidden="true">'
        '<rect class="ground" width="100%" y="15%" height="70%" rx="3"/>{}</svg>'
    ).format(marks)
    row = Markup(
        '<span class="name" title="{0}">{0}</span>{1}<span class="value">{2}</span>'
    ).format(escape_unprintable(name), track, text)
    if href is None:
        return Markup("<li><span>{}</span></li>").format(row)
    counted = Markup("") if count is None else Markup(' data-count="{}"').format(count)
    return Markup('<li><a href="{}"{}>{}</a></li>').format(href, counted, row)
