"""The columns of a matches part that galleries depend on, as arrays, and what each row is at a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.analysis.image_facts import ImageFacts
from pipeline.analysis.match_outcomes import find_counted, find_objects, find_true
from pipeline.analysis.match_table import read_match_classes, read_matches
from pipeline.analysis.matching import Matches
from pipeline.analysis.side_table import SideTable
from pipeline.analysis.slices import SlicePositions, find_slices
from pipeline.report.drawing import DRAWN_COLUMNS, SMALLEST_SHOWN, THUMBNAIL_SIDE
from pipeline.report.sampling import RowReferences, hash_text

COLUMNS = ("image_id", "shard", *DRAWN_COLUMNS, "error", "covered50")
"""The columns that the arrays are built from."""


@dataclass(frozen=True)
class MatchRows:
    """N rows of a matches part, in its order."""

    matches: Matches
    """With the class ids of the part."""
    part_classes: tuple[str, ...]
    class_positions: NDArray[np.int64]
    """Position of each class of the part among the report's."""
    image_hashes: NDArray[np.uint64]
    """`(N,)` of the image_id, for sampling."""
    references: RowReferences
    """`(N, 4)`"""
    class_id: NDArray[np.int64]
    """`(N,)` position among the report's classes."""
    is_true: NDArray[np.bool_]
    """`(N,)` true detections by COCO's rule at IoU 0.5, of any score."""
    is_counted: NDArray[np.bool_]
    """`(N,)` detections that count as true or false."""
    object_area: NDArray[np.float64]
    """`(N,)` pixels of the row's object; NaN without one."""
    slices: SlicePositions
    """`(N, S)` the slice of each row by each of S attributes, -1 for none."""

    @property
    def score(self) -> NDArray[np.float32]:
        """The score of each detection, `(N,)`; NaN for objects."""
        return self.matches.score

    def is_shown(self, min_score: float) -> NDArray[np.bool_]:
        """Which detections have at least this score, `(N,)`."""
        is_shown: NDArray[np.bool_] = self.score >= np.float32(min_score)
        return is_shown

    def find_true(self, min_score: float) -> NDArray[np.bool_]:
        """Which detections with at least this score are true, `(N,)`."""
        return self.is_true & self.is_shown(min_score)

    def find_false(self, min_score: float) -> NDArray[np.bool_]:
        """Which detections with at least this score are false, `(N,)`."""
        return self.is_counted & ~self.is_true & self.is_shown(min_score)

    def find_ignored(self, min_score: float) -> NDArray[np.bool_]:
        """Which detections with at least this score count neither way, `(N,)`."""
        is_ignored = self.matches.is_detection & self.matches.is_annotated & ~self.is_counted
        return is_ignored & self.is_shown(min_score)

    def find_objects(self) -> NDArray[np.bool_]:
        """Which rows stand for an object that counts, one row for each object, `(N,)`."""
        return find_objects(self.matches)

    def find_missed(self, min_score: float) -> NDArray[np.bool_]:
        """Which rows stand for an object without a true detection of at least this score, `(N,)`."""
        return self.find_objects() & ~self.find_true(min_score)


def find_shown_whole(matches: Matches, facts: ImageFacts) -> NDArray[np.bool_]:
    """Which rows a gallery is sure to show on the whole image, `(N,)`; by the rule of `drawing.choose_crop`.

    Of a false detection the object beside it is shown too, whose size is not in its row; its longer side is
    taken as the detection's times the IoU.
    """
    places = facts.find_positions(matches.row)
    longest = np.maximum(facts.width[places], facts.height[places])
    smallest = np.full(len(matches), np.inf)
    for prefix in ("", "object_"):
        width, height = (
            getattr(matches, f"{prefix}{axis}2").astype(np.float64)
            - getattr(matches, f"{prefix}{axis}1")
            for axis in ("x", "y")
        )
        smallest = np.fmin(smallest, np.maximum(width, height))
    has_other = matches.is_detection & ~find_true(matches) & (matches.nearest_index >= 0)
    smallest[has_other] *= matches.nearest_iou[has_other]
    is_whole: NDArray[np.bool_] = smallest * THUMBNAIL_SIDE >= SMALLEST_SHOWN * longest
    return is_whole


def read_match_rows(
    table: pa.Table, classes: Sequence[str], facts: ImageFacts, side: SideTable | None = None
) -> MatchRows:
    """Turn the COLUMNS of a matches part into arrays.

    Args:
        table: the part, with its metadata.
        classes: the report's; labels that are not among them get -1.
        facts: of the part's images.
        side: a table whose columns divide the images into slices.

    Raises:
        UnreadableDataset: the part is no table of matches.
    """
    matches = read_matches(table)
    part_classes = read_match_classes(table.schema, "the part")
    position_of = {label: position for position, label in enumerate(classes)}
    class_positions = np.array([position_of.get(label, -1) for label in part_classes], np.int64)
    rows = matches.row
    starts = np.flatnonzero(np.append(True, np.diff(rows) != 0))[: len(rows)]
    counts = np.diff(np.append(starts, len(rows)))
    positions = np.arange(len(rows)) - np.repeat(starts, counts)
    first_ids = table.column("image_id").take(pa.array(starts)).to_pylist() if len(rows) else []
    hashes = np.array([hash_text(image_id) for image_id in first_ids], np.uint64)
    shards = table.column("shard").to_numpy()
    widths = matches.object_x2.astype(np.float64) - matches.object_x1
    heights = matches.object_y2.astype(np.float64) - matches.object_y1
    return MatchRows(
        matches=matches,
        part_classes=part_classes,
        class_positions=class_positions,
        image_hashes=np.repeat(hashes, counts),
        references=np.stack(
            [shards, rows, positions, find_shown_whole(matches, facts)], axis=1
        ).astype(np.int64),
        class_id=class_positions[matches.class_id],
        is_true=find_true(matches),
        is_counted=find_counted(matches),
        object_area=widths * heights,
        slices=find_slices(matches, facts, side),
    )
