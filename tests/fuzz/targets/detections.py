"""Stored detections with a damaged part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow as pa

from pipeline import shards
from pipeline.analysis.detection_metrics import DetectionMetrics
from pipeline.analysis.evaluation import evaluate
from pipeline.manifests import open_manifest
from tests.fuzz.target import Target
from tests.fuzz.targets.manifests import are_alike
from tests.fuzz.targets.run_outputs import IMAGES, damage_part, read_rows, write_output
from tests.fuzz.targets.source_answers import find_fault_in_box

COLUMNS = ["image_id", "status", "detections"]
"""The columns that are read; damage in another one is nobody's fault."""


@dataclass(frozen=True)
class _Answer:
    """Detections as analysis and export read them, and their scores."""

    table: pa.Table
    metrics: DetectionMetrics


def _write(folder: Path, random: Random) -> str:
    return damage_part(*write_output(folder, "detect"), random)


def _read(folder: Path) -> _Answer:
    manifest = open_manifest(str(folder / "manifest.parquet"))
    parts = shards.open_parts(str(folder / "output"))
    metrics = evaluate(parts, manifest)
    return _Answer(pa.concat_tables(parts.read_tables(COLUMNS)), metrics)


def _find_fault(folder: Path, answer: _Answer) -> str | None:
    metrics, rows = answer.metrics, answer.table.to_pylist()
    if [row["image_id"] for row in rows] != list(IMAGES) or metrics.images != len(IMAGES):
        return f"the images are {[row['image_id'] for row in rows]}, {metrics.images} evaluated"
    if not all(s is None or 0 <= s <= 1 for s in (metrics.voc_map50, metrics.coco_ap)):
        return f"the scores are {metrics.voc_map50}, {metrics.coco_ap}"
    counted = sum(len(row["detections"] or ()) for row in rows)
    if metrics.detections > counted:
        return f"{metrics.detections} detections are evaluated, the parts hold {counted}"
    for row in rows:
        for item in row["detections"] or ():
            fault = find_fault_in_box([item[corner] for corner in ("x1", "y1", "x2", "y2")])
            if fault is not None:
                return fault
            if item["score"] is None or not math.isfinite(item["score"]) or item["label"] is None:
                return f"a detection is {item}"
    return _compare_rows(folder, rows)


def _compare_rows(folder: Path, rows: list[dict[str, object]]) -> str | None:
    """Whether each row holds what its part says."""
    remaining = iter(rows)
    for shard in shards.read_shard_table(str(folder / "output")) or ():
        stored = read_rows(folder / "output" / shard.part_name, COLUMNS)
        if stored is None or len(stored) != shard.rows:
            return f"pyarrow reads {stored and len(stored)} rows of part {shard.ordinal}"
        for row in stored:
            read = next(remaining)
            wrong = [name for name, value in read.items() if not are_alike(row.get(name), value)]
            if wrong:
                return f"{wrong[0]} is {row.get(wrong[0])!r:.200}, read as {read[wrong[0]]!r:.200}"
    return None


TARGETS = (Target("detections", _write, _read, _find_fault),)
