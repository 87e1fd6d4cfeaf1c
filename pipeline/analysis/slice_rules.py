"""How objects, detections and images are divided into slices by their boxes and sizes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.match_outcomes import find_true
from pipeline.analysis.matching import Matches
from pipeline.analysis.object_sizes import SIZES, classify_sizes

ASPECTS = ("tall", "square", "wide")
"""Width over height: up to 0.75, up to 1.33, and above (the limits of tidecv)."""
BORDERS = ("inside", "at the border")
"""Whether a box comes within 2 pixels of the border of its image, so that its object may be truncated."""
CROWDEDNESS = ("alone", "near others", "crowded")
"""The highest IoU of an object with another of its image, of any label: 0, under 0.2, and from 0.2."""
IMAGE_SIZES = ("up to 0.2 MP", "0.2-0.5 MP", "0.5-1 MP", "1-4 MP", "above 4 MP")

_BORDER_PIXELS = 2.0
_ASPECT_LIMITS = np.array([0.75, 1.33])
_CROWDED_FROM = 0.2
_PIXEL_LIMITS = np.array([0.2e6, 0.5e6, 1e6, 4e6])


class Boxes(NamedTuple):
    """Corners of boxes, each `(N,)` in pixels."""

    x1: NDArray[np.float64]
    y1: NDArray[np.float64]
    x2: NDArray[np.float64]
    y2: NDArray[np.float64]


def select_boxes(matches: Matches) -> Boxes:
    """Return the box by which each row belongs to slices.

    It is the object's, in the row of a true detection too; of other detections it is their own. So a
    detection that is false or ignored belongs to the slice of its own box, as in COCO's ranges of area.
    """
    is_object = find_true(matches) | ~matches.is_detection
    return Boxes(
        *(
            np.where(
                is_object, getattr(matches, f"object_{corner}"), getattr(matches, corner)
            ).astype(np.float64)
            for corner in Boxes._fields
        )
    )


def slice_by_size(boxes: Boxes) -> NDArray[np.int64]:
    """Return positions in SIZES."""
    assert len(SIZES) == 3
    return classify_sizes((boxes.x2 - boxes.x1) * (boxes.y2 - boxes.y1))


def slice_by_aspect(boxes: Boxes) -> NDArray[np.int64]:
    """Return positions in ASPECTS."""
    height = np.maximum(boxes.y2 - boxes.y1, 1e-9)
    return np.searchsorted(_ASPECT_LIMITS, (boxes.x2 - boxes.x1) / height)


def slice_by_border(
    boxes: Boxes, width: NDArray[np.float64], height: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return positions in BORDERS from the sizes of the boxes' images; -1 where they are unknown."""
    is_near = (boxes.x1 <= _BORDER_PIXELS) | (boxes.y1 <= _BORDER_PIXELS)
    is_near |= (boxes.x2 >= width - _BORDER_PIXELS) | (boxes.y2 >= height - _BORDER_PIXELS)
    return np.where(np.isnan(width + height), -1, is_near.astype(np.int64))


def slice_by_image_size(
    width: NDArray[np.float64], height: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return positions in IMAGE_SIZES; -1 where the size is unknown."""
    pixels = width * height
    return np.where(np.isnan(pixels), -1, np.searchsorted(_PIXEL_LIMITS, pixels))


def slice_by_crowdedness(image: NDArray[np.int64], boxes: Boxes) -> NDArray[np.int64]:
    """Return positions in CROWDEDNESS of objects, from their images `(N,)`, rising, and their boxes."""
    highest = find_highest_overlaps(image, boxes)
    return (highest > 0).astype(np.int64) + (highest >= _CROWDED_FROM)


def find_highest_overlaps(image: NDArray[np.int64], boxes: Boxes) -> NDArray[np.float64]:
    """Return each box's highest IoU with another box of its image; `image` `(N,)` rises.

    Boxes are compared with those 1, 2, 3 ... places behind them, as long as any image has so many.
    """
    highest = np.zeros(len(image))
    corners = np.stack(boxes, axis=1)
    areas = (boxes.x2 - boxes.x1) * (boxes.y2 - boxes.y1)
    first = np.arange(len(image))
    for distance in range(1, len(image)):
        first = first[first + distance < len(image)]
        first = first[image[first] == image[first + distance]]
        if not len(first):
            break
        second = first + distance
        a, b = corners[first], corners[second]
        sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
        inner = sides.prod(axis=1)
        union = areas[first] + areas[second] - inner
        iou = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
        np.maximum.at(highest, first, iou)
        np.maximum.at(highest, second, iou)
    return highest
