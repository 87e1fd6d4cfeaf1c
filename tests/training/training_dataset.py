"""A drawn dataset with jittered annotated boxes as proposals, for tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import imaging, schema, shards, storage, uris
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.targets import TargetStatistics
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import AnnotatedObject, Manifest, ManifestRow, open_manifest
from pipeline.run_record import RunRecord
from pipeline.sources.drawn_dataset import CLASSES, DrawnImage, draw_image
from pipeline.training.annotated_dataset import (
    AnnotatedDataset,
    open_annotated_datasets,
    open_annotated_manifests,
)
from pipeline.training.recipe import Recipe
from pipeline.training.sample_loader import Sample, SampleLoader

RECIPE = Recipe(short_sides=(200,), max_side=400)
PLAIN_STATISTICS = TargetStatistics(np.zeros((7, 4), np.float32), np.ones((7, 4), np.float32))


def write_dataset(
    folder: Path, images: int = 8, shard_size: int = 3, seed: int = 0
) -> tuple[str, str, list[DrawnImage]]:
    """Manifest URI, proposals URI and the images."""
    drawn = [draw_image(np.random.default_rng([seed, i])) for i in range(images)]
    rows = []
    for index, image in enumerate(drawn):
        path = folder / "images" / f"p{index}.png"
        storage.put(str(path), imaging.encode_png(image.image))
        height, width = image.image.shape[:2]
        objects = tuple(
            AnnotatedObject(label, *(float(v) for v in box))
            for label, box in zip(image.labels, image.boxes, strict=True)
        )
        rows.append(ManifestRow(f"p{index}", str(path), width, height, objects))
    manifest_uri = str(folder / "manifest.parquet")
    write_manifest(manifest_uri, rows, CLASSES)
    proposals_uri = str(folder / "proposals")
    boxes = [jitter_boxes(p, np.random.default_rng([seed, 1, i])) for i, p in enumerate(drawn)]
    write_proposals(open_manifest(manifest_uri), proposals_uri, boxes, shard_size)
    return manifest_uri, proposals_uri, drawn


def jitter_boxes(image: DrawnImage, generator: np.random.Generator) -> np.ndarray:
    """Boxes `(N, 4)` around every object, from near to far, and some anywhere."""
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
    """Write parts as `propose` does; None marks a failed image."""
    cut = shards.cut_manifest(manifest, shard_size, len(boxes))
    record = RunRecord("propose", {"dataset": cut.dataset, "proposals": "jittered"})
    record.write(output)
    planned = cut.build_shards(record.fingerprint)
    shards.write_shard_table(output, planned)
    for shard in planned:
        rows = manifest.read(shard.first_row, shard.rows)
        shard_boxes = boxes[shard.first_row : shard.first_row + shard.rows]
        columns = {
            "image_id": rows["image_id"],
            "width": rows["width"],
            "height": rows["height"],
            "boxes": schema.build_box_column(shard_boxes),
            "status": ["failed" if proposals is None else "ok" for proposals in shard_boxes],
            "error_type": pa.nulls(len(shard_boxes), pa.string()),
            "error_message": pa.nulls(len(shard_boxes), pa.string()),
        }
        part = pa.table(columns, schema=schema.PROPOSALS)
        storage.put(uris.join(output, shard.part_name), shards.encode_part(part))


def open_drawn_datasets(
    folder: Path, **options: int
) -> tuple[list[AnnotatedDataset], list[DrawnImage]]:
    """The dataset, opened for training."""
    manifest_uri, proposals_uri, drawn = write_dataset(folder, **options)
    return open_annotated_datasets(open_annotated_manifests([manifest_uri]), [proposals_uri]), drawn


def make_loader(
    datasets: list[AnnotatedDataset],
    recipe: Recipe = RECIPE,
    seed: int = 0,
    statistics: TargetStatistics = PLAIN_STATISTICS,
) -> SampleLoader:
    """A loader whose targets are not normalised unless `statistics` says so."""
    return SampleLoader(datasets, recipe, Preprocessing(), statistics, seed)


def assert_same_samples(first: Sample, second: Sample) -> None:
    """Equal arrays, bit for bit."""
    for name in ("image", "rois", "labels", "targets"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
