"""The contents of an output, and their differences from those of an undisturbed run."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline import shards, storage, uris
from pipeline.errors import PipelineError
from pipeline.image_keys import compute_image_key
from pipeline.imaging import Decoding
from pipeline.runs.verification import verify_output

Row = dict[str, Any]
SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE = 0.1


def list_parts(output: str) -> dict[str, Any]:
    """The parts in a folder by name, each with a value that changes if the part is rewritten."""
    store, path = storage.get_filesystem(output)
    store.invalidate_cache()
    try:
        entries = store.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    parts = {}
    for entry in entries:
        name = entry["name"].rpartition("/")[2]
        if name.startswith("part-") and name.endswith(".parquet"):
            parts[name] = entry.get("LastModified") or (entry["mtime"], entry["ino"])
    return parts


def read_rows(output: str) -> list[Row]:
    """The rows of all parts in a folder, whether or not its shard table lists them."""
    rows: list[Row] = []
    for name in sorted(list_parts(output)):
        data = storage.read(uris.join(output, name))
        rows.extend(pq.read_table(io.BytesIO(data)).to_pylist())
    return rows


def move_rows(rows: Sequence[Row], image_uris: Mapping[str, str]) -> list[Row]:
    """The rows that a run would have of the same images in other places, or with other bytes.

    Args:
        rows: rows of an undisturbed run.
        image_uris: the other place of each image.
    """
    moved = []
    for row in rows:
        uri = image_uris[row["image_id"]]
        data = storage.read(uri)
        facts = {
            "uri": uri,
            "image_key": compute_image_key(row["image_id"], uri, None, Decoding()),
            "image_bytes": len(data),
            "image_md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        }
        moved.append(row | facts)
    return moved


def is_readable(output: str) -> bool:
    """Whether the pipeline's own readers accept the output."""
    try:
        return sum(len(table) for table in shards.open_parts(output).read_tables()) > 0
    except PipelineError:
        return False


def find_fault(output: str, manifest: str) -> str | None:
    """The first fault that the pipeline's own verification finds, or why it cannot read the output."""
    try:
        faults = verify_output(output, manifest, processes=1).contents.faults.kept
    except PipelineError as error:
        return str(error)
    return f"{faults[0].check}: {faults[0].file}: {faults[0].text}" if faults else None


@dataclass(frozen=True)
class Difference:
    """The images in which an output differs from the undisturbed one."""

    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    differing: tuple[str, ...]
    failed: tuple[str, ...]


def compare_rows(
    rows: Sequence[Row], expected: Sequence[Row], poison: Sequence[str] = ()
) -> Difference:
    """Compare rows; a poison image must have failed, and the rest of its row is ignored."""
    times = Counter(row["image_id"] for row in rows)
    expected_by_id = {row["image_id"]: row for row in expected}
    return Difference(
        lost=tuple(name for name in expected_by_id if not times[name]),
        doubled=tuple(name for name, count in times.items() if count > 1),
        differing=tuple(
            row["image_id"]
            for row in rows
            if row["image_id"] not in expected_by_id
            or not (
                row["status"] == "failed"
                if row["image_id"] in poison
                else is_same(row, expected_by_id[row["image_id"]])
            )
        ),
        failed=tuple(row["image_id"] for row in rows if row["status"] == "failed"),
    )


def is_same(row: Row, other: Row) -> bool:
    """Whether two rows are equal, scores within 1e-3 and corners of detections within 0.1 pixels.

    Rows of proposals have no detections; all of their values must be equal.
    """
    row, other = dict(row), dict(other)
    detections, others = row.pop("detections", None), other.pop("detections", None)
    if row != other:
        return False
    if detections is None or others is None:
        return detections is others
    if [d["label"] for d in detections] != [d["label"] for d in others]:
        return False
    scores = [np.array([d["score"] for d in side]) for side in (detections, others)]
    corners = [
        np.array([[d[corner] for corner in ("x1", "y1", "x2", "y2")] for d in side])
        for side in (detections, others)
    ]
    return np.allclose(*scores, rtol=0, atol=SCORE_TOLERANCE) and np.allclose(
        *corners, rtol=0, atol=BOX_TOLERANCE
    )
