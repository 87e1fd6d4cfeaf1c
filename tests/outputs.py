"""Writes small outputs of propose and detect for tests, through the calls that runs use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema, shards, storage, uris
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import AnnotatedObject, ManifestRow, open_manifest
from pipeline.run_record import RunRecord

Box = Sequence[float]


@dataclass(frozen=True)
class FailedImage:
    """The columns of a failed image."""

    error_type: str = "UnreadableImage"
    stage: str = "read"
    message: str = "the file is empty (0 bytes)"


def make_object(label: str, box: Box, **flags: bool) -> AnnotatedObject:
    """An annotated object from its corners x1, y1, x2, y2."""
    return AnnotatedObject(label, *(float(side) for side in box), **flags)


def write_annotations(
    uri: str,
    images: Mapping[str, Iterable[AnnotatedObject] | None],
    classes: Sequence[str] | None = None,
    *,
    size: tuple[int, int] | None = (100, 100),
    uris: Mapping[str, str] | None = None,
    category_ids: Sequence[int] | None = None,
) -> str:
    """Write a manifest from the objects of each image and return its URI; None is an unlabelled image."""
    width, height = size or (None, None)
    write_manifest(
        uri,
        [
            ManifestRow(
                image_id,
                (uris or {}).get(image_id, f"/images/{image_id}.jpg"),
                width,
                height,
                None if objects is None else tuple(objects),
            )
            for image_id, objects in images.items()
        ],
        classes,
        category_ids,
    )
    return uri


def write_detections(
    folder: str,
    manifest_uri: str,
    images: Mapping[str, Sequence[tuple[str, float, Box]] | FailedImage],
    classes: Sequence[str],
    *,
    shard_size: int = 2,
) -> str:
    """Write an output of detect from (label, score, box) of each image and return its URI.

    The images are the first of the manifest, as with `--limit`.
    """
    rows = [
        _build_detections_row(image_id, outcome, list(classes))
        for image_id, outcome in images.items()
    ]
    return _write(
        folder,
        manifest_uri,
        rows,
        schema.add_metadata(schema.DETECTIONS, {"classes": list(classes)}),
        shard_size,
    )


def write_proposals(
    folder: str,
    manifest_uri: str,
    images: Mapping[str, Sequence[Box] | FailedImage],
    *,
    shard_size: int = 2,
    size: tuple[int, int] = (100, 100),
) -> str:
    """Write an output of propose from each image's boxes, best first, and return its URI."""
    rows = [_build_proposals_row(image_id, outcome, size) for image_id, outcome in images.items()]
    target = schema.add_metadata(schema.PROPOSALS, {"provenance": {"algorithm": "by hand"}})
    return _write(folder, manifest_uri, rows, target, shard_size)


def _build_detections_row(
    image_id: str, outcome: Sequence[tuple[str, float, Box]] | FailedImage, classes: list[str]
) -> dict[str, Any]:
    row = {"image_id": image_id, "uri": f"/images/{image_id}.jpg", **_build_status(outcome)}
    if isinstance(outcome, FailedImage):
        return row | {"stage": outcome.stage}
    detections = [
        {
            "label": label,
            "label_id": classes.index(label),
            "score": score,
            **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
        }
        for label, score, box in outcome
    ]
    return row | {"width": 100, "height": 100, "num_proposals": 9, "detections": detections}


def _build_proposals_row(
    image_id: str, outcome: Sequence[Box] | FailedImage, size: tuple[int, int]
) -> dict[str, Any]:
    row = {"image_id": image_id, **_build_status(outcome)}
    if isinstance(outcome, FailedImage):
        return row
    boxes = np.asarray(outcome, np.float32).reshape(-1, 4).tolist()
    return row | {"width": size[0], "height": size[1], "boxes": boxes}


def _build_status(outcome: object) -> dict[str, Any]:
    if isinstance(outcome, FailedImage):
        return {
            "status": "failed",
            "error_type": outcome.error_type,
            "error_message": outcome.message,
        }
    return {"status": "ok"}


def _write(
    folder: str, manifest_uri: str, rows: list[dict[str, Any]], target: pa.Schema, shard_size: int
) -> str:
    record = RunRecord("test", {"rows": len(rows)})
    cut = shards.cut_manifest(open_manifest(manifest_uri), shard_size, limit=len(rows))
    planned = cut.build_shards(record.fingerprint)
    record.write(folder)
    shards.write_shard_table(folder, planned)
    for shard in planned:
        shard_rows = rows[shard.first_row : shard.first_row + shard.rows]
        table = pa.Table.from_pylist(shard_rows, schema=target)
        storage.put(uris.join(folder, shard.part_name), shards.encode_part(table))
    return folder
