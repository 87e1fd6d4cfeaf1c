"""Reads the images that galleries show, where they lie, and puts reduced copies into the report.

`make_thumbnails` works on the images of one shard; it is called in one process or in Ray tasks. What it
returns holds no pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import imaging, storage, uris
from pipeline.errors import PipelineError
from pipeline.imaging import Decoding
from pipeline.printable import escape_unprintable
from pipeline.report.drawing import (
    THUMBNAIL_SIDE,
    ImageBoxes,
    choose_crop,
    read_image_boxes,
)
from pipeline.report.gallery import Crop, DrawnBox, Thumbnail

FOLDER = "images"
"""The folder of thumbnails in the report."""
_QUALITY = 75
_THREADS = 4
_LARGEST_ZOOM = 4.0
_LONGEST_PROBLEM = 300


@dataclass(frozen=True)
class ImageRequest:
    """What the galleries show of one image."""

    row: int
    """In the manifest."""
    positions: tuple[int, ...]
    """Rows of the image in the matches part, or -1 for the image as a whole; without repetition."""
    is_drawn: bool = True
    """Whether thumbnails are made; otherwise only the boxes are looked up."""
    listed: Mapping[int, tuple[DrawnBox, ...]] = field(default_factory=dict)
    """Boxes to show at positions that are no rows."""

    def find_focus(self, boxes: ImageBoxes, position: int) -> tuple[DrawnBox, ...]:
        """The boxes that must be well visible at a position."""
        return self.listed.get(position) or boxes.find_focus(position)


@dataclass(frozen=True)
class DrawnImage:
    """One image with all its boxes and a thumbnail for each position of its request."""

    row: int
    image_id: str
    uri: str
    """Without user, password and signature."""
    boxes: ImageBoxes
    thumbnails: dict[int, Thumbnail]
    """By position; positions of equal crops share a file. Empty if none were to be made."""
    note: str = ""
    """What galleries say about the image as a whole."""


def make_thumbnails(
    report: str,
    requests: Sequence[ImageRequest],
    *,
    matches: pa.Table,
    manifest_rows: pa.Table,
    first_row: int,
    decoding: Decoding,
) -> list[DrawnImage]:
    """Put thumbnails of some images of one shard into the report.

    Args:
        report: the report's folder; any fsspec URI.
        requests: the images.
        matches: the shard's part, with the columns of `drawing.DRAWN_COLUMNS`.
        manifest_rows: consecutive rows of the manifest, with image_id, uri, width and height.
        first_row: the row of the first of them.
        decoding: how the manifest says that its images are decoded.

    Raises:
        StorageError: the report cannot be written.
    """
    boxes = read_image_boxes(matches, (request.row for request in requests))

    def draw(request: ImageRequest) -> DrawnImage:
        values = manifest_rows.slice(request.row - first_row, 1).to_pylist()[0]
        return _draw_image(report, request, boxes[request.row], values, decoding)

    # Threads wait for stores and disks; decoding and encoding release the interpreter's lock.
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(draw, requests))


def _draw_image(
    report: str,
    request: ImageRequest,
    boxes: ImageBoxes,
    values: Mapping[str, Any],
    decoding: Decoding,
) -> DrawnImage:
    thumbnails: dict[int, Thumbnail] = {}
    if request.is_drawn:
        try:
            data = storage.read(values["uri"], imaging.MAX_FILE_BYTES)
            image = imaging.decode_image(data, decoding)
        except PipelineError as error:
            thumbnails = _describe_problem(error, request, boxes, values["width"], values["height"])
        else:
            thumbnails = _put_thumbnails(report, request, boxes, image)
    shown_uri = uris.redact_uri(uris.strip_secrets(values["uri"]))
    return DrawnImage(request.row, values["image_id"], shown_uri, boxes, thumbnails)


def _put_thumbnails(
    report: str, request: ImageRequest, boxes: ImageBoxes, image: NDArray[np.uint8]
) -> dict[int, Thumbnail]:
    height, width = image.shape[:2]
    crops = {
        position: choose_crop(request.find_focus(boxes, position), width, height)
        for position in request.positions
    }
    paths = {crop: name_thumbnail(request.row, crop) for crop in set(crops.values())}
    for crop, path in paths.items():
        data = imaging.encode_jpeg(reduce_image(image, crop), _QUALITY)
        storage.put(uris.join(report, path), data)
    return {position: Thumbnail(paths[crop], crop) for position, crop in crops.items()}


def reduce_image(image: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """Cut a region out of an image `(H, W, 3)` and scale it to a thumbnail, enlarging it fourfold at most."""
    region = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    factor = min(THUMBNAIL_SIDE / max(crop.width, crop.height), _LARGEST_ZOOM)
    width, height = max(1, round(crop.width * factor)), max(1, round(crop.height * factor))
    return imaging.resize(np.ascontiguousarray(region), width, height)


def name_thumbnail(row: int, crop: Crop) -> str:
    """The path in the report of the thumbnail of a region of the image in this row of the manifest."""
    return f"{FOLDER}/{row:06d}-{crop.left}-{crop.top}-{crop.width}x{crop.height}.jpg"


def _describe_problem(
    error: PipelineError,
    request: ImageRequest,
    boxes: ImageBoxes,
    width: int | None,
    height: int | None,
) -> dict[int, Thumbnail]:
    """A tile without an image for each position, of the size of the image or of what its boxes span."""
    problem = escape_unprintable(" ".join(uris.redact_text(str(error)).split()))
    if width is None or height is None:
        width, height = _measure_boxes(boxes)
    return {
        position: Thumbnail(
            None,
            choose_crop(request.find_focus(boxes, position), width, height),
            problem[:_LONGEST_PROBLEM],
        )
        for position in request.positions
    }


def _measure_boxes(boxes: ImageBoxes) -> tuple[int, int]:
    corners: Iterable[tuple[float, float]] = [
        (box.x2, box.y2)
        for row in boxes.rows
        for box in (row.detection, row.object)
        if box is not None
    ]
    width = max((x for x, _ in corners), default=4.0)
    height = max((y for _, y in corners), default=3.0)
    return max(1, round(width)), max(1, round(height))
