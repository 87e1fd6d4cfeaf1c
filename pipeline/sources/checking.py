"""Checks that all sources share: objects against the classes and the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.box_repair import repair_boxes
from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.scalars import read_number
from pipeline.sources.tally import Repair

_CLEAR_SIDE, _CLEAR_SIZE = 0.0625, 1 << 16
"""Pixels: a box at least so wide, in an image at most so large, has an area in float32 too."""
LARGEST_SIDE = 2**31
"""An annotated width or height from this value on is invalid and counts as missing."""


def clip_objects(
    objects: Sequence[AnnotatedObject], width: int, height: int, where: str
) -> tuple[tuple[AnnotatedObject, ...], list[Repair]]:
    """Clip objects to their image, and drop those that have no box in it.

    Args:
        objects: the annotated objects, with half-open boxes in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.
        where: the file that the repairs name.

    Returns:
        The objects that stay, and one repair for each box that was dropped or clipped.
    """
    if _are_clearly_inside(
        objects, width, height
    ):  # nearly all images: the rest costs ten times as much
        return tuple(objects), []
    repaired = repair_boxes(stack_boxes(objects), width, height)
    inside: list[AnnotatedObject] = []
    repairs: list[Repair] = []
    for index, (item, fault) in enumerate(zip(objects, repaired.faults, strict=True)):
        if fault is None:
            x1, y1, x2, y2 = repaired.boxes[index].tolist()
            inside.append(replace(item, x1=x1, y1=y1, x2=x2, y2=y2))
            if repaired.clipped[index]:
                repairs.append(Repair("box", "clipped to the image", f"{where}, object {index}"))
        else:
            detail = f"{where}: the box of object {index} ({item.label}) has the corners " + (
                f"x1={item.x1:g} y1={item.y1:g} x2={item.x2:g} y2={item.y2:g}, counted from 0 and half "
                f"open, in an image of {width}x{height}"
            )
            repairs.append(Repair("box", f"dropped: {fault}", detail, is_loss=True))
    return tuple(inside), repairs


def _are_clearly_inside(objects: Sequence[AnnotatedObject], width: int, height: int) -> bool:
    return max(width, height) <= _CLEAR_SIZE and all(
        item.x1 >= 0
        and item.y1 >= 0
        and item.x2 - item.x1 > _CLEAR_SIDE
        and item.y2 - item.y1 > _CLEAR_SIDE
        and item.x2 <= width
        and item.y2 <= height
        for item in objects
    )


def read_side(value: Any) -> int:
    """An annotated width or height; 0 if it is missing or invalid, so that the image's header decides."""
    try:
        side = read_number(value, "", "")
    except UnreadableDataset:
        return 0
    return round(side) if 0 < side < LARGEST_SIDE else 0


def stack_boxes(objects: Sequence[AnnotatedObject]) -> NDArray[np.float64]:
    """The boxes of objects as float64 `(N, 4)`."""
    return np.array([[o.x1, o.y1, o.x2, o.y2] for o in objects], np.float64).reshape(-1, 4)


def check_labels(objects: Sequence[AnnotatedObject], classes: frozenset[str], where: str) -> None:
    """Reject an object of a class that the dataset does not have.

    Raises:
        UnreadableDataset: a label is not among `classes`.
    """
    for index, item in enumerate(objects):
        if item.label not in classes:
            raise UnreadableDataset(
                f"{where}: object {index} is of class {item.label!r}, "
                f"which is not among the classes {', '.join(sorted(classes))}"
            )


def extends_beyond(objects: Sequence[AnnotatedObject], width: float, height: float) -> bool:
    """Whether a box ends right of or below the image; if so, the annotated image size may be wrong."""
    return any(item.x2 > width or item.y2 > height for item in objects)
