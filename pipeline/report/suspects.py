"""The galleries of likely annotation errors, which the metrics list with their boxes."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.report.collecting import GallerySample
from pipeline.report.gallery import DrawnBox
from pipeline.report.sampling import Sample
from pipeline.shards import Shard

KINDS = {
    "missing": ("objects without annotation", "A confident detection where nothing is annotated."),
    "label": ("wrong labels", "An object that a confident detection gives another label."),
    "box": ("badly placed boxes", "An object whose confident detection has another box."),
    "spurious": ("annotations of nothing", "An object that no detection supports."),
}
"""Titles and meanings of the kinds of likely annotation errors."""

FIRST_POSITION = -2
"""Positions of listed boxes in their image count down from here; those of matches count up from 0."""


@dataclass(frozen=True)
class ListedBoxes:
    """Boxes that a gallery shows though they are no row of the matches."""

    boxes: tuple[DrawnBox, ...]
    note: str


ListedByPlace = Mapping[tuple[int, int], ListedBoxes]
"""By the image's row in the manifest and the position in it."""


def list_suspects(
    errors: Mapping[str, Any] | None, shards: Sequence[Shard]
) -> tuple[list[GallerySample], dict[tuple[int, int], ListedBoxes]]:
    """List the galleries of likely annotation errors, the most suspected first, and their boxes.

    Args:
        errors: `annotation_errors` of metrics.json.
        shards: of the matches.
    """
    if not errors:
        return [], {}
    starts = [shard.first_row for shard in shards]
    positions: Counter[int] = Counter()
    boxes: dict[tuple[int, int], ListedBoxes] = {}
    references: dict[str, list[tuple[int, int, int, int]]] = {kind: [] for kind in KINDS}
    for error in errors.get("errors") or ():
        row = int(error["row"])
        place = bisect_right(starts, row) - 1
        if place < 0 or error["kind"] not in references:
            continue
        position = FIRST_POSITION - positions[row]
        positions[row] += 1
        boxes[row, position] = _read_boxes(error)
        references[error["kind"]].append((shards[place].ordinal, row, position, 0))
    samples = [
        GallerySample(
            f"suspect-{kind}",
            title,
            "boxes",
            f"{meaning} The most suspected are shown first.",
            4,
            Sample(int(errors["totals"].get(kind, 0)), np.array(references[kind], np.int64)),
            is_ranked=True,
        )
        for kind, (title, meaning) in KINDS.items()
        if references[kind]
    ]
    return samples, boxes


def _read_boxes(error: Mapping[str, Any]) -> ListedBoxes:
    boxes = []
    if error["kind"] != "missing":
        x1, y1, x2, y2 = error["box"]
        boxes.append(DrawnBox("missed", error["label"], x1, y1, x2, y2, is_focus=True))
    if error["suggested_box"] is not None:
        label = error["suggested_label"] or error["label"]
        x1, y1, x2, y2 = error["suggested_box"]
        score, iou = error["score"], error["iou"]
        boxes.append(DrawnBox("false", label, x1, y1, x2, y2, score, iou, is_focus=True))
    label = "" if error["kind"] == "missing" else f"annotated as {error['label']}; "
    return ListedBoxes(tuple(boxes), f"{label}suspicion {error['suspicion']:.2f}")
