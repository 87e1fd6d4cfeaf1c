"""What the templates show: sections with cards, charts, tables and strips of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from pipeline.report.cells import Cell
from pipeline.report.figures import Figure, build_figure
from pipeline.report.gallery import Gallery

_MOST_NARROW_COLUMNS, _MOST_NARROW_CELLS = 7, 9
_MOST_SLIM_COLUMNS = 4


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
    width: Literal["", "narrow", "wide"] = ""
    """Whether the table stands beside others or takes the page; by default by its number of columns."""
    is_matrix: bool = False
    """Whether rows and columns are the same classes; cells are small, and their headers stay in view."""

    @property
    def is_wide(self) -> bool:
        """Whether the table takes the whole width of the page."""
        most = _MOST_NARROW_CELLS if self.is_matrix else _MOST_NARROW_COLUMNS
        return self.width == "wide" or (self.width == "" and len(self.columns) > most)


@dataclass(frozen=True)
class Card:
    """A number with its name."""

    name: str
    cell: Cell
    note: str = ""
    is_main: bool = False
    interval: str = ""
    drawing: Markup | None = None
    """The interval, drawn."""


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
    note: str = ""


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
    """Scores."""
    counts: tuple[Card, ...] = ()
    """Numbers that stand in one row below the scores."""
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
        return tuple(table for table in self.tables if table.is_wide and _leads(table))

    @property
    def wide_tables(self) -> tuple[Table, ...]:
        """The tables below them."""
        return tuple(table for table in self.tables if table.is_wide and not _leads(table))

    @property
    def has_broad_panels(self) -> bool:
        """Whether a table that stands beside charts has so many columns that it needs a broad panel."""
        return any(
            table.is_matrix or len(table.columns) > _MOST_SLIM_COLUMNS
            for table in self.narrow_tables
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not any(
            (
                self.notes,
                self.cards,
                self.counts,
                self.charts,
                self.tables,
                self.strips,
                self.pairs,
                self.facts,
            )
        )


def _leads(table: Table) -> bool:
    return table.is_matrix or table.width == "wide"


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
