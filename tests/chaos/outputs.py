"""What lies in an output, and how it differs from what an undisturbed run left."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline import shards, storage
from pipeline.errors import PipelineError

Row = dict[str, Any]
SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE = 0.1


def parts(output: str) -> dict[str, Any]:
    """The parts in a folder, each with what changes when it is put again."""
    store, path = storage.filesystem(output)
    store.invalidate_cache()
    try:
        entries = store.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    found = {}
    for entry in entries:
        name = entry["name"].rpartition("/")[2]
        if name.startswith("part-") and name.endswith(".parquet"):
            found[name] = entry.get("LastModified") or (entry["mtime"], entry["ino"])
    return found


def rows(output: str) -> list[Row]:
    """The rows of all parts that lie in a folder, whether or not its shard table knows them."""
    found: list[Row] = []
    for name in sorted(parts(output)):
        data = storage.read(storage.join(output, name))
        found.extend(pq.read_table(io.BytesIO(data)).to_pylist())
    return found


def is_whole(output: str) -> bool:
    """Whether the output's own readers take it."""
    try:
        return sum(len(table) for table in shards.open_parts(output).tables()) > 0
    except PipelineError:
        return False


@dataclass(frozen=True)
class Difference:
    """An output against the undisturbed one, in images."""

    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    differing: tuple[str, ...]
    failed: tuple[str, ...]


def difference(
    found: Sequence[Row], expected: Sequence[Row], poison: Sequence[str] = ()
) -> Difference:
    """Compare rows; a poison image is expected to be failed, whatever its row says otherwise."""
    times = Counter(row["image_id"] for row in found)
    wanted = {row["image_id"]: row for row in expected}
    return Difference(
        lost=tuple(name for name in wanted if not times[name]),
        doubled=tuple(name for name, count in times.items() if count > 1),
        differing=tuple(
            row["image_id"]
            for row in found
            if row["image_id"] not in wanted
            or not (
                row["status"] == "failed"
                if row["image_id"] in poison
                else same(row, wanted[row["image_id"]])
            )
        ),
        failed=tuple(row["image_id"] for row in found if row["status"] == "failed"),
    )


def same(row: Row, other: Row) -> bool:
    """Whether two rows say the same, scores to 1e-3 and corners to a tenth of a pixel."""
    ours, theirs = row["detections"], other["detections"]
    if any(row[key] != other[key] for key in row.keys() | other.keys() if key != "detections"):
        return False
    if ours is None or theirs is None:
        return ours is theirs
    if [d["label"] for d in ours] != [d["label"] for d in theirs]:
        return False
    scores = [np.array([d["score"] for d in found]) for found in (ours, theirs)]
    corners = [
        np.array([[d[corner] for corner in ("x1", "y1", "x2", "y2")] for d in found])
        for found in (ours, theirs)
    ]
    return np.allclose(*scores, rtol=0, atol=SCORE_TOLERANCE) and np.allclose(
        *corners, rtol=0, atol=BOX_TOLERANCE
    )
