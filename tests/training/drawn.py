"""A drawn dataset with proposals made by moving the annotated boxes about, for tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import imaging, schema, shards, storage
from pipeline.manifests import AnnotatedObject, Manifest, ManifestRow, open_manifest, write_manifest
from pipeline.run_record import RunRecord
from pipeline.sources.drawn import CLASSES, DrawnImage, draw_image
from pipeline.training.source import Source, open_manifests, open_sources


def make_dataset(
    folder: Path, images: int = 8, shard_size: int = 3, seed: int = 0
) -> tuple[str, str, list[DrawnImage]]:
    """Manifest URI, proposals URI and the images themselves."""
    drawn = [draw_image(np.random.default_rng([seed, i])) for i in range(images)]
    rows = []
    for index, image in enumerate(drawn):
        place = folder / "images" / f"p{index}.png"
        storage.put(str(place), imaging.encode_png(image.image))
        height, width = image.image.shape[:2]
        objects = tuple(
            AnnotatedObject(label, *(float(v) for v in box))
            for label, box in zip(image.labels, image.boxes, strict=True)
        )
        rows.append(ManifestRow(f"p{index}", str(place), width, height, objects))
    manifest_uri = str(folder / "manifest.parquet")
    write_manifest(manifest_uri, rows, CLASSES)
    proposals_uri = str(folder / "proposals")
    boxes = [jittered(p, np.random.default_rng([seed, 1, i])) for i, p in enumerate(drawn)]
    write_proposals(open_manifest(manifest_uri), proposals_uri, boxes, shard_size)
    return manifest_uri, proposals_uri, drawn


def jittered(image: DrawnImage, generator: np.random.Generator) -> np.ndarray:
    """Boxes `(N, 4)` around each object, from near to far, and some anywhere."""
    height, width = image.image.shape[:2]
    sides = image.boxes[:, 2:] - image.boxes[:, :2]
    around = np.concatenate(
        [
            image.boxes + generator.normal(0, spread, image.boxes.shape) * np.tile(sides, 2)
            for spread in np.linspace(0.03, 0.4, 24)
        ]
    )
    corners = generator.uniform(0, [width, height], (60, 2))
    anywhere = np.concatenate([corners, corners + generator.uniform(16, 140, (60, 2))], axis=1)
    boxes = np.concatenate([around, anywhere])
    boxes = np.clip(boxes, 0, [width, height, width, height])
    keep = ((boxes[:, 2:] - boxes[:, :2]) > 8).all(axis=1)
    return generator.permutation(boxes[keep]).astype(np.float32)


def write_proposals(
    manifest: Manifest, output: str, boxes: list[np.ndarray | None], shard_size: int
) -> None:
    """Write parts as `propose` does; None stands for an image that failed."""
    cut = shards.cut(manifest, shard_size, len(boxes))
    record = RunRecord("propose", {"dataset": cut.dataset, "proposals": "jittered"})
    record.write(output)
    made = cut.shards(record.fingerprint)
    shards.write_table(output, made)
    for shard in made:
        rows = manifest.read(shard.first_row, shard.rows)
        mine = boxes[shard.first_row : shard.first_row + shard.rows]
        columns = {
            "image_id": rows["image_id"],
            "width": rows["width"],
            "height": rows["height"],
            "boxes": schema.box_lists(mine),
            "status": ["failed" if found is None else "ok" for found in mine],
            "error_type": pa.nulls(len(mine), pa.string()),
            "error_message": pa.nulls(len(mine), pa.string()),
        }
        part = pa.table(columns, schema=schema.PROPOSALS)
        storage.put(storage.join(output, shard.part_name), shards.part_bytes(part))


def make_sources(folder: Path, **options: int) -> tuple[list[Source], list[DrawnImage]]:
    """The dataset, opened for training."""
    manifest_uri, proposals_uri, drawn = make_dataset(folder, **options)
    return open_sources(open_manifests([manifest_uri]), [proposals_uri]), drawn
