"""Boxes of another tool's file, repaired for the images of a manifest: clipped or dropped, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry, uris
from pipeline.box_repair import repair_boxes
from pipeline.errors import MismatchedProposals
from pipeline.manifests import ROW_GROUP, Manifest
from pipeline.option_ranges import check_fields
from pipeline.untrusted.proposal_files import ImageProposals

MAX_OVERHANG = 1.0
"""Pixels by which a box may reach beyond its image without being counted: some tools count both ends."""


@dataclass(frozen=True)
class BoxLimits:
    """How many boxes of a file may be dropped or clipped."""

    max_invalid: float = 0.05
    """Share of the boxes."""
    strict: bool = False
    """Allow none."""

    def __post_init__(self) -> None:
        check_fields(self, "max_invalid", at_least=0, at_most=1)


@dataclass
class BoxRepairs:
    """What was done to the boxes of a file."""

    boxes: int = 0
    """Boxes before repairs."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Repaired boxes by what was done and why, such as `dropped: no area`."""
    first: str | None = None
    """The first repaired box, and its image."""

    @property
    def repaired(self) -> int:
        """Boxes that were dropped or clipped."""
        return self.outcomes.total()

    def describe(self) -> str:
        """What was repaired, such as `3 boxes dropped: no area, 1 box clipped to the image`."""
        return ", ".join(
            f"{number} {'box' if number == 1 else 'boxes'} {outcome}"
            for outcome, number in sorted(self.outcomes.items())
        )

    def check(self, uri: str, limits: BoxLimits) -> None:
        """Reject a file with more repaired boxes than the limits allow.

        Raises:
            MismatchedProposals: names the file, the counts and the first box.
        """
        if self.repaired > (0 if limits.strict else limits.max_invalid * self.boxes):
            allowed = (
                "--strict allows none" if limits.strict else f"{limits.max_invalid:.0%} may be"
            )
            is_elsewhere = any("image" in outcome for outcome in self.outcomes)
            question = ": were the boxes made at another size?" if is_elsewhere else ""
            raise MismatchedProposals(
                f"{uris.redact_uri(uri)}: {self.describe()} of {self.boxes}, and {allowed}; the first is "
                f"{self.first}{question} (--max-invalid or --skip-invalid allows more)"
            )


def repair_proposals(
    manifest: Manifest, proposals: Mapping[str, ImageProposals]
) -> tuple[dict[str, NDArray[np.float32]], BoxRepairs]:
    """Clip the boxes of the manifest's images to them, and drop those with nothing left or without a score.

    Args:
        manifest: the images; each has proposals.
        proposals: by image_id.

    Returns:
        float32 boxes `(N, 4)` by image_id, in their order, and what was repaired.
    """
    repairs = BoxRepairs()
    boxes_by_image: dict[str, NDArray[np.float32]] = {}
    for first in range(0, manifest.rows, ROW_GROUP):
        for row in manifest.read(first, ROW_GROUP, ["image_id", "width", "height"]).to_pylist():
            boxes_by_image[row["image_id"]] = _repair_image(
                proposals[row["image_id"]], row, repairs
            )
    return boxes_by_image, repairs


def _repair_image(
    image: ImageProposals, row: Mapping[str, Any], repairs: BoxRepairs
) -> NDArray[np.float32]:
    width, height = (np.inf if row[side] is None else row[side] for side in ("width", "height"))
    has_score = np.ones(len(image.boxes), np.bool_)
    if image.scores is not None:
        has_score = ~np.isnan(image.scores)
    repairs.boxes += len(image.boxes)
    if has_score.all() and _are_inside(image.boxes, width, height):
        return image.boxes
    repaired = repair_boxes(image.boxes, width, height)
    overhang = np.abs(repaired.boxes - image.boxes).max(axis=1, initial=0) > MAX_OVERHANG
    is_usable = repaired.kept & has_score
    size = "of unknown size" if row["width"] is None else f"{row['width']}x{row['height']}"
    for index in np.flatnonzero(~is_usable | overhang):
        fault = repaired.faults[index] if has_score[index] else "no score"
        outcome = "clipped to the image" if is_usable[index] else f"dropped: {fault}"
        repairs.outcomes[outcome] += 1
        corners = ", ".join(f"{corner:g}" for corner in image.boxes[index])
        repairs.first = repairs.first or f"({corners}) of image {image.image_id!r}, which is {size}"
    return repaired.boxes[is_usable]


def _are_inside(boxes: NDArray[np.float32], width: float, height: float) -> bool:
    """Whether no box needs a repair; NaN is outside."""
    return bool(
        geometry.is_nonempty(boxes).all()
        and (boxes[:, :2] >= 0).all()
        and (boxes[:, 2] <= width).all()
        and (boxes[:, 3] <= height).all()
        and np.isfinite(boxes).all()
    )
