"""Turns samples and drawn images into galleries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.report.collecting import GallerySample
from pipeline.report.gallery import Gallery, GalleryItem
from pipeline.report.sharing import count_listed
from pipeline.report.suspects import ListedBoxes, ListedByPlace
from pipeline.report.thumbnails import DrawnImage

_WHOLE_IMAGE = -1


def build_galleries(
    samples: Sequence[GallerySample],
    shown: Sequence[int],
    drawn: Mapping[int, DrawnImage],
    listed: ListedByPlace,
    min_score: float,
) -> dict[str, Gallery]:
    """Build all galleries, by key.

    Args:
        samples: what they count.
        shown: the number of items with a thumbnail of each.
        drawn: the chosen images by their row in the manifest.
        listed: boxes that are no rows of the matches.
        min_score: the lowest score of detections that are drawn beside the one in focus.
    """
    galleries = {}
    for sample, count in zip(samples, shown, strict=True):
        references = sample.sample.references[: count_listed(sample, count)].tolist()
        is_object = sample.unit == "objects"
        items = [
            _build_listed_item(drawn[row], position, listed[row, position], min_score)
            if (row, position) in listed
            else _build_item(drawn[row], position, min_score, is_object)
            for _, row, position, _ in references
        ]
        if not sample.is_ranked and any(_get_score(item) is not None for item in items):
            items.sort(key=lambda item: -(_get_score(item) or 0.0))
        galleries[sample.key] = Gallery(
            sample.key,
            sample.title[0].upper() + sample.title[1:],
            sample.sample.total,
            tuple(items),
            sample.unit,
            sample.description,
        )
    return galleries


def _build_item(image: DrawnImage, position: int, min_score: float, is_object: bool) -> GalleryItem:
    note = image.boxes.describe(position, min_score, is_object)
    return GalleryItem(
        image.image_id,
        image.uri,
        image.row,
        image.boxes.draw(position, min_score, is_object),
        image.thumbnails.get(position),
        note or (image.note if position == _WHOLE_IMAGE else ""),
    )


def _build_listed_item(
    image: DrawnImage, position: int, listed: ListedBoxes, min_score: float
) -> GalleryItem:
    """An item with boxes of its own, on top of what is drawn on the image as a whole."""
    corners = {(round(box.x1), round(box.y1), round(box.x2), round(box.y2)) for box in listed.boxes}
    others = [
        box
        for box in image.boxes.draw(_WHOLE_IMAGE, min_score)
        if (round(box.x1), round(box.y1), round(box.x2), round(box.y2)) not in corners
    ]
    boxes = (*others, *listed.boxes)
    thumbnail = image.thumbnails.get(position)
    return GalleryItem(image.image_id, image.uri, image.row, boxes, thumbnail, listed.note)


def _get_score(item: GalleryItem) -> float | None:
    """The score of the detection in focus."""
    scores = [box.score for box in item.boxes if box.is_focus and box.score is not None]
    return scores[0] if scores else None
