"""Numbers of the report as cells: a text, a value to sort by, and the page of the images behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.gallery import Gallery


@dataclass(frozen=True)
class Cell:
    """One number."""

    text: str
    value: float | None = None
    """To sort by; None sorts last."""
    href: str | None = None
    """Relative to the report's folder."""
    count: int | None = None
    """The total of the page at `href`, if the number is that total."""
    title: str = ""
    """Further text, such as an interval."""
    heat: int = 0
    """Strength of the background, 0 to 9."""
    is_error: bool = False
    """Whether the background has the colour of errors."""


EMPTY = Cell("–")


class Links:
    """Makes cells that lead to galleries."""

    def __init__(self, galleries: Mapping[str, Gallery]) -> None:
        self._galleries = galleries

    def count(self, key: str) -> Cell:
        """The count of a gallery, as a link to it; 0 without a link if there is no such gallery."""
        gallery = self._galleries.get(key)
        if gallery is None:
            return Cell("0", 0.0)
        total = gallery.total
        return Cell(f"{total:,}", float(total), gallery.address, total)

    def get_total(self, key: str) -> int:
        """The count of a gallery, 0 if there is no such gallery."""
        gallery = self._galleries.get(key)
        return 0 if gallery is None else gallery.total

    def find(self, *keys: str) -> str | None:
        """The address of the first of some galleries that exists."""
        for key in keys:
            if key in self._galleries:
                return self._galleries[key].address
        return None


def format_share(value: Any, href: str | None = None) -> Cell:
    """A share or score of three decimals; `value` may be a number, an estimate with an interval, or None."""
    number, low, high = read_estimate(value)
    if number is None:
        return EMPTY
    title = "" if low is None or high is None else f"95 % interval {low:.3f} to {high:.3f}"
    return Cell(f"{number:.3f}", number, href, title=title)


def read_estimate(value: Any) -> tuple[float | None, float | None, float | None]:
    """Value, low and high of a number or of an `analysis.estimate.Estimate` as JSON."""
    if isinstance(value, Mapping):
        number, low, high = (_read_number(value.get(name)) for name in ("value", "low", "high"))
        return number, low, high
    return _read_number(value), None, None


def _read_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def format_count(value: Any) -> Cell:
    """A count without a page."""
    number = _read_number(value)
    return EMPTY if number is None else Cell(f"{number:,.0f}", number)
