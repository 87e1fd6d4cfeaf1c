"""A sheet of images with their annotated and detected boxes, to see what the numbers mean."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import geometry, imaging, shards, uris
from pipeline.analysis.manifest_join import check_images, require_column
from pipeline.errors import StorageError, UnreadableDataset, UnreadableImage
from pipeline.image_members import read_members
from pipeline.image_reader import read_image
from pipeline.manifests import Manifest, open_manifest

_log = logging.getLogger(__name__)

_CELL = 360


def draw_detection_sheet(
    detections: shards.Parts | str,
    manifest: Manifest | str,
    count: int = 12,
    *,
    min_score: float = 0.5,
    seed: int = 0,
    columns: int = 4,
) -> NDArray[np.uint8]:
    """Draw randomly chosen images: annotated boxes dashed, detected ones coloured by class.

    Args:
        detections: an output of `detect`, opened or its URI.
        manifest: the manifest from which it was made, opened or its URI.
        count: number of images; fewer if the dataset has fewer readable ones.
        min_score: lowest score of the detections to draw.
        seed: seed of the random choice.
        columns: images in a row.

    Returns:
        A uint8 `(H, W, 3)` image.

    Raises:
        UnreadableDataset: no image can be read, or manifest and detections are of different images.
    """
    if isinstance(manifest, str):
        manifest = open_manifest(manifest)
    if isinstance(detections, str):
        detections = shards.open_parts(detections)
    require_column(detections, "detections", "detect")
    images: list[NDArray[np.uint8]] = []
    for results, annotated in _shuffle_rows(detections, manifest, seed):
        if len(images) == count:
            break
        uri = annotated.column("uri")[0].as_py()
        try:
            (member,) = read_members(annotated, manifest.uri, 0)
            image = imaging.decode_image(read_image(uri, member), manifest.decoding)
        except (UnreadableImage, StorageError) as error:
            _log.info("%s is not on the sheet: %s", uris.redact_uri(uri), error)
            continue
        images.append(_draw_image(image, results, annotated, min_score))
    if not images:
        raise UnreadableDataset(
            f"none of the images of {uris.redact_uri(manifest.uri)} can be read"
        )
    return imaging.arrange_sheet(images, min(columns, len(images)), _CELL)


def _shuffle_rows(
    parts: shards.Parts, manifest: Manifest, seed: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield single rows of the detections and of the manifest, in random order."""
    ends = np.cumsum([shard.rows for shard in parts.shards])
    for row in np.random.default_rng(seed).permutation(parts.rows):
        shard = parts.shards[int(np.searchsorted(ends, row, side="right"))]
        results = parts.read(shard, ["image_id", "detections"])
        annotated = manifest.read(int(row), 1, [*manifest.image_columns, "objects"])
        result = results.slice(int(row) - shard.first_row, 1)
        check_images(parts, manifest, int(row), result, annotated)
        yield result, annotated


def _draw_image(
    image: NDArray[np.uint8], results: pa.Table, annotated: pa.Table, min_score: float
) -> NDArray[np.uint8]:
    """Draw boxes on the image at the size of its cell, so that lines and captions stay readable."""
    factor = (_CELL - 8) / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    objects = annotated.column("objects")[0].as_py() or []
    detections = results.column("detections")[0].as_py() or []
    detections = [detection for detection in detections if detection["score"] >= min_score]
    detections.sort(key=lambda detection: detection["score"])  # the best is drawn last, on top
    with_objects = imaging.draw_dashed_boxes(
        imaging.resize(image, width, height), _scale_boxes(objects, factor)
    )
    return imaging.draw_boxes(
        with_objects,
        _scale_boxes(detections, factor),
        [f"{detection['label']} {detection['score']:.2f}" for detection in detections],
        [detection["label_id"] for detection in detections],
    )


def _scale_boxes(rows: Sequence[Mapping[str, Any]], factor: float) -> NDArray[np.float64]:
    corners = [[row["x1"], row["y1"], row["x2"], row["y2"]] for row in rows]
    scaled: NDArray[np.float64] = geometry.scale(
        np.array(corners, np.float64).reshape(-1, 4), factor, factor
    )
    return scaled
