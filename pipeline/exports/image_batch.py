"""Consecutive images with their boxes, as all formats take them: from detections or from a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import uris
from pipeline.analysis.detection_arrays import flatten_detections, flatten_ground_truth
from pipeline.exports.box_selection import BoxSelection

UNLABELLED = ("annotate", "Unlabelled", "the image is not annotated")
"""Stage, type and message of an image that has no annotations to export."""


@dataclass(frozen=True)
class LeftOutImage:
    """An image that is not in the export, and why."""

    image_id: str
    stage: str
    error_type: str
    message: str


@dataclass(frozen=True)
class ImageBatch:
    """P consecutive images of a manifest and the N boxes in them, image by image."""

    ordinal: int
    """Of the shard."""
    first_row: int
    """The manifest row of the first image."""
    image_ids: list[str]
    uris: list[str]
    """Without passwords and signatures."""
    sizes: list[tuple[int, int] | None]
    """Width and height in pixels; None if they are unknown."""
    left_out: dict[int, LeftOutImage]
    """The images that have no boxes because they failed or are not annotated, by their position."""
    offsets: NDArray[np.int64]
    """`(P + 1,)` the boxes of image k are those from `offsets[k]` to `offsets[k + 1]`."""
    class_ids: NDArray[np.int64]
    """`(N,)` indices into the selection's classes."""
    boxes: NDArray[np.float64]
    """`(N, 4)` x1, y1, x2, y2 in pixels."""
    scores: NDArray[np.float32] | None = None
    """`(N,)` of detections; None for annotated objects."""
    difficult: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    """`(N,)` of annotated objects; `(0,)` for detections."""
    crowd: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    """`(N,)` of annotated objects; `(0,)` for detections."""
    numbers: NDArray[np.int64] | None = None
    """`(P,)` COCO's integer ids of the images; None for other formats."""

    def __len__(self) -> int:
        """Images in the batch."""
        return len(self.image_ids)

    def iterate_kept(self) -> Iterator[int]:
        """Yield the positions of the images that are in the export."""
        return (index for index in range(len(self)) if index not in self.left_out)

    def slice_boxes(self, index: int) -> slice:
        """Where the boxes of an image are."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    @property
    def image(self) -> NDArray[np.int64]:
        """`(N,)` the position of each box's image."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def normalise_boxes(self) -> NDArray[np.float64]:
        """`(N, 4)` the boxes as shares of their image's sides, from 0 to 1; all kept images have sizes."""
        sides = np.array([size or (1, 1) for size in self.sizes], np.float64).reshape(-1, 2)
        return np.clip(self.boxes / np.tile(sides, 2)[self.image], 0, 1)


def build_detection_batch(
    results: pa.Table,
    manifest: pa.Table,
    selection: BoxSelection,
    place: tuple[int, int],
    numbers: NDArray[np.int64] | None = None,
) -> ImageBatch:
    """The batch of the rows of a part of detections.

    Args:
        results: rows of `schema.DETECTIONS`, checked.
        manifest: the same rows of the manifest, which has the sizes of failed images.
        selection: which detections to keep.
        place: the shard's ordinal and first row.
        numbers: COCO's ids.

    Raises:
        UnreadableDataset: a detection has a label that the output's metadata does not list.
    """
    detections = flatten_detections(results.column("detections"), selection.classes)
    keep = selection.find_kept(detections.class_id, detections.scores)
    detections = detections[keep]
    rows = zip(
        *(results.column(name).to_pylist() for name in _FAILURE_COLUMNS),
        strict=True,
    )
    left_out = {
        index: LeftOutImage(image_id, stage or "", error_type or "", message or "")
        for index, (image_id, status, stage, error_type, message) in enumerate(rows)
        if status != "ok"
    }
    return ImageBatch(
        *place,
        results.column("image_id").to_pylist(),
        _list_uris(manifest),
        _pair_sizes(results, manifest),
        left_out,
        _find_offsets(detections.image, len(results)),
        detections.class_id,
        detections.boxes,
        detections.scores,
        numbers=numbers,
    )


_FAILURE_COLUMNS = ("image_id", "status", "stage", "error_type", "error_message")


def build_object_batch(
    manifest: pa.Table,
    selection: BoxSelection,
    place: tuple[int, int],
    numbers: NDArray[np.int64] | None = None,
) -> ImageBatch:
    """The batch of a manifest's own rows and objects; arguments and errors as above."""
    objects = flatten_ground_truth(manifest.column("objects"), selection.classes)
    keep = selection.find_kept(objects.class_id, None)
    image_ids = manifest.column("image_id").to_pylist()
    is_annotated = pc.is_valid(manifest.column("objects")).to_pylist()
    return ImageBatch(
        *place,
        image_ids,
        _list_uris(manifest),
        _pair_sizes(manifest, manifest),
        {
            index: LeftOutImage(image_ids[index], *UNLABELLED)
            for index, annotated in enumerate(is_annotated)
            if not annotated
        },
        _find_offsets(objects.image[keep], len(manifest)),
        objects.class_id[keep],
        objects.boxes[keep],
        difficult=objects.difficult[keep],
        crowd=objects.crowd[keep],
        numbers=numbers,
    )


def _list_uris(manifest: pa.Table) -> list[str]:
    return list(map(uris.strip_secrets, manifest.column("uri").to_pylist()))


def _pair_sizes(first: pa.Table, second: pa.Table) -> list[tuple[int, int] | None]:
    """Width and height of each image from the first table, else from the second."""
    pairs: list[tuple[int, int] | None] = []
    columns = [table.column(name).to_pylist() for table in (first, second) for name in _SIDES]
    for width, height, stated_width, stated_height in zip(*columns, strict=True):
        if width and height:
            pairs.append((width, height))
        else:
            pairs.append((stated_width, stated_height) if stated_width and stated_height else None)
    return pairs


_SIDES = ("width", "height")


def _find_offsets(image: NDArray[np.int64], images: int) -> NDArray[np.int64]:
    counts = np.bincount(image, minlength=images)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def format_numbers(values: NDArray[np.floating]) -> Sequence[str]:
    """The shortest decimal texts that give the same numbers again, as JSON, XML and CSV have them."""
    texts: Sequence[str] = pc.cast(pa.array(values), pa.string()).to_pylist()
    return texts
