"""A small run written by hand: three images, one of them failed, with hostile labels, and its metrics."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import schema, shards
from pipeline.analysis.diagnostics import DiagnosticCounts, DiagnosticOptions
from pipeline.analysis.image_facts import read_image_facts
from pipeline.analysis.manifest_join import JoinedBatch
from pipeline.analysis.match_table import build_matches, read_matches
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import AnnotatedObject, ManifestRow, open_manifest
from pipeline.report.shard_steps import ReportSources
from pipeline.run_record import RunRecord
from pipeline.shards import Parts, Shard

CLASSES = ("<script>alert(1)</script>", "=cmd()", "dog")
SIZE = (160, 120)


@dataclass(frozen=True)
class HandMadeRun:
    """The inputs of a report."""

    sources: ReportSources
    metrics: dict[str, Any]


def write_run(folder: Path, *, is_annotated: bool = True, images: int = 6) -> HandMadeRun:
    """Write images, manifest, detections and matches into a folder, in two shards."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_write_image(folder, row, is_annotated) for row in range(images)]
    manifest_uri = str(folder / "manifest.parquet")
    write_manifest(manifest_uri, rows, CLASSES if is_annotated else None)
    manifest = open_manifest(manifest_uri)
    half = images // 2
    detections = _write_detections(folder / "detections", [rows[:half], rows[half:]])
    matches = _write_matches(folder / "matches", detections, manifest)
    sources = ReportSources(matches, detections, manifest)
    return HandMadeRun(sources, _compute_metrics(sources, is_annotated))


def _write_image(folder: Path, row: int, is_annotated: bool) -> ManifestRow:
    path = folder / f"image-{row}.png"
    pixels = np.random.default_rng(row).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    if row == 1:
        path.write_bytes(b"no image")
    objects = (
        AnnotatedObject(CLASSES[0], 10, 10, 60, 60),
        AnnotatedObject(CLASSES[1], 70, 20, 120, 90),
        AnnotatedObject("dog", 130, 100, 138, 108),
        AnnotatedObject("dog", 100, 95, 120, 115, difficult=True),
    )
    return ManifestRow(f"image <{row}>", str(path), *SIZE, objects if is_annotated else None)


def _list_detections(row: int) -> list[dict[str, Any]]:
    """A true one, a confusion, a small true one in every other image, and one on nothing."""
    boxes: list[tuple[int, float, tuple[float, float, float, float]]] = [
        (0, 0.9, (12, 10, 60, 58)),
        (2, 0.8, (70, 22, 120, 88)),
        (1, 0.7, (5, 80, 45, 115)),
        (2, 0.05, (150, 0, 158, 20)),
    ]
    if row % 2 == 0:
        boxes.append((2, 0.6, (130, 100, 138, 109)))
    return [
        {"label": CLASSES[k], "label_id": k, "score": score}
        | dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
        for k, score, box in sorted(boxes, key=lambda box: -box[1])
    ]


def _write_detections(folder: Path, pieces: list[list[ManifestRow]]) -> Parts:
    record = RunRecord("detect", {"dataset": "d1"}, {"manifest": "memory://user:secret@host/m"})
    record.write(str(folder))
    target = schema.add_metadata(
        schema.DETECTIONS, {"classes": list(CLASSES), "fingerprint": record.fingerprint}
    )
    listed, first = [], 0
    for ordinal, rows in enumerate(pieces):
        shard = Shard(ordinal, f"{ordinal:024x}", first, len(rows))
        listed.append(shard)
        values = [_build_result(first + index, row) for index, row in enumerate(rows)]
        shards.put_part(str(folder), shard, pa.Table.from_pylist(values, schema=target))
        first += len(rows)
    shards.write_shard_table(str(folder), listed)
    summary = {
        "images": first,
        "images_failed": 1,
        "seconds": 3.0,
        "stage_seconds": {"detect": 2.5},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return shards.open_parts(str(folder))


def _build_result(row: int, image: ManifestRow) -> dict[str, Any]:
    is_failed = row == 1
    return {
        "image_id": image.image_id,
        "uri": image.uri,
        "width": None if is_failed else SIZE[0],
        "height": None if is_failed else SIZE[1],
        "status": "failed" if is_failed else "ok",
        "stage": "decode" if is_failed else None,
        "error_type": "UnreadableImage" if is_failed else None,
        "error_message": "not an image" if is_failed else None,
        "num_proposals": None if is_failed else 50,
        "detections": None if is_failed else _list_detections(row),
    }


def _write_matches(folder: Path, detections: Parts, manifest: Any) -> Parts:
    for shard in detections.shards:
        results = detections.read(shard)
        batch = JoinedBatch(shard.first_row, results, manifest.read(shard.first_row, shard.rows))
        proposals = [np.array([[0, 0, 70, 70], [60, 10, 125, 95]], np.float32)] * shard.rows
        table = build_matches(batch, CLASSES, shard.ordinal, proposals)
        shards.put_part(str(folder), shard, table, one_row_per_image=False)
    return replace(detections, uri=str(folder), fingerprint=None, one_row_per_image=False)


def _compute_metrics(sources: ReportSources, is_annotated: bool) -> dict[str, Any]:
    """The metrics that the job would write, with all diagnostics."""
    counts = DiagnosticCounts(CLASSES, DiagnosticOptions(resamples=20))
    for shard in sources.detections.shards:
        results = sources.detections.read(shard)
        matches = read_matches(sources.matches.read(shard))
        sizes = sources.manifest.read(shard.first_row, shard.rows, ["width", "height"])
        counts.update(matches, read_image_facts(results, shard.first_row, sizes))
        counts.update_distributions(results)
    diagnostics = counts.compute()
    scores = {"coco_ap": 0.5, "coco_ap50": 0.6, "voc07_map50": 0.55, "coco_ap_small": 0.2}
    metrics = {
        **(scores if is_annotated else dict.fromkeys(scores)),
        "images": sources.manifest.rows,
        "unlabelled": 0 if is_annotated else sources.manifest.rows,
        "failed_by_reason": {"decode: UnreadableImage": 1},
        "per_class": [
            {"label": label, "ap11": 0.4, "ap_area": 0.4, "coco_ap": None} for label in CLASSES
        ],
        "notes": ["scored over the first images", *diagnostics.notes],
        **diagnostics.to_json(),
    }
    decoded: dict[str, Any] = json.loads(json.dumps(metrics))
    return decoded
