"""The pages of image pairs of a comparison: what got better or worse, and what is behind each difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.analysis.changed_images import ImageChange
from pipeline.analysis.run_comparison import RunComparison
from pipeline.report.cells import Cell
from pipeline.report.comparison_drawing import ItemPair
from pipeline.report.figures import build_figure
from pipeline.report.rendering import LEGEND, render_page
from pipeline.report.views import Pair

_UNITS = {
    "class": "errors of this class",
    "error": "such errors",
    "size": "missed objects of this size",
    "cell": "in this cell",
}


@dataclass(frozen=True)
class PairPage:
    """A page of images that two runs differ on."""

    key: str
    title: str
    images: int
    """How many images differ."""
    changes: tuple[ImageChange, ...]
    """Those that may be shown, the most changed first."""
    unit: str = "errors"

    @property
    def address(self) -> str:
        """The page's path in the report's folder."""
        return f"galleries/{self.key}.html"


class PairLinks:
    """Makes cells that lead to the pages."""

    def __init__(self, pages: Iterable[PairPage]) -> None:
        self._pages = {page.key: page for page in pages}

    def find(self, kind: str, position: int) -> str | None:
        """The address of the page of a class, type of error, size or cell; None if no image differs."""
        page = self._pages.get(f"{kind}-{position}")
        return None if page is None else page.address

    def count(self, kind: str, position: int) -> Cell:
        """How many images differ, as a link to them."""
        page = self._pages.get(f"{kind}-{position}")
        if page is None:
            return Cell("0", 0.0)
        return Cell(f"{page.images:,}", page.images, page.address, page.images)


def list_pages(comparison: RunComparison) -> list[PairPage]:
    """List all pages, those of better and worse images first."""
    pages = [
        PairPage("better", "Images that got better", comparison.images_better, comparison.better),
        PairPage("worse", "Images that got worse", comparison.images_worse, comparison.worse),
    ]
    return pages + [
        PairPage(
            f"{group.kind}-{group.position}",
            f"Images that differ: {group.name}",
            group.images,
            group.largest,
            _UNITS[group.kind],
        )
        for group in comparison.changed
    ]


def choose_rows(pages: Sequence[PairPage], images: int) -> list[int]:
    """Choose the images to draw: all pages take turns until there are so many; an image counts once."""
    chosen: set[int] = set()
    longest = max((len(page.changes) for page in pages), default=0)
    for place in range(longest):
        for page in pages:
            if place < len(page.changes) and len(chosen) < images:
                chosen.add(page.changes[place].row)
    return sorted(chosen)


def build_pairs(page: PairPage, drawn: Mapping[int, ItemPair]) -> tuple[Pair, ...]:
    """The pairs of a page whose images are drawn."""
    return tuple(
        Pair(
            f"{change.first} → {change.second} {page.unit}",
            *(build_figure(item) for item in drawn[change.row]),
        )
        for change in page.changes
        if change.row in drawn
    )


def render_pages(
    pages: Sequence[PairPage], drawn: Mapping[int, ItemPair], footer: str
) -> Iterator[tuple[str, bytes]]:
    """Yield the address and the content of each page."""
    for page in pages:
        content = render_page(
            "pairs.html",
            "../",
            title=page.title,
            total=page.images,
            pairs=build_pairs(page, drawn),
            legend=LEGEND,
            footer=footer,
        )
        yield page.address, content
