"""The hull box of a COCO segmentation, for annotations that have no box: polygons or run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from pipeline.errors import UnreadableDataset
from pipeline.sources.scalars import read_number

XYWH = tuple[float, float, float, float]

_FEWEST_COORDINATES = 6
"""A polygon has at least three corners."""


def compute_hull(segmentation: Any, where: str) -> XYWH:
    """The box x, y, width, height around a segmentation, in pixels.

    Args:
        segmentation: polygons `[[x, y, x, y, ...], ...]`, or run lengths `{"size": [height, width], "counts":
            ...}` by column, with counts as a list or in COCO's compressed text.
        where: the annotation that errors name.

    Raises:
        UnreadableDataset: it is neither, or shows no pixel.
    """
    if isinstance(segmentation, dict):
        return _hull_of_runs(segmentation, where)
    if not isinstance(segmentation, list) or not segmentation:
        raise UnreadableDataset(
            f"{where}: field segmentation is {segmentation!r:.60}, expected polygons or run lengths"
        )
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        if (
            not isinstance(polygon, list)
            or len(polygon) < _FEWEST_COORDINATES
            or len(polygon) % 2 != 0
        ):
            raise UnreadableDataset(
                f"{where}: field segmentation holds {polygon!r:.60}, "
                "expected x and y of three or more corners"
            )
        numbers = [read_number(value, "segmentation", where) for value in polygon]
        xs += numbers[::2]
        ys += numbers[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _hull_of_runs(segmentation: dict[str, Any], where: str) -> XYWH:
    counts, size = segmentation.get("counts"), segmentation.get("size")
    runs = _decode_runs(counts) if isinstance(counts, str) else counts
    size = size if isinstance(size, list) and len(size) == 2 else []
    runs = runs if isinstance(runs, list) else []
    is_valid = all(type(value) is int and value >= 0 for value in [*size, *runs])
    if not (is_valid and size and any(runs[1::2]) and sum(runs) == size[0] * size[1]):
        raise UnreadableDataset(
            f"{where}: field segmentation holds no valid run lengths, or none that show a pixel"
        )
    height = size[0]
    columns: list[int] = []
    rows: list[int] = []
    ends = list(accumulate(runs))
    for start, stop in zip(ends[0::2], ends[1::2], strict=False):
        if start == stop:
            continue
        columns += [start // height, (stop - 1) // height]
        is_one_column = columns[-1] == columns[-2]
        rows += [start % height, (stop - 1) % height] if is_one_column else [0, height - 1]
    left, top = min(columns), min(rows)
    return left, top, max(columns) + 1 - left, max(rows) + 1 - top


def _decode_runs(text: str) -> list[int]:
    """Run lengths from COCO's text: groups of 5 bits, and from the fourth on differences to two before."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if shift > 60 or not 0 <= bits < 64:
            return []
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return runs


def has_segmentation(segmentation: Any) -> bool:
    """Whether an annotation has a segmentation at all; COCO writes an empty list for none."""
    return isinstance(segmentation, Sequence | dict) and len(segmentation) > 0
