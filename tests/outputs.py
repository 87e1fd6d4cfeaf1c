"""Outputs of propose and detect, written through the same calls as the runs write them, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema, shards, storage
from pipeline.manifests import AnnotatedObject, ManifestRow, open_manifest, write_manifest
from pipeline.run_record import RunRecord

Box = Sequence[float]


@dataclass(frozen=True)
class Failure:
    """What stands in a failed image's place."""

    error_type: str = "UnreadableImage"
    stage: str = "read"
    message: str = "the file is empty (0 bytes)"


def an_object(label: str, box: Box, **flags: bool) -> AnnotatedObject:
    """An annotated object from its corners."""
    return AnnotatedObject(label, *(float(side) for side in box), **flags)


def write_annotations(
    uri: str,
    images: Mapping[str, Iterable[AnnotatedObject] | None],
    classes: Sequence[str] | None = None,
    *,
    size: tuple[int, int] | None = (100, 100),
    uris: Mapping[str, str] | None = None,
) -> str:
    """A manifest from the objects of each image, and its URI; None is an unlabelled image."""
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
    )
    return uri


def write_detections(
    folder: str,
    manifest_uri: str,
    images: Mapping[str, Sequence[tuple[str, float, Box]] | Failure],
    classes: Sequence[str],
    *,
    shard_size: int = 2,
) -> str:
    """An output of detect from (label, score, box) of each image, and its URI.

    The images are the manifest's first ones; fewer than it has are what a run with --limit leaves.
    """
    rows = [_detected(image_id, found, list(classes)) for image_id, found in images.items()]
    return _write(
        folder,
        manifest_uri,
        rows,
        schema.with_metadata(schema.DETECTIONS, {"classes": list(classes)}),
        shard_size,
    )


def write_proposals(
    folder: str,
    manifest_uri: str,
    images: Mapping[str, Sequence[Box] | Failure],
    *,
    shard_size: int = 2,
    size: tuple[int, int] = (100, 100),
) -> str:
    """An output of propose from each image's boxes, best first, and its URI."""
    rows = [_proposed(image_id, found, size) for image_id, found in images.items()]
    target = schema.with_metadata(schema.PROPOSALS, {"provenance": {"algorithm": "by hand"}})
    return _write(folder, manifest_uri, rows, target, shard_size)


def _detected(
    image_id: str, found: Sequence[tuple[str, float, Box]] | Failure, classes: list[str]
) -> dict[str, Any]:
    row = {"image_id": image_id, "uri": f"/images/{image_id}.jpg", **_status(found)}
    if isinstance(found, Failure):
        return row | {"stage": found.stage}
    detections = [
        {
            "label": label,
            "label_id": classes.index(label),
            "score": score,
            **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
        }
        for label, score, box in found
    ]
    return row | {"width": 100, "height": 100, "num_proposals": 9, "detections": detections}


def _proposed(
    image_id: str, found: Sequence[Box] | Failure, size: tuple[int, int]
) -> dict[str, Any]:
    row = {"image_id": image_id, **_status(found)}
    if isinstance(found, Failure):
        return row
    boxes = np.asarray(found, np.float32).reshape(-1, 4).tolist()
    return row | {"width": size[0], "height": size[1], "boxes": boxes}


def _status(found: object) -> dict[str, Any]:
    if isinstance(found, Failure):
        return {
            "status": "failed",
            "error_type": found.error_type,
            "error_message": found.message,
        }
    return {"status": "ok"}


def _write(
    folder: str, manifest_uri: str, rows: list[dict[str, Any]], target: pa.Schema, shard_size: int
) -> str:
    record = RunRecord("test", {"rows": len(rows)})
    cut = shards.cut(open_manifest(manifest_uri), shard_size, limit=len(rows))
    planned = cut.shards(record.fingerprint)
    record.write(folder)
    shards.write_table(folder, planned)
    for shard in planned:
        of_shard = rows[shard.first_row : shard.first_row + shard.rows]
        table = pa.Table.from_pylist(of_shard, schema=target)
        storage.put(storage.join(folder, shard.part_name), shards.part_bytes(table))
    return folder
