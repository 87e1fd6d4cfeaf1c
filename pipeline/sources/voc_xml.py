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
    """The content of one XML file. A missing size is 0; boxes are half open but not checked."""

    filename: str | None
    width: int
    height: int
    objects: tuple[AnnotatedObject, ...]


def parse_annotation(data: bytes, where: str) -> VocAnnotation:
    """Parse an annotation. VOC counts pixels from 1, and boxes include their last pixel.

    Args:
        data: the XML; entities and DTDs are rejected.
        where: the file that errors name.

    Raises:
        UnreadableDataset: the data is not an XML annotation, or a field is missing or not a number.
    """
    try:
        root = ElementTree.fromstring(data, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:
        raise UnreadableDataset(f"{where} is not well-formed XML: {error}") from error
    if root.tag != "annotation":
        raise UnreadableDataset(f"{where}: the root is <{root.tag}>, expected <annotation>")
    elements = root.findall("object")
    corners = np.array(
        [_read_corners(item, f"{where}: object {index}") for index, item in enumerate(elements)]
    ).reshape(-1, 4)
    objects = tuple(
        AnnotatedObject(
            _read_text(item, "name", f"{where}: object {index}"),
            x1,
            y1,
            x2,
            y2,
            difficult=_read_number(item, "difficult", f"{where}: object {index}", 0.0) != 0,
        )
        for index, (item, (x1, y1, x2, y2)) in enumerate(
            zip(elements, geometry.from_inclusive(corners, origin=1).tolist(), strict=True)
        )
    )
    filename = (root.findtext("filename") or "").strip() or None
    return VocAnnotation(
        filename,
        _read_side(root, "size/width", where),
        _read_side(root, "size/height", where),
        objects,
    )


def _read_side(root: Element, field: str, where: str) -> int:
    side = _read_number(root, field, where, 0.0)
    return round(side) if 0 < side < LARGEST_SIDE else 0


def _read_corners(item: Element, where: str) -> list[float]:
    return [_read_number(item, f"bndbox/{name}", where) for name in _CORNERS]


def _read_text(element: Element, field: str, where: str) -> str:
    text = (element.findtext(field) or "").strip()
    if not text:
        raise UnreadableDataset(f"{where}: field {field} is missing or empty")
    return text


def _read_number(element: Element, field: str, where: str, missing: float | None = None) -> float:
    if missing is not None and not (element.findtext(field) or "").strip():
        return missing
    text = _read_text(element, field, where)
    try:
        return float(text)
    except ValueError as error:
        raise UnreadableDataset(f"{where}: field {field} is {text!r}, not a number") from error
