"""Outputs of propose and detect with a damaged part, table or record."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import shards
from pipeline.manifests import open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.tables import build_detections_table, build_proposals_table
from pipeline.shards import Cut, Shard
from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.table_mutator import encode_table, mutate_table
from tests.outputs import make_object, write_annotations

IMAGES = ("a", "b", "c", "d", "e")
CLASSES = ("cat", "dog")
SHARD_SIZE = 2
Job = Literal["propose", "detect"]


@dataclass(frozen=True)
class _Detections:
    boxes: NDArray[np.float32]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32]


def write_output(folder: Path, job: Job) -> tuple[str, list[Shard]]:
    """Write a manifest of five images and the job's output for it; returns the output and its shards."""
    manifest_uri = write_manifest_of_five(folder)
    output, record = str(folder / "output"), build_record(folder, job)
    cut = shards.cut_manifest(open_manifest(manifest_uri), SHARD_SIZE)
    planned = cut.build_shards(record.fingerprint)
    record.write(output)
    shards.write_shard_table(output, planned)
    for shard in planned:
        names = IMAGES[shard.first_row : shard.first_row + shard.rows]
        shards.put_part(output, shard, _build_table(names, job, record.fingerprint))
    return output, planned


def write_manifest_of_five(folder: Path) -> str:
    """Five images of 100 x 100 pixels, each with an object or two."""
    box = [make_object("cat", (10, 10, 40, 40))]
    objects = dict.fromkeys(IMAGES, box) | {"b": [*box, make_object("dog", (50, 50, 90, 90))]}
    return write_annotations(str(folder / "manifest.parquet"), objects, CLASSES)


def build_record(folder: Path, job: Job) -> RunRecord:
    """What the run is that wrote the output."""
    return RunRecord(job, {"dataset": plan_cut(folder).dataset, "max_boxes": 100})


def plan_cut(folder: Path) -> Cut:
    """The cut of the manifest in a folder."""
    return shards.cut_manifest(open_manifest(str(folder / "manifest.parquet")), SHARD_SIZE)


def _build_table(names: tuple[str, ...], job: Job, fingerprint: str) -> pa.Table:
    images = [_build_image(name) for name in names]
    if job == "propose":
        return build_proposals_table(images, {"algorithm": "by hand"}, fingerprint)
    detections = [
        _Detections(image.boxes[:2], np.array([0, 1], np.int32), np.array([0.9, 0.5], np.float32))
        for image in images
        if image.boxes is not None
    ]
    return build_detections_table(images, detections, CLASSES, fingerprint)


def _build_image(name: str) -> EncodedImage:
    corner = IMAGES.index(name)
    boxes = [[10, 10, 40 + corner, 40], [50, 50, 90, 90], [0, 0, 100, 100]]
    return EncodedImage(name, f"/images/{name}.jpg", 100, 100, boxes=np.array(boxes, np.float32))


def damage_part(output: str, planned: list[Shard], random: Random) -> str:
    """Change one part and say how; some stay as they are."""
    if random.random() < 0.12:
        return "valid"
    shard = random.choice(planned)
    path = Path(output) / shard.part_name
    data, change = _damage(path.read_bytes(), random)
    kind = random.random()
    if kind < 0.08:
        other = random.choice([other for other in planned if other is not shard])
        data, change = (Path(output) / other.part_name).read_bytes(), f"is part {other.ordinal}"
    elif kind < 0.14:
        junk = random.choice(
            (b"", b"PAR1", b"\x02ok\x00\x00\x00junk", b"PAR1\x02ok" + bytes(20) + b"PAR1")
        )
        data, change = junk, f"is {junk!r}"
    if kind >= 0.97:
        path.unlink()
        return f"part {shard.ordinal} is removed"
    path.write_bytes(data)
    return f"part {shard.ordinal}: {change}"


def _damage(data: bytes, random: Random) -> tuple[bytes, str]:
    if random.random() < 0.2:
        return mutate_bytes(data, random)
    table, change = mutate_table(pq.read_table(io.BytesIO(data)), random)
    data, form = encode_table(table, random)
    return data, ", ".join(filter(None, (change, form)))


def read_rows(path: Path, columns: list[str] | None = None) -> list[dict[str, Any]] | None:
    """The rows of a Parquet file as pyarrow alone reads them; None if it cannot."""
    try:
        table = pq.ParquetFile(path).read(columns)
        table.validate(full=True)
        return table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
