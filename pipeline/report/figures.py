"""A gallery's item as its template shows it: thumbnail, boxes in pixels of the image, tags, captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup, escape

from pipeline.printable import escape_unprintable
from pipeline.report.drawing import THUMBNAIL_SIDE
from pipeline.report.gallery import Crop, DrawnBox, GalleryItem

_MOST_BOXES = 40
"""Boxes on one image; the least confident others are left out."""
_MOST_TAGS = 10
_FONT_PIXELS = 13.0
_LETTER_WIDTH = 0.58
"""Of a letter, in heights of the font, on average."""


@dataclass(frozen=True)
class FigureTag:
    """A text beside a box."""

    role: str
    x: str
    y: str
    text: str


@dataclass(frozen=True)
class Figure:
    """One image of a gallery, ready to be shown."""

    image_id: str
    uri: str
    path: str | None
    """Of the thumbnail, in the report's folder."""
    width: int
    """Of the thumbnail, in pixels."""
    height: int
    view: str
    """The part of the image that is shown, as an SVG view box."""
    font: str
    """Height of the tags, in pixels of the image."""
    boxes: Markup
    """SVG rectangles, in pixels of the image."""
    tags: tuple[FigureTag, ...]
    heading: str
    note: str
    problem: str
    alt: str


def build_figure(item: GalleryItem) -> Figure:
    """Lay out one item."""
    crop = _UNKNOWN if item.thumbnail is None else item.thumbnail.crop
    if item.thumbnail is None and item.boxes:
        crop = _span(item.boxes)
    scale = THUMBNAIL_SIDE / max(crop.width, crop.height)
    font = _FONT_PIXELS / scale
    visible = [box for box in item.boxes if _is_visible(box, crop)]
    boxes = _choose_boxes(visible)
    heading = "; ".join(
        describe_box(box) for box in boxes if box.is_focus and box.score is not None
    )
    if not heading:
        heading = "; ".join(f"{box.label}, {box.role}" for box in boxes if box.is_focus)
    return Figure(
        image_id=item.image_id,
        uri=item.uri,
        path=None if item.thumbnail is None else item.thumbnail.path,
        width=round(crop.width * scale),
        height=round(crop.height * scale),
        view=f"{crop.left} {crop.top} {crop.width} {crop.height}",
        font=_format(font),
        boxes=Markup("".join(map(_draw_box, boxes))),  # noqa: S704  (escaped below)
        tags=_place_tags(_choose_tagged(boxes), crop, font),
        heading=heading,
        note=item.note,
        problem=_describe_problem(item),
        alt=_describe_image(item, visible),
    )


_UNKNOWN = Crop(0, 0, 4, 3)


def _describe_problem(item: GalleryItem) -> str:
    if item.thumbnail is None:
        return "not drawn: the report's number of images is used up"
    return item.thumbnail.problem


def _describe_image(item: GalleryItem, boxes: Sequence[DrawnBox]) -> str:
    objects = sum(box.score is None for box in boxes)
    return f"{item.image_id}: {len(boxes) - objects} detections, {objects} objects"


def _span(boxes: Sequence[DrawnBox]) -> Crop:
    width, height = max(box.x2 for box in boxes), max(box.y2 for box in boxes)
    return Crop(0, 0, max(1, round(width)), max(1, round(height)))


def describe_box(box: DrawnBox) -> str:
    """A box in words: its label, and a detection's score and IoU."""
    if box.score is None:
        return f"{box.label} ({_ROLE_NAMES[box.role]})"
    iou = "" if box.iou is None else f", IoU {box.iou:.2f}"
    return f"{box.label} {box.score:.2f}{iou}"


_ROLE_NAMES = {
    "truth": "annotated",
    "missed": "annotated, missed",
    "true": "true",
    "false": "false",
    "ignored": "ignored",
    "detected": "detected",
    "suspicious": "annotated, suspicious",
}


def _is_visible(box: DrawnBox, crop: Crop) -> bool:
    return (
        box.x2 > crop.left
        and box.y2 > crop.top
        and box.x1 < crop.left + crop.width
        and box.y1 < crop.top + crop.height
    )


def _choose_boxes(boxes: Sequence[DrawnBox]) -> list[DrawnBox]:
    """The boxes to draw, in their order: those in focus, objects, then the most confident detections."""
    if len(boxes) <= _MOST_BOXES:
        return list(boxes)
    ranked = sorted(
        range(len(boxes)),
        key=lambda i: (not boxes[i].is_focus, boxes[i].score is not None, -(boxes[i].score or 0)),
    )
    return [boxes[index] for index in sorted(ranked[:_MOST_BOXES])]


def _choose_tagged(boxes: Sequence[DrawnBox]) -> list[DrawnBox]:
    """The boxes with a tag: those in focus; if there are none, detections and missed objects."""
    focus = [box for box in boxes if box.is_focus]
    if focus:
        return [box for box in focus if box.score is not None] or focus
    return [box for box in boxes if box.role not in ("truth", "ignored")][-_MOST_TAGS:]


@lru_cache(maxsize=1 << 16)  # many galleries show the same image
def _draw_box(box: DrawnBox) -> str:
    """Draw one box as an SVG rectangle whose title describes it."""
    corner = f'x="{_format(box.x1)}" y="{_format(box.y1)}"'
    sides = f'width="{_format(box.x2 - box.x1)}" height="{_format(box.y2 - box.y1)}"'
    title = escape(escape_unprintable(describe_box(box)))
    focus = " focus" if box.is_focus else ""
    return f'<rect class="box {box.role}{focus}" {corner} {sides}><title>{title}</title></rect>'


def _place_tags(boxes: Sequence[DrawnBox], crop: Crop, font: float) -> tuple[FigureTag, ...]:
    """The tags of some boxes; one that would lie on another moves down until it does not."""
    placed: list[tuple[float, float, float]] = []
    tags = []
    for box in boxes:
        text = box.label if box.score is None else f"{box.label} {box.score:.2f}"
        text = text if len(text) <= 28 else f"{text[:27]}…"
        width = _LETTER_WIDTH * font * len(text)
        x, y = _place_tag(box, width, crop, font)
        for _ in range(_MOST_TAGS):
            if not any(_is_close(x, y, width, other, font) for other in placed):
                break
            y += 1.1 * font
        y = min(y, crop.top + crop.height - 0.3 * font)
        placed.append((x, y, width))
        tags.append(FigureTag(box.role, _format(x), _format(y), text))
    return tuple(tags)


def _is_close(
    x: float, y: float, width: float, other: tuple[float, float, float], font: float
) -> bool:
    """Whether a text lies on another one, given its left end, its base line and its width."""
    left, base, length = other
    return abs(y - base) < 0.95 * font and x < left + length and left < x + width


def _place_tag(box: DrawnBox, width: float, crop: Crop, font: float) -> tuple[float, float]:
    """Left end and base line, above a detection or below an object; inside the box if there is no room."""
    right = crop.left + crop.width - width
    x = max(crop.left + 0.2 * font, min(box.x1, right))
    top, bottom = crop.top, crop.top + crop.height
    if box.score is None:
        y = box.y2 + font
        y = max(min(box.y2, bottom) - 0.4 * font, top + font) if y > bottom else y
    else:
        y = box.y1 - 0.35 * font
        y = min(max(box.y1, top) + 1.1 * font, bottom - 0.3 * font) if y - font < top else y
    return x, y


def _format(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
