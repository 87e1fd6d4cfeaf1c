"""The inputs of `analysis`: a manifest and an output of detect, drawn shard by shard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import schema, shards, storage, uris
from pipeline.manifests import ROW_GROUP, open_manifest
from pipeline.run_record import RunRecord

WIDTH, HEIGHT = 640, 480


@dataclass(frozen=True)
class DrawnDataset:
    """How many images there are, and what is in them."""

    images: int = 5000
    classes: int = 80
    detections_per_image: int = 97
    objects_per_image: float = 7.4
    shard_size: int = 256
    image_folder: str = "s3://bucket/images"
    """Where the images are, by their image_id; nothing is written there."""
    main_share: float = 0.0
    """The share of the objects and detections that are of the first class; the others are of any."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes."""
        return tuple(f"class {index:03d}" for index in range(self.classes))


def write_inputs(dataset: DrawnDataset, folder: str) -> tuple[str, str]:
    """Write the manifest and the detections, and return their URIs."""
    manifest, detections = uris.join(folder, "manifest.parquet"), uris.join(folder, "detections")
    metadata = {"classes": list(dataset.labels)}
    drawn = [
        draw_rows(dataset, first, min(dataset.shard_size, dataset.images - first))
        for first in range(0, dataset.images, dataset.shard_size)
    ]
    rows = pa.concat_tables([table for table, _ in drawn])
    rows = rows.cast(schema.add_metadata(schema.MANIFEST, metadata))
    pq.write_table(rows, manifest, row_group_size=ROW_GROUP, compression="zstd")
    cut = shards.cut_manifest(open_manifest(manifest), dataset.shard_size)
    record = RunRecord("detect", {"dataset": cut.dataset})
    record.write(detections)
    planned = cut.build_shards(record.fingerprint)
    shards.write_shard_table(detections, planned)
    target = schema.add_metadata(schema.DETECTIONS, metadata | {"fingerprint": record.fingerprint})
    for shard, (_, table) in zip(planned, drawn, strict=True):
        shards.put_part(detections, shard, table.cast(target))
    assert storage.exists(uris.join(detections, planned[-1].part_name))
    return manifest, detections


def draw_rows(dataset: DrawnDataset, first_row: int, rows: int) -> tuple[pa.Table, pa.Table]:
    """Draw the manifest's rows and the detections of some images, seeded by their first row.

    Of the detections, an eighth are near objects of their class, another eighth near objects of any class,
    and the others anywhere; scores near objects are higher.
    """
    rng = np.random.default_rng(first_row)
    objects = np.sort(rng.integers(0, rows, round(rows * dataset.objects_per_image)))
    boxes = _draw_boxes(rng, len(objects))
    class_id = _draw_classes(rng, dataset, len(objects))
    structs = _build_structs(
        dataset, class_id, boxes, difficult=rng.random(len(objects)) < 0.02, crowd=None
    )
    ids = [f"{row:012d}" for row in range(first_row, first_row + rows)]
    images: dict[str, object] = {
        "image_id": ids,
        "uri": [f"{dataset.image_folder}/{image_id}.jpg" for image_id in ids],
        "width": pa.array(np.full(rows, WIDTH), pa.int32()),
        "height": pa.array(np.full(rows, HEIGHT), pa.int32()),
    }
    manifest = pa.table(
        images | {"objects": _build_lists(objects, rows, structs)}, schema=schema.MANIFEST
    )
    found = _draw_detections(rng, dataset, objects, boxes, class_id)
    order = np.lexsort((-found["score"], found["image"]))
    image, score = found["image"][order], found["score"][order]
    structs = _build_structs(dataset, found["class_id"][order], found["box"][order], score=score)
    detections = pa.table(
        images
        | {
            "status": ["ok"] * rows,
            "stage": pa.nulls(rows, pa.string()),
            "error_type": pa.nulls(rows, pa.string()),
            "error_message": pa.nulls(rows, pa.string()),
            "num_proposals": pa.array(np.full(rows, 2000), pa.int32()),
            "detections": _build_lists(image, rows, structs),
        },
        schema=schema.DETECTIONS,
    )
    return manifest, detections


def _draw_boxes(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    sides = np.exp(rng.normal(4.2, 0.9, (count, 2))).clip(4, 400)
    corners = rng.uniform(0, 1, (count, 2)) * (np.array([WIDTH, HEIGHT]) - sides)
    return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def _draw_classes(rng: np.random.Generator, dataset: DrawnDataset, count: int) -> NDArray[np.int64]:
    class_id = rng.integers(0, dataset.classes, count)
    class_id[rng.random(count) < dataset.main_share] = 0
    return class_id


def _draw_detections(
    rng: np.random.Generator,
    dataset: DrawnDataset,
    objects: NDArray[np.int64],
    boxes: NDArray[np.float32],
    class_id: NDArray[np.int64],
) -> dict[str, NDArray]:
    rows = int(objects[-1]) + 1
    count = rows * dataset.detections_per_image
    image = rng.integers(0, rows, count)
    source = rng.integers(0, len(objects), count)
    kind = rng.random(count)
    is_near = kind < 0.25
    image[is_near] = objects[source[is_near]]
    labels = _draw_classes(rng, dataset, count)
    labels[kind < 0.125] = class_id[source[kind < 0.125]]
    box = _draw_boxes(rng, count)
    near = boxes[source[is_near]]
    sides = np.tile(near[:, 2:] - near[:, :2], 2)
    box[is_near] = near + rng.normal(0, 0.12, (len(near), 4)) * sides
    box[:, 2:] = np.maximum(box[:, 2:], box[:, :2] + 1)
    score = rng.beta(1, 8, count) + is_near * rng.beta(2, 2, count)
    return {
        "image": image,
        "class_id": labels,
        "box": box,
        "score": score.clip(0.001, 1).astype(np.float32),
    }


def _build_structs(
    dataset: DrawnDataset,
    class_id: NDArray[np.int64],
    boxes: NDArray[np.float32],
    *,
    difficult: NDArray[np.bool_] | None = None,
    crowd: NDArray[np.bool_] | None = None,
    score: NDArray[np.float32] | None = None,
) -> pa.StructArray:
    label = pa.array(dataset.labels, pa.string()).take(pa.array(class_id))
    corners = [pa.array(np.ascontiguousarray(boxes[:, column])) for column in range(4)]
    if score is None:
        flags = [
            pa.array(np.zeros(len(boxes), np.bool_) if flag is None else flag)
            for flag in (difficult, crowd)
        ]
        return pa.StructArray.from_arrays([label, *corners, *flags], fields=list(schema.OBJECT))
    label_id = pa.array(class_id, pa.int32())
    return pa.StructArray.from_arrays(
        [label, label_id, pa.array(score), *corners], fields=list(schema.DETECTION)
    )


def _build_lists(image: NDArray[np.int64], images: int, structs: pa.StructArray) -> pa.ListArray:
    ends = np.cumsum(np.bincount(image, minlength=images))
    return pa.ListArray.from_arrays(pa.array(np.append(0, ends), pa.int32()), structs)
