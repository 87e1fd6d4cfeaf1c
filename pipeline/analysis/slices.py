"""Recall, precision and AP50 by slices: of objects, of images, and by the columns of a side table.

An object belongs to the slices of its box and of its image. A true detection belongs to its object's
slices; any other belongs to those of its own box, as in COCO's ranges of area. Recall and precision count
detections of at least a score; true and ignored are COCO's rule at IoU 0.5. AP50 is COCO's over the slice's
objects and detections, with the mean over classes that have objects in the slice, and scores compared with
9 bits of precision (`score_levels.COARSE`). Slices of crowdedness are defined for objects only, so they
have recall alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.analysis.estimate import UNDEFINED, Estimate, divide
from pipeline.analysis.image_facts import ImageFacts
from pipeline.analysis.match_outcomes import find_counted, find_objects, find_true
from pipeline.analysis.matching import Matches
from pipeline.analysis.object_sizes import SIZES
from pipeline.analysis.score_levels import COARSE, LevelCounts, compute_average_precision
from pipeline.analysis.side_table import SideTable
from pipeline.analysis.slice_rules import (
    ASPECTS,
    BORDERS,
    CROWDEDNESS,
    IMAGE_SIZES,
    Boxes,
    select_boxes,
    slice_by_aspect,
    slice_by_border,
    slice_by_crowdedness,
    slice_by_image_size,
    slice_by_size,
)

if TYPE_CHECKING:
    from pipeline.analysis.resampling import Resampler

SlicePositions = NDArray[np.int16]
"""`(R, S)` the slice of each row of matches by each of S attributes, -1 for none."""

_OBJECTS_ONLY = "crowdedness"


@dataclass(frozen=True)
class Attribute:
    """What slices are made by, such as the aspect."""

    name: str
    slices: tuple[str, ...]
    is_of_side_table: bool = False


@dataclass(frozen=True)
class SliceFigures:
    """The figures of one slice."""

    name: str
    objects: int
    """Objects that count: neither difficult nor crowds."""
    recall: Estimate
    true: int
    """True detections of at least the score."""
    false: int | None
    """False ones; None if false detections belong to no slice."""
    precision: Estimate
    ap50: float | None
    """None without objects, or if false detections belong to no slice."""


@dataclass(frozen=True)
class AttributeSlices:
    """All slices by one attribute."""

    attribute: str
    is_of_side_table: bool
    slices: tuple[SliceFigures, ...]
    """Those with objects or detections."""


@dataclass(frozen=True)
class Slices:
    """Figures by all attributes."""

    score: float
    """The lowest score that counts for recall and precision."""
    attributes: tuple[AttributeSlices, ...]


def list_attributes(side: SideTable | None = None) -> tuple[Attribute, ...]:
    """Return the attributes, first those of boxes and images, then the side table's columns."""
    own = (
        Attribute("size", SIZES),
        Attribute("aspect", ASPECTS),
        Attribute("border", BORDERS),
        Attribute(_OBJECTS_ONLY, CROWDEDNESS),
        Attribute("image size", IMAGE_SIZES),
    )
    if side is None:
        return own
    return (*own, *(Attribute(name, c.names, True) for name, c in side.columns.items()))


def find_slices(
    matches: Matches, facts: ImageFacts, side: SideTable | None = None
) -> SlicePositions:
    """Find the slices of the rows of whole images, by `list_attributes(side)`.

    Args:
        matches: in the order of the manifest.
        facts: of all images that have matches, and maybe others.
        side: the side table.
    """
    positions = facts.find_positions(matches.row)
    boxes = select_boxes(matches)
    width, height = facts.width[positions], facts.height[positions]
    crowdedness = np.full(len(matches), -1)
    is_object = find_true(matches) | ~matches.is_detection
    crowdedness[is_object] = slice_by_crowdedness(
        matches.row[is_object], Boxes(*(corner[is_object] for corner in boxes))
    )
    columns = [
        slice_by_size(boxes),
        slice_by_aspect(boxes),
        slice_by_border(boxes, width, height),
        crowdedness,
        slice_by_image_size(width, height),
    ]
    if side is not None:
        columns += [values[positions] for values in side.find_slices(facts.image_ids).values()]
    return np.stack(columns, axis=1).astype(np.int16)


_TRUE, _FALSE = 1, 2  # the flags of score levels


class SliceCounts:
    """Accepts matches in any order and grouping of whole images; the score is chosen at the end.

    Args:
        classes: the labels, in the order of `class_id`.
        attributes: as `list_attributes` returns them.
    """

    def __init__(self, classes: Sequence[str], attributes: Sequence[Attribute]) -> None:
        self.classes = tuple(classes)
        self.attributes = tuple(attributes)
        self._starts = np.cumsum([0, *(len(attribute.slices) for attribute in attributes)])
        self._levels = LevelCounts(2, COARSE)
        self._objects = np.zeros((int(self._starts[-1]), len(classes)), np.int64)

    def update(self, matches: Matches, positions: SlicePositions) -> None:
        """Add the matches of some images and their slices, as `find_slices` returns them."""
        is_true, is_counted = find_true(matches), find_counted(matches)
        is_object = find_objects(matches)
        flags = np.where(is_true, _TRUE, _FALSE)
        for start, column in zip(self._starts, positions.T, strict=False):
            group = (start + column.astype(np.int64)) * len(self.classes) + matches.class_id
            has_slice = column >= 0
            rows = is_counted & has_slice
            self._levels.update(group[rows], matches.score[rows], flags[rows])
            objects = group[is_object & has_slice]
            self._objects += np.bincount(objects, minlength=self._objects.size).reshape(
                self._objects.shape
            )

    def merge(self, other: SliceCounts) -> None:
        """Add the counts of other images."""
        self._levels.merge(other._levels)
        self._objects += other._objects

    def compute(self, score: float, resampler: Resampler | None = None) -> Slices:
        """Compute the figures; recall and precision count detections of at least a score.

        Args:
            score: the lowest of its level of `score_levels.COARSE`.
            resampler: gives the rates their intervals.
        """
        groups, sums = self._levels.sum_groups(score)
        counts = np.zeros((len(self._objects), 3), np.int64)  # true, false, objects
        np.add.at(counts[:, :2], groups // max(len(self.classes), 1), sums)
        counts[:, 2] = self._objects.sum(axis=1)
        rates = self._estimate(counts, score, resampler)
        aps = self._score_slices()
        return Slices(
            score,
            tuple(
                AttributeSlices(
                    attribute.name,
                    attribute.is_of_side_table,
                    tuple(
                        _build_slice(attribute, name, counts[k], rates[k], aps[k])
                        for k, name in enumerate(attribute.slices, start=int(start))
                        if counts[k].any()
                    ),
                )
                for start, attribute in zip(self._starts, self.attributes, strict=False)
            ),
        )

    def _score_slices(self) -> list[float | None]:
        """AP50 of each slice."""
        by_slice: list[list[float]] = [[] for _ in self._objects]
        for index, objects in enumerate(self._objects):
            for class_id in np.flatnonzero(objects):
                curve = self._levels.cumulate(index * len(self.classes) + int(class_id))
                true, false = curve.counts.T
                by_slice[index].append(
                    compute_average_precision(true, false, int(objects[class_id]))
                )
        return [float(np.mean(aps)) if aps else None for aps in by_slice]

    def _estimate(
        self, counts: NDArray[np.int64], score: float, resampler: Resampler | None
    ) -> list[tuple[Estimate, Estimate]]:
        """Recall and precision of each slice."""
        true, false, objects = counts.T
        if resampler is None:
            return [(divide(t, n), divide(t, t + f)) for t, f, n in counts]
        matches, positions = resampler.matches, resampler.slices
        is_above = find_counted(matches) & (matches.score >= np.float32(score))
        is_true, is_object = find_true(matches), find_objects(matches)
        flags = np.stack([is_above & is_true, is_above & ~is_true, is_object], axis=1)
        has_slice = (positions >= 0) & (is_above | is_object)[:, None]
        rows, columns = np.nonzero(has_slice)
        drawn = resampler.resample_sums(
            self._starts[columns] + positions[rows, columns],
            resampler.image[rows],
            flags[rows],
            len(counts),
        )
        recall = resampler.summarize_ratios(true, objects, drawn[0], drawn[2])
        precision = resampler.summarize_ratios(true, true + false, drawn[0], drawn[0] + drawn[1])
        return list(zip(recall, precision, strict=True))


def _build_slice(
    attribute: Attribute,
    name: str,
    counts: NDArray[np.int64],
    rates: tuple[Estimate, Estimate],
    ap50: float | None,
) -> SliceFigures:
    true, false, objects = (int(count) for count in counts)
    recall, precision = rates
    if attribute.name == _OBJECTS_ONLY and not attribute.is_of_side_table:
        return SliceFigures(name, objects, recall, true, None, UNDEFINED, None)
    return SliceFigures(name, objects, recall, true, false, precision, ap50)


def build_slice_table(slices: Slices) -> pa.Table:
    """One row per attribute and slice."""
    rows = [
        {
            "attribute": group.attribute,
            "slice": row.name,
            "objects": row.objects,
            "true": row.true,
            "false": row.false,
            **{
                name + end: getattr(getattr(row, name), part)
                for name in ("recall", "precision")
                for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
            },
            "ap50": row.ap50,
        }
        for group in slices.attributes
        for row in group.slices
    ]
    rates = [name + end for name in ("recall", "precision") for end in ("", "_low", "_high")]
    return pa.Table.from_pylist(
        rows,
        pa.schema(
            [
                ("attribute", pa.string()),
                ("slice", pa.string()),
                *((name, pa.int64()) for name in ("objects", "true", "false")),
                *((name, pa.float64()) for name in (*rates, "ap50")),
            ]
        ),
    )
