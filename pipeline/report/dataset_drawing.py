"""Reads the images that a dataset report shows and puts reduced copies into it, with their boxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline import imaging, storage, uris
from pipeline.errors import PipelineError
from pipeline.image_members import Member, read_members
from pipeline.image_reader import read_image
from pipeline.manifests import Manifest
from pipeline.printable import escape_unprintable
from pipeline.report.dataset_galleries import WHOLE_IMAGE
from pipeline.report.drawing import THUMBNAIL_SIDE, choose_crop
from pipeline.report.gallery import Crop, DrawnBox, GalleryItem, Thumbnail
from pipeline.report.thumbnails import name_thumbnail, reduce_image

_THREADS = 4
_QUALITY = 75
_LONGEST_PROBLEM = 300
_WINDOW = 256
"""Rows of the manifest that are read together."""


@dataclass(frozen=True)
class DatasetImage:
    """One image with its boxes, and a thumbnail for each position that is shown."""

    image_id: str
    uri: str
    row: int
    boxes: tuple[DrawnBox, ...]
    """By their position among the image's objects."""
    thumbnails: Mapping[int, Thumbnail]

    def build_item(self, position: int, *, is_suspicious: bool, note: str = "") -> GalleryItem:
        """A gallery's item about one of the boxes, or about the whole image."""
        boxes = list(self.boxes)
        if position != WHOLE_IMAGE:
            role = "suspicious" if is_suspicious else boxes[position].role
            focus = replace(boxes.pop(position), is_focus=True, role=role)
            boxes.append(focus)  # on top
        thumbnail = self.thumbnails.get(position)
        return GalleryItem(self.image_id, self.uri, self.row, tuple(boxes), thumbnail, note)


@dataclass(frozen=True)
class _Row:
    number: int
    row: int
    image_id: str
    uri: str
    member: Member | None
    size: tuple[int | None, int | None]
    boxes: tuple[DrawnBox, ...]


def draw_dataset_images(
    report: str,
    manifest: Manifest,
    first_number: int,
    positions: Mapping[int, Iterable[int]],
    drawn: Mapping[int, Iterable[int]],
) -> dict[int, DatasetImage]:
    """Put the thumbnails of one split's images into the report.

    Args:
        report: the report's folder.
        manifest: the split.
        first_number: number of its first image over all splits.
        positions: by number, the images to look up.
        drawn: by number, the positions that get a thumbnail.

    Raises:
        StorageError: the report cannot be written, or the manifest cannot be read.
    """

    def draw(row: _Row) -> tuple[int, DatasetImage]:
        thumbnails = _draw(report, row, manifest, tuple(drawn.get(row.number, ())))
        shown = uris.redact_uri(uris.strip_secrets(row.uri))
        if row.member is not None:
            shown += f", {row.member.describe()}"
        return row.number, DatasetImage(row.image_id, shown, row.row, row.boxes, thumbnails)

    numbers = sorted({*positions, *drawn})
    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(threads.map(draw, _read_rows(manifest, first_number, numbers)))


def _read_rows(manifest: Manifest, first_number: int, numbers: list[int]) -> list[_Row]:
    rows = []
    start = 0
    while start < len(numbers):
        first = numbers[start] - first_number
        chosen = [n - first_number for n in numbers[start:] if n - first_number < first + _WINDOW]
        table = manifest.read(first, chosen[-1] - first + 1, [*manifest.image_columns, "objects"])
        members = read_members(table, manifest.uri, first)
        picked = table.take(pa.array([row - first for row in chosen])).to_pylist()
        for row, values in zip(chosen, picked, strict=True):
            boxes = tuple(
                DrawnBox(
                    "ignored" if item["difficult"] or item["crowd"] else "truth",
                    item["label"],
                    *(item[name] for name in ("x1", "y1", "x2", "y2")),
                )
                for item in values["objects"] or ()
            )
            size = (values["width"], values["height"])
            place = (values["image_id"], values["uri"], members[row - first])
            rows.append(_Row(first_number + row, row, *place, size, boxes))
        start += len(chosen)
    return rows


def _draw(
    report: str, row: _Row, manifest: Manifest, positions: tuple[int, ...]
) -> dict[int, Thumbnail]:
    if not positions:
        return {}
    try:
        data = read_image(row.uri, row.member)
        header = imaging.read_header(data)
        is_turned = manifest.exif == "apply"
        width, height = header.displayed_size if is_turned else (header.width, header.height)
        crops = {p: choose_crop(_focus(row, p), width, height) for p in positions}
        is_whole = all(crop.is_whole for crop in crops.values())
        enough = THUMBNAIL_SIDE if is_whole else None
        pixels = imaging.decode_image(data, manifest.decoding, enough=enough)
    except PipelineError as error:
        problem = escape_unprintable(" ".join(uris.redact_text(str(error)).split()))
        width, height = (side or 4 - index for index, side in enumerate(row.size))
        crop = Crop(0, 0, width, height, is_whole=True)
        return {p: Thumbnail(None, crop, problem[:_LONGEST_PROBLEM]) for p in positions}
    paths = {}
    for crop in set(crops.values()):
        crop_pixels = reduce_image(pixels, crop)
        paths[crop] = name_thumbnail(row.number, crop)
        storage.put(uris.join(report, paths[crop]), imaging.encode_jpeg(crop_pixels, _QUALITY))
    return {position: Thumbnail(paths[crop], crop) for position, crop in crops.items()}


def _focus(row: _Row, position: int) -> tuple[DrawnBox, ...]:
    return () if position == WHOLE_IMAGE else (row.boxes[position],)
