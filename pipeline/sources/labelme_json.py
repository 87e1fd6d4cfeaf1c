"""One LabelMe annotation: JSON to objects with half-open boxes in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UnreadableDataset
from pipeline.json_reader import InvalidJson, parse_json
from pipeline.manifests import AnnotatedObject
from pipeline.sources.checking import read_side
from pipeline.sources.hulls import Corners, enclose_ellipse, enclose_points
from pipeline.sources.scalars import check_text, is_absent, read_id, read_number
from pipeline.sources.shape_flags import read_shape_flags
from pipeline.sources.tally import Repair

_WITHOUT_AREA = frozenset({"point", "points", "line", "linestrip"})

Point = tuple[float, float]


@dataclass(frozen=True)
class LabelmeAnnotation:
    """The content of one JSON file. A missing size is 0; boxes are not checked."""

    image_path: str | None
    width: int
    height: int
    objects: tuple[AnnotatedObject, ...]
    repairs: tuple[Repair, ...] = ()


def parse_labelme(data: bytes, where: str) -> LabelmeAnnotation | None:
    """Parse an annotation; None if the JSON is of another kind.

    Rectangles, polygons, oriented rectangles, circles and masks become the upright box around them, and
    shapes of one label and one `group_id` one object, as LabelMe itself exports them to COCO. The shape's
    flags `difficult` and `crowd` are read.

    Args:
        data: the JSON, in UTF-8, UTF-16 or UTF-32.
        where: the file that errors name.

    Raises:
        UnreadableDataset: the data is not JSON, or a field is missing or of the wrong kind.
    """
    try:
        content = parse_json(data)
    except InvalidJson as error:
        raise UnreadableDataset(f"{where} is not well-formed JSON: {error}") from error
    if not isinstance(content, dict) or not {"shapes", "imagePath"} & content.keys():
        return None
    shapes = content.get("shapes")
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise UnreadableDataset(f"{where}: field shapes is not a list of objects")
    path = content.get("imagePath")
    objects, repairs = _read_shapes(shapes, where)
    return LabelmeAnnotation(
        None if is_absent(path) else check_text(path, "imagePath", where),
        read_side(content.get("imageWidth")),
        read_side(content.get("imageHeight")),
        objects,
        tuple(repairs),
    )


def _read_shapes(
    shapes: Sequence[dict[str, Any]], where: str
) -> tuple[tuple[AnnotatedObject, ...], list[Repair]]:
    objects: dict[tuple[str, str], AnnotatedObject] = {}
    repairs: list[Repair] = []
    for index, shape in enumerate(shapes):
        place = f"{where}: shape {index}"
        kind = shape.get("shape_type") or "polygon"
        kind = check_text(kind, "shape_type", place)
        if kind in _WITHOUT_AREA:
            outcome = f"without a box ({kind}): left out"
            repairs.append(Repair("object", outcome, place, is_loss=True))
            continue
        label = check_text(shape.get("label"), "label", place)
        box = _read_box(kind, _read_points(shape.get("points"), place), place)
        group = shape.get("group_id")
        key = (label, f"shape {index}" if is_absent(group) else read_id(group, "group_id", place))
        stated = shape.get("flags")
        flags, unset = read_shape_flags(stated.items() if isinstance(stated, dict) else (), place)
        repairs += unset
        item = AnnotatedObject(label, *box, *flags)
        if key in objects:
            repairs.append(Repair("object", "joined with the one of its group", place))
            item = _join(objects[key], item)
        objects[key] = item
    return tuple(objects.values()), repairs


def _read_points(value: Any, where: str) -> list[Point]:
    points = value if isinstance(value, list) else []
    if not points or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise UnreadableDataset(f"{where}: field points is {value!r:.60}, expected pairs x, y")
    return [(read_number(x, "points", where), read_number(y, "points", where)) for x, y in points]


def _read_box(kind: str, points: list[Point], where: str) -> Corners:
    expected = {"rectangle": 2, "circle": 2, "mask": 2, "polygon": 3, "oriented_rectangle": 3}
    if kind not in expected:
        raise UnreadableDataset(
            f"{where}: field shape_type is {kind!r:.60}, expected one of {', '.join(sorted(expected))}"
        )
    may_be_more = kind not in ("circle", "mask")  # other tools write a rectangle's four corners
    is_fit = len(points) == expected[kind] or (may_be_more and len(points) > expected[kind])
    if not is_fit:
        raise UnreadableDataset(
            f"{where}: field points has {len(points)} points, expected {expected[kind]} for a {kind}"
        )
    if kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return enclose_ellipse((x, y), (radius, radius))
    x1, y1, x2, y2 = enclose_points(points)
    return (x1, y1, x2 + 1, y2 + 1) if kind == "mask" else (x1, y1, x2, y2)  # its last pixel counts


def _join(a: AnnotatedObject, b: AnnotatedObject) -> AnnotatedObject:
    box = enclose_points([(a.x1, a.y1), (a.x2, a.y2), (b.x1, b.y1), (b.x2, b.y2)])
    return AnnotatedObject(a.label, *box, a.difficult or b.difficult, a.crowd or b.crowd)
