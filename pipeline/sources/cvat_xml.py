"""CVAT for images 1.1: one XML with the shapes of all images, read image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError  # types; defusedxml parses

from defusedxml import ElementTree

from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.checking import read_side
from pipeline.sources.hulls import Corners, enclose_ellipse, enclose_points, enclose_rotated
from pipeline.sources.scalars import check_text, is_absent, read_number
from pipeline.sources.shape_flags import read_shape_flags
from pipeline.sources.tally import Repair
from pipeline.sources.xml_errors import describe_xml_error

_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton")


@dataclass(frozen=True)
class CvatImage:
    """One `<image>`; `fault` says why it is invalid, and then it has no objects."""

    name: str
    subset: str
    width: int
    height: int
    """A missing side is 0."""
    objects: tuple[AnnotatedObject, ...] = ()
    repairs: tuple[Repair, ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class CvatFile:
    """The images of a CVAT file."""

    labels: tuple[str, ...]
    """Of the task or project, in its order; empty if the file does not list them."""
    images: tuple[CvatImage, ...]


def parse_cvat(file: BinaryIO, where: str) -> CvatFile:
    """Parse a CVAT file; an invalid image gets its fault, and the others are read.

    Args:
        file: the XML; entities and DTDs are rejected.
        where: the file that errors name.

    Raises:
        UnreadableDataset: it is not XML of this kind.
    """
    labels: list[str] = []
    images: list[CvatImage] = []
    try:
        for element in _iterate(file, where):
            if element.tag == "image":
                images.append(_read_image(element, f"{where}: image {len(images)}"))
            elif element.tag == "label" and element.find("parent") is None:
                labels.append(check_text(element.findtext("name"), "name", f"{where}: a label"))
            elif element.tag == "track":
                raise UnreadableDataset(
                    f"{where} holds the tracks of a video; export it as CVAT for images 1.1"
                )
    except (ParseError, ValueError, LookupError) as error:
        reason = describe_xml_error(error)
        raise UnreadableDataset(f"{where} is not well-formed XML: {reason}") from error
    return CvatFile(tuple(dict.fromkeys(labels)), tuple(images))


def _iterate(file: BinaryIO, where: str) -> Iterator[Element]:
    """Yield images, tracks and labels as they end, and free them."""
    events = ElementTree.iterparse(file, events=("start", "end"), forbid_dtd=True)
    _, root = next(events)
    if root.tag != "annotations":
        raise UnreadableDataset(f"{where}: the root is <{root.tag}>, expected <annotations>")
    for event, element in events:
        if event == "end" and element.tag in ("image", "track", "label"):
            yield element
            if element.tag != "label":
                root.clear()


def _read_image(element: Element, where: str) -> CvatImage:
    name = element.get("name", "")
    place = f"{where} ({name})"
    side = (read_side(element.get("width")), read_side(element.get("height")))
    subset = (element.get("subset") or "").strip()
    objects: list[AnnotatedObject] = []
    repairs: list[Repair] = []
    try:
        name = check_text(element.get("name"), "name", where)
        for index, shape in enumerate(element):
            at = f"{place}, shape {index} ({shape.tag})"
            if shape.tag in _WITHOUT_AREA:
                outcome = f"without a box ({shape.tag}): left out"
                repairs.append(Repair("object", outcome, at, is_loss=True))
            elif shape.tag in _SHAPES:
                box = _SHAPES[shape.tag](shape, at)
                attributes = ((item.get("name"), item.text) for item in shape.iterfind("attribute"))
                flags, unset = read_shape_flags(attributes, at)
                label = check_text(shape.get("label"), "label", at)
                objects.append(AnnotatedObject(label, *box, *flags))
                repairs += unset
    except UnreadableDataset as error:
        return CvatImage(name, subset, *side, fault=str(error))
    return CvatImage(name, subset, *side, tuple(objects), tuple(repairs))


def _read_box(shape: Element, where: str) -> Corners:
    """A rectangle, rotated about its centre."""
    x1, y1, x2, y2 = (_read(shape, name, where) for name in ("xtl", "ytl", "xbr", "ybr"))
    centre = ((x1 + x2) / 2, (y1 + y2) / 2)
    return enclose_rotated((x1, y1, x2, y2), _read_angle(shape, where), centre)


def _read_polygon(shape: Element, where: str) -> Corners:
    text = check_text(shape.get("points"), "points", where)
    pairs = [pair.split(",") for pair in text.split(";")]
    if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
        raise UnreadableDataset(
            f"{where}: field points is {text!r:.60}, expected x,y of three or more corners"
        )
    return enclose_points(
        [(read_number(x, "points", where), read_number(y, "points", where)) for x, y in pairs]
    )


def _read_ellipse(shape: Element, where: str) -> Corners:
    x, y, rx, ry = (_read(shape, name, where) for name in ("cx", "cy", "rx", "ry"))
    return enclose_ellipse((x, y), (rx, ry), _read_angle(shape, where))


def _read_mask(shape: Element, where: str) -> Corners:
    """The rectangle that the run lengths of a mask fill; it is tight to its pixels."""
    x, y, width, height = (_read(shape, name, where) for name in ("left", "top", "width", "height"))
    return x, y, x + width, y + height


_SHAPES = {
    "box": _read_box,
    "polygon": _read_polygon,
    "ellipse": _read_ellipse,
    "mask": _read_mask,
}


def _read(shape: Element, name: str, where: str) -> float:
    return read_number(check_text(shape.get(name), name, where), name, where)


def _read_angle(shape: Element, where: str) -> float:
    text = shape.get("rotation")
    return 0.0 if is_absent(text) else read_number(text, "rotation", where)
