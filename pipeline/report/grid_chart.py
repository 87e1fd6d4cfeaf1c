"""A grid of counts as inline SVG: the fuller a cell, the darker; each leads to its images."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from pipeline.printable import escape_unprintable
from pipeline.report.cells import Cell


def draw_grid(title: str, rows: Sequence[Sequence[Cell]]) -> Markup:
    """Draw cells, row by row from the top."""
    largest = max((cell.count or 0 for row in rows for cell in row), default=0) or 1
    height, width = len(rows), max(map(len, rows), default=0)
    squares = [
        _draw_cell(cell, x, y, (cell.count or 0) / largest)
        for y, row in enumerate(rows)
        for x, cell in enumerate(row)
    ]
    return Markup(
        '<svg class="heat" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(width, height, escape_unprintable(title), Markup("").join(squares))


def _draw_cell(cell: Cell, x: int, y: int, share: float) -> Markup:
    square = Markup(
        '<rect class="column s1" x="{}" y="{}" width="0.94" height="0.94" rx="0.08" '
        'fill-opacity="{:.3f}"><title>{}</title></rect>'
    ).format(x + 0.03, y + 0.03, 0.06 + 0.94 * share if share else 0.03, cell.text)
    if cell.href is None:
        return square
    return Markup('<a href="{}" data-count="{}">{}</a>').format(cell.href, cell.count, square)
