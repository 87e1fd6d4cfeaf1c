"""The pages of duplicate images: pairs within a split and between two, by how the copies differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.inspection.near_duplicates import COPIES, NearPairs, describe_copy
from pipeline.report.cells import Cell
from pipeline.report.dataset_drawing import DatasetImage
from pipeline.report.dataset_galleries import WHOLE_IMAGE
from pipeline.report.figures import build_figure
from pipeline.report.gallery import Role
from pipeline.report.rendering import render_page
from pipeline.report.sampling import hash_text
from pipeline.report.views import Pair

PAIRS_PER_PAGE = 100
LEGEND: tuple[tuple[Role, str], ...] = (
    ("truth", "annotated object"),
    ("suspicious", "the box that the page is about, if it is suspicious"),
    ("ignored", "difficult object or crowd"),
)


@dataclass(frozen=True)
class DuplicatePage:
    """A page of pairs."""

    key: str
    title: str
    total: int
    rows: tuple[int, ...]
    """Which of all pairs may be shown, the least similar first."""

    @property
    def address(self) -> str:
        """The page's path in the report's folder."""
        return f"galleries/{self.key}.html"

    @property
    def cell(self) -> Cell:
        """The number of pairs, as a link to the page."""
        return Cell(f"{self.total:,}", self.total, self.address, self.total)


def list_duplicate_pages(
    pairs: NearPairs, first_numbers: Sequence[int], names: Sequence[str], seed: int
) -> dict[str, DuplicatePage]:
    """All pages that have a pair, by key.

    Args:
        pairs: the near duplicates of all splits.
        first_numbers: number of each split's first image.
        names: of the splits.
        seed: of the samples.
    """
    split_of = [
        np.searchsorted(first_numbers, numbers, side="right") - 1
        for numbers in (pairs.first, pairs.second)
    ]
    copies = np.array([COPIES.index(describe_copy(view)) for view in pairs.view.tolist()], int)
    pages = {}
    for a, name in enumerate(names):
        for b in range(a, len(names)):
            where = f"within {name}" if a == b else f"{name} and {names[b]}"
            is_here = (split_of[0] == a) & (split_of[1] == b)
            choices = [(name_page(a, b), f"Duplicates: {where}", is_here)]
            choices += [
                (name_page(a, b, kind), f"Duplicates, {copy}: {where}", is_here & (copies == kind))
                for kind, copy in enumerate(COPIES)
            ]
            for key, title, is_chosen in choices:
                if is_chosen.any():
                    pages[key] = _build_page(key, title, np.flatnonzero(is_chosen), pairs, seed)
    return pages


def name_page(first: int, second: int, kind: int | None = None) -> str:
    """The key of the page of two splits and, of these, of one of `COPIES`."""
    return f"pairs-{first}-{second}" + ("" if kind is None else f"-{kind}")


def _build_page(
    key: str, title: str, rows: np.ndarray, pairs: NearPairs, seed: int
) -> DuplicatePage:
    """A page with a seeded sample of the pairs."""
    ranked = sorted(
        rows.tolist(), key=lambda row: hash_text(f"{seed}/{pairs.first[row]}/{pairs.second[row]}")
    )
    chosen = sorted(ranked[:PAIRS_PER_PAGE], key=lambda row: (float(pairs.similarity[row]), row))
    return DuplicatePage(key, title, len(rows), tuple(chosen))


def choose_pairs(pages: Iterable[DuplicatePage], pairs: NearPairs, images: int) -> set[int]:
    """Choose the pairs to draw: pages take turns until there are so many images."""
    chosen: set[int] = set()
    numbers: set[int] = set()
    listed = list(pages)
    for place in range(PAIRS_PER_PAGE):
        for page in listed:
            if place < len(page.rows):
                row = page.rows[place]
                more = {int(pairs.first[row]), int(pairs.second[row])} | numbers
                if len(more) <= images:
                    chosen.add(row)
                    numbers = more
    return chosen


def build_pairs(
    page: DuplicatePage, pairs: NearPairs, chosen: set[int], drawn: Mapping[int, DatasetImage]
) -> tuple[Pair, ...]:
    """The pairs of a page that are drawn."""
    shown = []
    for row in page.rows:
        if row not in chosen:
            continue
        figures = [
            build_figure(drawn[int(number)].build_item(WHOLE_IMAGE, is_suspicious=False))
            for number in (pairs.first[row], pairs.second[row])
        ]
        title = describe_copy(int(pairs.view[row]))
        if pairs.view[row] >= 0:
            title += f", similarity {pairs.similarity[row]:.2f}"
        shown.append(Pair(title, *figures))
    return tuple(shown)


def render_duplicate_pages(
    pages: Mapping[str, DuplicatePage],
    pairs: NearPairs,
    chosen: set[int],
    drawn: Mapping[int, DatasetImage],
    footer: str,
) -> Iterator[tuple[str, bytes]]:
    """Yield the address and the content of each page."""
    for page in pages.values():
        content = render_page(
            "duplicates.html",
            "../",
            title=page.title,
            lead="Similarity is the correlation of small grey copies, after the view in which they agree.",
            total=page.total,
            pairs=build_pairs(page, pairs, chosen, drawn),
            legend=LEGEND,
            footer=footer,
        )
        yield page.address, content
