"""One VOC annotation: XML to objects with half-open boxes."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError  # types; defusedxml parses

import numpy as np
from defusedxml import ElementTree

from pipeline import geometry
from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.checking import LARGEST_SIDE

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocAnnotation:
    """What one XML file says. A missing size is 0; boxes are half open but not checked."""

    filename: str | None
    width: int
    height: int
    objects: tuple[AnnotatedObject, ...]


def parse_annotation(data: bytes, where: str) -> VocAnnotation:
    """Read an annotation; VOC counts pixels from 1 and its last pixel belongs to the box.

    Args:
        data: the XML; entities and DTDs are refused.
        where: the file that an error names.

    Raises:
        UnreadableDataset: not XML, not an annotation, a missing field or one that is no number.
    """
    try:
        root = ElementTree.fromstring(data, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:
        raise UnreadableDataset(f"{where} is not well-formed XML: {error}") from error
    if root.tag != "annotation":
        raise UnreadableDataset(f"{where}: the root is <{root.tag}>, expected <annotation>")
    found = root.findall("object")
    corners = np.array(
        [_corners(item, f"{where}: object {index}") for index, item in enumerate(found)]
    ).reshape(-1, 4)
    objects = tuple(
        AnnotatedObject(
            _text(item, "name", f"{where}: object {index}"),
            x1,
            y1,
            x2,
            y2,
            difficult=_number(item, "difficult", f"{where}: object {index}", 0.0) != 0,
        )
        for index, (item, (x1, y1, x2, y2)) in enumerate(
            zip(found, geometry.from_inclusive(corners, origin=1).tolist(), strict=True)
        )
    )
    filename = (root.findtext("filename") or "").strip() or None
    return VocAnnotation(
        filename, _side(root, "size/width", where), _side(root, "size/height", where), objects
    )


def _side(root: Element, field: str, where: str) -> int:
    side = _number(root, field, where, 0.0)
    return round(side) if 0 < side < LARGEST_SIDE else 0


def _corners(item: Element, where: str) -> list[float]:
    return [_number(item, f"bndbox/{name}", where) for name in _CORNERS]


def _text(element: Element, field: str, where: str) -> str:
    text = (element.findtext(field) or "").strip()
    if not text:
        raise UnreadableDataset(f"{where}: field {field} is missing or empty")
    return text


def _number(element: Element, field: str, where: str, missing: float | None = None) -> float:
    if missing is not None and not (element.findtext(field) or "").strip():
        return missing
    text = _text(element, field, where)
    try:
        return float(text)
    except ValueError as error:
        raise UnreadableDataset(f"{where}: field {field} is {text!r}, not a number") from error
