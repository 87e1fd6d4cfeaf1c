"""One task of a Label Studio export: regions in percent to objects in pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.checking import LARGEST_SIDE
from pipeline.sources.hulls import Corners, enclose_ellipse, enclose_points, enclose_rotated
from pipeline.sources.labelstudio_min import expand_min_task, is_min_task
from pipeline.sources.scalars import check_text, is_absent, read_number
from pipeline.sources.tally import Repair

_LABELS = "labels"
_ELSEWHERE = frozenset(
    ("choices", "taxonomy", "textarea", "rating", "number", "datetime", "pairwise", "relation")
)
"""Kinds of results that describe an image or a region, and are none themselves."""


@dataclass(frozen=True)
class LabelledTask:
    """What one task says of its image. `objects` is None if nobody annotated it."""

    image: str
    """Where the image is, as the task writes it."""
    width: int
    height: int
    """A size that no region states is 0."""
    objects: tuple[AnnotatedObject, ...] | None
    repairs: tuple[Repair, ...] = ()


def read_task(task: Any, image_key: str | None, where: str) -> LabelledTask:
    """Read a task of the export JSON or JSON-MIN: the one of its annotations that counts.

    That is the one that is marked as ground truth, or else the newest; skipped ones never count, and neither
    do predictions. Rectangles, polygons and ellipses become the upright box around them. A region of several
    labels becomes an object of each.

    Args:
        task: an element of the export.
        image_key: the key of the image in `data`; None takes `image`, or the only key whose value is a text.
        where: the file and task that errors name.

    Raises:
        UnreadableDataset: a field is missing or of the wrong kind.
    """
    if is_min_task(task):
        task = expand_min_task(task)
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise UnreadableDataset(
            f"{where} has no field data; export the project as JSON or JSON-MIN"
        )
    image = _read_image(task["data"], image_key, where)
    annotation, repairs = _choose_annotation(task, where)
    if annotation is None:
        return LabelledTask(image, 0, 0, None, tuple(repairs))
    results = annotation.get("result")
    if not isinstance(results, list) or not all(isinstance(item, dict) for item in results):
        raise UnreadableDataset(f"{where}: field result is not a list of objects")
    size = _read_size(results, where)
    objects: list[AnnotatedObject] = []
    for index, labels, region in _join_labels(results):
        place = f"{where}, region {index}"
        kind = str(region.get("type", "")).removesuffix(_LABELS)
        if kind not in _REGIONS:
            outcome = f"without a box ({kind or 'no type'}): left out"
            repairs.append(Repair("object", outcome[:80], place, is_loss=True))
            continue
        box = _read_region(region, kind, size, place)
        if not labels:
            raise UnreadableDataset(f"{place} has no label")
        objects += [AnnotatedObject(check_text(item, "labels", place), *box) for item in labels]
    return LabelledTask(image, *size, tuple(objects), tuple(repairs))


def _read_image(data: Mapping[str, Any], image_key: str | None, where: str) -> str:
    if image_key is None:
        texts = [key for key, value in data.items() if isinstance(value, str) and value.strip()]
        if "image" not in data and len(texts) != 1:
            raise UnreadableDataset(
                f"{where}: data has the fields {', '.join(map(str, data)):.200}; choose that of the image "
                "with --image-key"
            )
        image_key = "image" if "image" in data else texts[0]
    return check_text(data.get(image_key), f"data.{image_key}", where)


def _choose_annotation(
    task: Mapping[str, Any], where: str
) -> tuple[Mapping[str, Any] | None, list[Repair]]:
    annotations = task.get("annotations", task.get("completions", []))
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise UnreadableDataset(f"{where}: field annotations is not a list of objects")
    valid = [item for item in annotations if not item.get("was_cancelled")]
    if not valid:
        return None, [Repair("image", "without an annotation: kept as unlabelled", where)]
    repairs = []
    if len(valid) > 1:
        outcome = "with several annotations: the ground truth or the newest is used"
        repairs.append(Repair("image", outcome, where))
    ranked = sorted(
        valid,
        key=lambda item: (
            item.get("ground_truth") is True,
            str(item.get("updated_at") or item.get("created_at") or ""),
        ),
    )
    return ranked[-1], repairs


def _read_size(results: Sequence[Mapping[str, Any]], where: str) -> tuple[int, int]:
    """The size of the image that the regions state, which must agree; zeros if none does."""
    sizes = set()
    for index, region in enumerate(results):
        if "original_width" not in region and "original_height" not in region:
            continue
        place = f"{where}, region {index}"
        width, height = (
            read_number(region.get(name), name, place)
            for name in ("original_width", "original_height")
        )
        if not (0 < width < LARGEST_SIDE and 0 < height < LARGEST_SIDE):
            raise UnreadableDataset(f"{place} states an image of {width:g}x{height:g} pixels")
        sizes.add((round(width), round(height)))
        turned = region.get("image_rotation")
        if not is_absent(turned) and read_number(turned, "image_rotation", place) % 360 != 0:
            raise UnreadableDataset(
                f"{place} was drawn while the image was displayed turned (image_rotation {turned!r:.20}): "
                "which pixels it means is not documented; draw it upright"
            )
    if len(sizes) > 1:
        shown = " and ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise UnreadableDataset(f"{where}: its regions state the sizes {shown}")
    return next(iter(sizes), (0, 0))


def _join_labels(
    results: Sequence[Mapping[str, Any]],
) -> list[tuple[int, list[Any], Mapping[str, Any]]]:
    """The regions with their index and labels, which may be in a result of their own with the region's id."""
    regions: list[tuple[int, list[Any], Mapping[str, Any]]] = []
    by_id: dict[Any, list[Any]] = {}
    separate: list[tuple[Any, list[Any]]] = []
    for index, result in enumerate(results):
        kind = str(result.get("type"))
        value = result.get("value")
        value = value if isinstance(value, dict) else {}
        key = result.get("id")
        key = key if isinstance(key, str | int) else None
        if kind in _ELSEWHERE:
            continue
        if kind == _LABELS:
            labels = value.get(_LABELS)
            separate.append((key, labels if isinstance(labels, list) else []))
            continue
        own = value.get(kind) if kind.endswith(_LABELS) else None
        labels = list(own) if isinstance(own, list) else []
        regions.append((index, labels, result))
        if key is not None:
            by_id[key] = labels
    for key, labels in separate:
        if key in by_id and not by_id[key]:
            by_id[key].extend(labels)
    return regions


def _read_region(
    region: Mapping[str, Any], kind: str, size: tuple[int, int], where: str
) -> Corners:
    value = region.get("value")
    if not isinstance(value, dict):
        raise UnreadableDataset(f"{where}: field value is {value!r:.60}, expected an object")
    if min(size) == 0:
        raise UnreadableDataset(
            f"{where} states no original_width and original_height, which its percentages refer to"
        )
    return _REGIONS[kind](value, size, where)


def _read_rectangle(value: Mapping[str, Any], size: tuple[int, int], where: str) -> Corners:
    """A rectangle, turned clockwise about its top-left corner."""
    x, y = _read_pair(value, ("x", "y"), size, where)
    width, height = _read_pair(value, ("width", "height"), size, where)
    return enclose_rotated((x, y, x + width, y + height), _read_angle(value, where), (x, y))


def _read_ellipse(value: Mapping[str, Any], size: tuple[int, int], where: str) -> Corners:
    centre = _read_pair(value, ("x", "y"), size, where)
    radii = _read_pair(value, ("radiusX", "radiusY"), size, where)
    return enclose_ellipse(centre, radii, _read_angle(value, where))


def _read_polygon(value: Mapping[str, Any], size: tuple[int, int], where: str) -> Corners:
    points = value.get("points")
    is_valid = isinstance(points, list) and len(points) > 2
    if not is_valid or not all(isinstance(p, list) and len(p) == 2 for p in points or ()):
        raise UnreadableDataset(
            f"{where}: field points is {points!r:.60}, expected x and y of three or more corners"
        )
    return enclose_points(
        [_read_pair({"x": x, "y": y}, ("x", "y"), size, where) for x, y in points or ()]
    )


_REGIONS = {
    "rectangle": _read_rectangle,
    "ellipse": _read_ellipse,
    "polygon": _read_polygon,
}


def _read_pair(
    value: Mapping[str, Any], names: tuple[str, str], size: tuple[int, int], where: str
) -> tuple[float, float]:
    """Two percentages, of width and height, in pixels."""
    x, y = (read_number(value.get(name), name, where) for name in names)
    return x / 100 * size[0], y / 100 * size[1]


def _read_angle(value: Mapping[str, Any], where: str) -> float:
    angle = value.get("rotation")
    return 0.0 if is_absent(angle) else read_number(angle, "rotation", where)
