"""The tables that a run commits: one builder per schema, from images and what was computed on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema, uris
from pipeline.candidate_thresholds import CANDIDATE_SCORES
from pipeline.runs.encoded_image import EncodedImage


class LabelledBoxes(Protocol):
    """The detections of one image, best first, as a detector returns them."""

    @property
    def boxes(self) -> NDArray[np.float32]:
        """`(D, 4)` in pixels of the original image."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """Indices `(D,)` into the checkpoint's classes."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores `(D,)`."""


def build_proposals_table(
    images: Sequence[EncodedImage], provenance: Mapping[str, Any], fingerprint: str
) -> pa.Table:
    """Rows of `schema.PROPOSALS`, one per image; a failed image has null boxes."""
    columns = build_common_columns(images)
    columns["boxes"] = schema.build_box_column(
        [None if image.failure else image.boxes for image in images]
    )
    metadata = {"provenance": provenance, "fingerprint": fingerprint}
    target = _add_image_facts(schema.PROPOSALS, columns, images)
    return pa.table(columns, schema=schema.add_metadata(target, metadata))


def build_detections_table(
    images: Sequence[EncodedImage],
    detections: Sequence[LabelledBoxes | None],
    classes: Sequence[str],
    fingerprint: str,
    candidate_scores: Sequence[NDArray[np.float32] | None] | None = None,
) -> pa.Table:
    """Rows of `schema.DETECTIONS`, one per image; a failed image has null detections.

    Args:
        images: the shard's images in the order of the manifest.
        detections: for each image its detections, or None if it failed.
        classes: the checkpoint's classes, which labels index.
        fingerprint: of the run.
        candidate_scores: for each image the scores that entered NMS, or None if it failed; only for a run
            whose thresholds depend on all images. They become one more column.
    """
    columns = build_common_columns(images)
    columns["uri"] = pa.array([uris.strip_secrets(image.uri) for image in images], pa.string())
    stages = [image.failure.stage if image.failure else None for image in images]
    columns["stage"] = pa.array(stages, pa.string())
    counts = [None if image.boxes is None else len(image.boxes) for image in images]
    columns["num_proposals"] = pa.array(counts, pa.int32())
    columns["detections"] = _build_detection_column(detections, classes)
    metadata = {"classes": list(classes), "fingerprint": fingerprint}
    target = _add_image_facts(schema.DETECTIONS, columns, images)
    if candidate_scores is not None:
        columns[CANDIDATE_SCORES.name] = pa.array(candidate_scores, CANDIDATE_SCORES.type)
        target = target.append(CANDIDATE_SCORES)
    return pa.table(columns, schema=schema.add_metadata(target, metadata))


def _add_image_facts(
    target: pa.Schema, columns: dict[str, pa.Array], images: Sequence[EncodedImage]
) -> pa.Schema:
    """Add the columns `schema.IMAGE_FACTS` if the images have keys: those of imported proposals have none."""
    if not any(image.key for image in images):
        return target
    contents = [image.content for image in images]
    values = (
        [image.key for image in images],
        [content and content.size for content in contents],
        [content and content.md5 for content in contents],
    )
    for field, column in zip(schema.IMAGE_FACTS, values, strict=True):
        columns[field.name] = pa.array(column, field.type)
        target = target.append(field)
    return target


def build_common_columns(images: Sequence[EncodedImage]) -> dict[str, pa.Array]:
    """The columns that all tables with a row per image have: its id and size, and whether it failed."""
    failures = [image.failure for image in images]
    return {
        "image_id": pa.array([image.image_id for image in images], pa.string()),
        "width": pa.array([image.width for image in images], pa.int32()),
        "height": pa.array([image.height for image in images], pa.int32()),
        "status": pa.array(["failed" if failure else "ok" for failure in failures], pa.string()),
        "error_type": pa.array([f.error_type if f else None for f in failures], pa.string()),
        "error_message": pa.array([f.message if f else None for f in failures], pa.string()),
    }


def _build_detection_column(
    detections: Sequence[LabelledBoxes | None], classes: Sequence[str]
) -> pa.ListArray:
    present = [of_image for of_image in detections if of_image is not None]
    boxes = np.concatenate([np.empty((0, 4), np.float32), *(d.boxes for d in present)])
    label_ids = np.concatenate([np.empty(0, np.int32), *(d.labels for d in present)])
    scores = np.concatenate([np.empty(0, np.float32), *(d.scores for d in present)])
    labels = pa.array(classes, pa.string()).take(pa.array(label_ids, pa.int32()))
    corners = [pa.array(np.ascontiguousarray(boxes[:, i]), pa.float32()) for i in range(4)]
    values = pa.StructArray.from_arrays(
        [labels, pa.array(label_ids, pa.int32()), pa.array(scores, pa.float32()), *corners],
        fields=list(schema.DETECTION),
    )
    counts = [0 if of_image is None else len(of_image.scores) for of_image in detections]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    missing = pa.array([of_image is None for of_image in detections], pa.bool_())
    return pa.ListArray.from_arrays(offsets, values, mask=missing)
