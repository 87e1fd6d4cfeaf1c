"""Reads the images that galleries show, where they lie, and puts reduced copies into the report.

`make_thumbnails` works on the images of one shard; it is called in one process or in Ray tasks. What it
returns holds no pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import imaging, storage, uris
from pipeline.errors import PipelineError
from pipeline.image_members import Member, read_members
from pipeline.image_reader import read_image
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
        manifest_rows: consecutive rows of the manifest, with its `image_columns`.
        first_row: the row of the first of them.
        decoding: how the manifest says that its images are decoded.

    Raises:
        StorageError: the report cannot be written.
    """
    boxes = read_image_boxes(matches, (request.row for request in requests))
    images = _read_images(manifest_rows, first_row)

    def draw(request: ImageRequest) -> DrawnImage:
        image = images[request.row - first_row]
        return _draw_image(report, request, boxes[request.row], image, decoding)

    # Threads wait for stores and disks; decoding and encoding release the interpreter's lock.
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(draw, requests))


@dataclass(frozen=True)
class _ManifestImage:
    """One image as the manifest lists it."""

    image_id: str
    uri: str
    width: int | None
    height: int | None
    member: Member | None


def _read_images(manifest_rows: pa.Table, first_row: int) -> list[_ManifestImage]:
    names = ("image_id", "uri", "width", "height")
    columns = [manifest_rows.column(name).to_pylist() for name in names]
    members = read_members(manifest_rows, "the manifest", first_row)
    return list(map(_ManifestImage, *columns, members))


def _draw_image(
    report: str,
    request: ImageRequest,
    boxes: ImageBoxes,
    image: _ManifestImage,
    decoding: Decoding,
) -> DrawnImage:
    thumbnails: dict[int, Thumbnail] = {}
    if request.is_drawn:
        try:
            data = read_image(image.uri, image.member)
            crops = _choose_crops(request, boxes, data, decoding)
            is_whole = all(crop.is_whole for crop in crops.values())
            enough = THUMBNAIL_SIDE if is_whole else None
            pixels = imaging.decode_image(data, decoding, enough=enough)
        except PipelineError as error:
            thumbnails = _describe_problem(error, request, boxes, image.width, image.height)
        else:
            thumbnails = _put_thumbnails(report, request.row, crops, pixels)
    shown_uri = uris.redact_uri(uris.strip_secrets(image.uri))
    if image.member is not None:
        shown_uri += f", {image.member.describe()}"
    return DrawnImage(request.row, image.image_id, shown_uri, boxes, thumbnails)


def _choose_crops(
    request: ImageRequest, boxes: ImageBoxes, data: bytes, decoding: Decoding
) -> dict[int, Crop]:
    """The region to show at each position, by the size that the image has in the file."""
    header = imaging.read_header(data)
    is_turned = decoding.exif == "apply"
    width, height = header.displayed_size if is_turned else (header.width, header.height)
    return {
        position: choose_crop(request.find_focus(boxes, position), width, height)
        for position in request.positions
    }


def _put_thumbnails(
    report: str, row: int, crops: Mapping[int, Crop], image: NDArray[np.uint8]
) -> dict[int, Thumbnail]:
    """Put the regions of an image, whose pixels may be fewer if they are all of it."""
    paths = {crop: name_thumbnail(row, crop) for crop in set(crops.values())}
    for crop, path in paths.items():
        data = imaging.encode_jpeg(reduce_image(image, crop), _QUALITY)
        storage.put(uris.join(report, path), data)
    return {position: Thumbnail(paths[crop], crop) for position, crop in crops.items()}


def reduce_image(image: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """Cut a region out of an image `(H, W, 3)` and scale it to a thumbnail, enlarging it fourfold at most.

    If the region is all of the image, the pixels may be fewer than its sides.
    """
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
