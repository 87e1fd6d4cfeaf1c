"""A sheet of images with what was annotated and what was detected, to see what the numbers mean."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import geometry, imaging, shards, storage
from pipeline.analysis.joined import check_holds, check_images
from pipeline.errors import StorageError, UnreadableDataset, UnreadableImage
from pipeline.manifests import Manifest, open_manifest

_log = logging.getLogger(__name__)

_CELL = 360


def image_sheet(
    detections: shards.Parts | str,
    manifest: Manifest | str,
    count: int = 12,
    *,
    min_score: float = 0.5,
    seed: int = 0,
    columns: int = 4,
) -> NDArray[np.uint8]:
    """Draw a random choice of images: annotated boxes dashed, detected ones coloured by class.

    Args:
        detections: an output of `detect`, opened or its URI.
        manifest: the manifest it was made from, opened or its URI.
        count: how many images; fewer where the dataset has fewer that can be read.
        min_score: detections below it are not drawn.
        seed: of the choice.
        columns: images beside one another.

    Returns:
        A uint8 `(H, W, 3)` image.

    Raises:
        UnreadableDataset: none of the images can be read, or manifest and detections differ.
    """
    if isinstance(manifest, str):
        manifest = open_manifest(manifest)
    if isinstance(detections, str):
        detections = shards.open_parts(detections)
    check_holds(detections, "detections", "detect")
    drawn: list[NDArray[np.uint8]] = []
    for results, annotated in _shuffled_rows(detections, manifest, seed):
        if len(drawn) == count:
            break
        uri = annotated.column("uri")[0].as_py()
        try:
            image = imaging.decode(storage.read(uri))
        except (UnreadableImage, StorageError) as error:
            _log.info("%s is not on the sheet: %s", storage.shown(uri), error)
            continue
        drawn.append(_with_boxes(image, results, annotated, min_score))
    if not drawn:
        raise UnreadableDataset(f"none of the images of {storage.shown(manifest.uri)} can be read")
    return imaging.sheet(drawn, min(columns, len(drawn)), _CELL)


def _shuffled_rows(
    parts: shards.Parts, manifest: Manifest, seed: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Single rows of the detections and of the manifest, in random order."""
    ends = np.cumsum([shard.rows for shard in parts.shards])
    for row in np.random.default_rng(seed).permutation(parts.rows):
        shard = parts.shards[int(np.searchsorted(ends, row, side="right"))]
        results = parts.read(shard, ["image_id", "detections"])
        annotated = manifest.read(int(row), 1)
        one = results.slice(int(row) - shard.first_row, 1)
        check_images(parts, manifest, int(row), one, annotated)
        yield one, annotated


def _with_boxes(
    image: NDArray[np.uint8], results: pa.Table, annotated: pa.Table, min_score: float
) -> NDArray[np.uint8]:
    """The image at the size it has on the sheet, so that lines and captions stay readable."""
    factor = (_CELL - 8) / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    objects = annotated.column("objects")[0].as_py() or []
    found = results.column("detections")[0].as_py() or []
    found = [one for one in found if one["score"] >= min_score]
    found.sort(key=lambda one: one["score"])  # the best ends on top
    with_truth = imaging.draw_dashed_boxes(
        imaging.resize(image, width, height), _corners(objects, factor)
    )
    return imaging.draw_boxes(
        with_truth,
        _corners(found, factor),
        [f"{one['label']} {one['score']:.2f}" for one in found],
        [one["label_id"] for one in found],
    )


def _corners(rows: Sequence[Mapping[str, Any]], factor: float) -> NDArray[np.float64]:
    corners = [[row["x1"], row["y1"], row["x2"], row["y2"]] for row in rows]
    scaled: NDArray[np.float64] = geometry.scale(
        np.array(corners, np.float64).reshape(-1, 4), factor, factor
    )
    return scaled
