"""The galleries of slices: of objects, of images, and by the columns of a side table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.report.match_rows import MatchRows
from pipeline.report.plan import Categories, Category, GalleryPlan, Split

OUTCOMES = ("true", "false", "missed")
_UNITS = ("detections", "detections", "objects")
_ITEMS_OF_A_SLICE = 36


def name_slice(attribute: int, position: int, outcome: str) -> str:
    """The key of the gallery of a slice's detections or objects."""
    return f"slice-{attribute}-{position}-{outcome}"


@dataclass(frozen=True)
class _AssignSlice:
    """Assigns rows to the slices of one attribute, and within a slice by outcome."""

    attribute: int

    def __call__(self, rows: MatchRows, plan: GalleryPlan) -> Categories:
        positions = rows.slices[:, self.attribute].astype(np.int64)
        outcomes = np.full(len(positions), -1)
        for outcome, find in enumerate((rows.find_true, rows.find_false, rows.find_missed)):
            outcomes[find(plan.min_score)] = outcome
        is_counted = (positions >= 0) & (outcomes >= 0)
        return np.where(is_counted, len(OUTCOMES) * positions + outcomes, -1)


def build_slice_splits(plan: GalleryPlan) -> list[Split]:
    """One split for each attribute."""
    return [
        Split(
            f"slice-{index}",
            tuple(
                Category(
                    name_slice(index, position, outcome),
                    f"{attribute.name} {name}: {outcome} {unit}",
                    unit,
                    f"A slice by {attribute.name}.",
                )
                for position, name in enumerate(attribute.slices)
                for outcome, unit in zip(OUTCOMES, _UNITS, strict=True)
            ),
            _AssignSlice(index),
            is_by_class=False,
            capacity=_ITEMS_OF_A_SLICE,
        )
        for index, attribute in enumerate(plan.attributes)
    ]
