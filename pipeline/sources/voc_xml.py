"""One VOC annotation: XML to objects with half-open boxes."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError  # types; defusedxml parses

import numpy as np
from defusedxml import ElementTree

from pipeline import geometry
from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.checking import LARGEST_SIDE
from pipeline.sources.scalars import check_text, is_absent, read_flag, read_number
from pipeline.sources.xml_errors import describe_xml_error

LARGEST_FILE = 100_000_000
"""Bytes of the largest annotation of one image that is read."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DECLARATION = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["'][^>]*\?>""")
_MULTI_BYTE = {
    **dict.fromkeys(("gb2312", "gbk", "gb18030"), "gb18030"),
    **dict.fromkeys(("big5", "cp950", "big5hkscs"), "big5hkscs"),
    **dict.fromkeys(("shift_jis", "cp932"), "cp932"),
    **dict.fromkeys(("euc_kr", "cp949"), "cp949"),
    **{name: name for name in ("euc_jp", "hz", "iso2022_jp", "johab")},
}
"""Encodings that the XML parser itself does not read, and the superset of each that tools mean by it."""


@dataclass(frozen=True)
class VocAnnotation:
    """The content of one XML file. A missing size is 0; boxes are half open but not checked."""

    filename: str | None
    width: int
    height: int
    objects: tuple[AnnotatedObject, ...]
    unset_flags: int = 0
    """Objects whose `difficult` says that nobody set it."""


def parse_annotation(data: bytes, where: str) -> VocAnnotation:
    """Parse an annotation. VOC counts pixels from 1, and boxes include their last pixel.

    Args:
        data: the XML, in any encoding that it declares; entities and DTDs are rejected.
        where: the file that errors name.

    Raises:
        UnreadableDataset: the data is not an XML annotation, or a field is missing or of the wrong kind.
    """
    try:
        root = ElementTree.fromstring(_decode(data), forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:
        reason = describe_xml_error(error)
        raise UnreadableDataset(f"{where} is not well-formed XML: {reason}") from error
    if root.tag != "annotation":
        raise UnreadableDataset(f"{where}: the root is <{root.tag}>, expected <annotation>")
    elements = root.findall("object")
    places = [f"{where}: object {index}" for index in range(len(elements))]
    corners = np.array(
        [_read_corners(item, place) for item, place in zip(elements, places, strict=True)]
    ).reshape(-1, 4)
    flags = [
        read_flag(item.findtext("difficult"), "difficult", place)
        for item, place in zip(elements, places, strict=True)
    ]
    boxes = geometry.from_inclusive(corners, origin=1).tolist()
    objects = tuple(
        AnnotatedObject(_read_text(item, "name", place), x1, y1, x2, y2, difficult=bool(flag))
        for item, place, (x1, y1, x2, y2), flag in zip(elements, places, boxes, flags, strict=True)
    )
    filename = (root.findtext("filename") or "").strip() or None
    width, height = _read_side(root, "size/width", where), _read_side(root, "size/height", where)
    return VocAnnotation(filename, width, height, objects, flags.count(None))


def _decode(data: bytes) -> bytes | str:
    """The XML as text if its declared encoding is one that the parser does not read."""
    declaration = _DECLARATION.match(data[:200])
    if declaration is None:
        return data
    declared = codecs.lookup(declaration[1].decode()).name
    if declared not in _MULTI_BYTE:
        return data
    try:
        text = data.decode(_MULTI_BYTE[declared])
    except UnicodeDecodeError:
        text = data.decode()  # some tools declare the system's encoding, but write UTF-8
    return text[text.index("?>") + 2 :].lstrip()


def _read_side(root: Element, field: str, where: str) -> int:
    text = root.findtext(field)
    side = 0.0 if is_absent(text) else read_number(text, field, where)
    return round(side) if 0 < side < LARGEST_SIDE else 0


def _read_corners(item: Element, where: str) -> list[float]:
    fields = [f"bndbox/{name}" for name in _CORNERS]
    return [read_number(_read_text(item, field, where), field, where) for field in fields]


def _read_text(element: Element, field: str, where: str) -> str:
    return check_text(element.findtext(field), field, where)
