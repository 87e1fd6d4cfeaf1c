"""Stored proposals with a damaged part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from pipeline import schema, shards
from pipeline.analysis.recall import ProposalRecall, evaluate_proposals
from pipeline.manifests import open_manifest
from pipeline.proposals.stored_proposals import open_stored_proposals
from tests.fuzz.target import Target
from tests.fuzz.targets.run_outputs import IMAGES, damage_part, read_rows, write_output
from tests.fuzz.targets.source_answers import find_fault_in_box


@dataclass(frozen=True)
class _Answer:
    """Proposals as detection, training and evaluation read them."""

    image_ids: list[str]
    boxes: list[NDArray[np.float32]]
    recall: ProposalRecall


def _write(folder: Path, random: Random) -> str:
    return damage_part(*write_output(folder, "propose"), random)


def _read(folder: Path) -> _Answer:
    manifest = open_manifest(str(folder / "manifest.parquet"))
    output = str(folder / "output")
    stored = open_stored_proposals(output, manifest)
    table = stored.locate(0, manifest.rows).read_table()
    boxes = schema.split_box_column(table["boxes"])
    return _Answer(table["image_id"].to_pylist(), boxes, evaluate_proposals(output, manifest))


def _find_fault(folder: Path, answer: _Answer) -> str | None:
    if answer.image_ids != list(IMAGES):
        return f"the manifest's images are {IMAGES}, the proposals' {answer.image_ids}"
    if len(answer.boxes) != len(IMAGES):
        return f"{len(answer.boxes)} box lists"
    scores = (answer.recall.recall50, answer.recall.mabo, answer.recall.average_recall)
    if not all(score is None or 0 <= score <= 1 for score in scores):
        return f"the recall is {scores}"
    if answer.recall.images != len(IMAGES):
        return f"{answer.recall.images} images are evaluated"
    for boxes in answer.boxes:
        for box in boxes.tolist():
            fault = find_fault_in_box(box)
            if fault is not None:
                return fault
    return _compare_boxes(folder, answer)


def _compare_boxes(folder: Path, answer: _Answer) -> str | None:
    """Whether each image has the boxes of its own row."""
    boxes = iter(answer.boxes)
    for shard in shards.read_shard_table(str(folder / "output")) or ():
        rows = read_rows(folder / "output" / shard.part_name)
        if rows is None or len(rows) != shard.rows:
            return f"pyarrow reads {rows and len(rows)} rows of part {shard.ordinal}"
        for row in rows:
            stored, read = row["boxes"] or [], next(boxes).tolist()
            if len(stored) != len(read) or not all(
                math.isclose(a, b, rel_tol=1e-6)
                for one, other in zip(stored, read, strict=True)
                for a, b in zip(one, other, strict=True)
            ):
                return f"image {row['image_id']!r} has {stored!r:.200}, read as {read!r:.200}"
    return None


TARGETS = (Target("proposals", _write, _read, _find_fault),)
