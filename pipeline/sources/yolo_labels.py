"""One YOLO label file: a line per object, in shares of the image's sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.hulls import Corners, enclose_points
from pipeline.sources.scalars import read_number, read_whole
from pipeline.sources.tally import Repair

_BOX = 5
"""Columns of a box: class, centre x, centre y, width, height."""
_SMALLEST_POLYGON = 7
"""Columns of a triangle: class and three corners."""


def parse_labels(
    lines: Sequence[tuple[int, str]],
    names: Mapping[int, str],
    where: str,
    *,
    has_keypoints: bool = False,
) -> tuple[tuple[AnnotatedObject, ...], list[Repair]]:
    """Read the lines of a label file: boxes, and polygons as the box around their corners.

    A rotated box is a polygon of four corners. As Ultralytics does, a line that repeats another counts once.

    Args:
        lines: with their numbers, none blank.
        names: class names by number.
        where: the file that errors name.
        has_keypoints: a line holds keypoints behind the box, so it is no polygon.

    Returns:
        Objects with boxes from 0 to 1, not checked, and a repair for each line that is left out.

    Raises:
        UnreadableDataset: a line has another number of columns, a word that is no number, or a class that
            `names` does not have; names the line.
    """
    objects: list[AnnotatedObject] = []
    repairs: list[Repair] = []
    first: dict[tuple[str, ...], int] = {}
    for number, line in lines:
        place = f"{where}, line {number}"
        words = tuple(line.split())
        if first.setdefault(words, number) != number:
            detail = f"{place} repeats line {first[words]}"
            repairs.append(Repair("object", "listed again: left out there", detail, is_loss=True))
            continue
        class_id = read_whole(words[0], "class", place)
        if class_id not in names:
            raise UnreadableDataset(
                f"{place} is of class {class_id}, which the dataset does not have "
                f"(its classes: {_describe_numbers(names)})"
            )
        objects.append(AnnotatedObject(names[class_id], *_read_box(words, place, has_keypoints)))
    return tuple(objects), repairs


def _read_box(words: Sequence[str], place: str, has_keypoints: bool) -> Corners:
    count = len(words)
    is_polygon = not has_keypoints and count >= _SMALLEST_POLYGON and count % 2 == 1
    if count < _BOX or (count > _BOX and not is_polygon and not has_keypoints):
        hint = "; is the last one a score? Labels have none" if count == _BOX + 1 else ""
        raise UnreadableDataset(
            f"{place} has {count} columns, expected 5 (class x y width height), or the class and x y of "
            f"three or more corners{hint}"
        )
    if is_polygon:
        numbers = [read_number(word, "corner", place) for word in words[1:]]
        return enclose_points(list(zip(numbers[::2], numbers[1::2], strict=True)))
    x, y, width, height = (
        read_number(word, field, place)
        for word, field in zip(words[1:_BOX], ("x", "y", "width", "height"), strict=True)
    )
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _describe_numbers(names: Mapping[int, str]) -> str:
    numbers = list(names)
    is_range = numbers == list(range(len(numbers)))
    return f"0 to {len(numbers) - 1}" if is_range else ", ".join(map(str, numbers))[:200]
