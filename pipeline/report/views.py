"""What the templates show: sections with cards, charts, tables and strips of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report.cells import Cell
from pipeline.report.figures import Figure, build_figure
from pipeline.report.gallery import Gallery

_MOST_NARROW_COLUMNS, _MOST_NARROW_CELLS = 7, 9


@dataclass(frozen=True)
class Column:
    """A table's column."""

    name: str
    title: str = ""
    """What it means, shown on hovering."""


@dataclass(frozen=True)
class Row:
    """A table's row."""

    name: str
    cells: tuple[Cell, ...]
    href: str | None = None
    """The page of what the row is about, in the report's folder."""
    is_total: bool = False
    """Whether it stays last when the table is sorted."""


@dataclass(frozen=True)
class Table:
    """A table; its first column has the names of the rows."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    is_sortable: bool = False
    is_narrow: bool = False
    """Whether the table stands beside others however many columns it has."""
    is_matrix: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether the table takes the whole width of the page."""
        return not self.is_narrow and len(self.columns) > (
            _MOST_NARROW_CELLS if self.is_matrix else _MOST_NARROW_COLUMNS
        )


@dataclass(frozen=True)
class Card:
    """A number with its name."""

    name: str
    cell: Cell
    note: str = ""
    is_main: bool = False
    interval: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing with its title."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True)
class Strip:
    """The first images of a gallery."""

    title: str
    total: int
    href: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Pair:
    """One image as two runs detect it."""

    title: str
    first: Figure
    second: Figure


@dataclass(frozen=True)
class PairStrip:
    """The first images of a gallery of pairs."""

    title: str
    total: int
    href: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Fact:
    """A name and a text."""

    name: str
    text: str
    is_code: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the index."""

    id: str
    short: str
    """Its name in the navigation."""
    title: str
    intro: str = ""
    notes: tuple[str, ...] = ()
    cards: tuple[Card, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    strips: tuple[Strip, ...] = ()
    pairs: tuple[PairStrip, ...] = ()
    facts: tuple[Fact, ...] = ()

    @property
    def narrow_tables(self) -> tuple[Table, ...]:
        """The tables that stand beside charts."""
        return tuple(table for table in self.tables if not table.is_wide)

    @property
    def leading_tables(self) -> tuple[Table, ...]:
        """The wide tables that stand above charts and other tables."""
        return tuple(table for table in self.tables if table.is_wide and table.is_matrix)

    @property
    def wide_tables(self) -> tuple[Table, ...]:
        """The tables below them."""
        return tuple(table for table in self.tables if table.is_wide and not table.is_matrix)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not any(
            (self.notes, self.cards, self.charts, self.tables, self.strips, self.pairs, self.facts)
        )


def build_strip(gallery: Gallery, count: int, title: str | None = None) -> Strip:
    """The first `count` images of a gallery."""
    figures = tuple(build_figure(item) for item in gallery.items[:count])
    return Strip(title or gallery.title, gallery.total, gallery.address, figures)


def list_columns(*names: str | tuple[str, str]) -> tuple[Column, ...]:
    """Columns from names, or from names with their meaning."""
    return tuple(Column(n) if isinstance(n, str) else Column(*n) for n in names)


def drop_empty(sections: Sequence[Section]) -> tuple[Section, ...]:
    """The sections that show something."""
    return tuple(section for section in sections if not section.is_empty)
