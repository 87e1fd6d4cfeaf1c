"""Checks of the rows of one part of matches: each object of the annotations in exactly one row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema
from pipeline.runs.verification_faults import Fault
from pipeline.shards import Shard

KINDS = ("detection", "missed", "ignored")
IMAGES = "images"
"""Key of the metadata that counts the images of a part, of which some have no row."""


def find_wrong_matches(table: pa.Table, listed: pa.Table, shard: Shard) -> Iterator[Fault]:
    """Check a part of matches against the manifest.

    Args:
        table: the part, in the types of `schema.MATCHES`.
        listed: the shard's rows of the manifest, with `image_id` and `objects`.
        shard: the shard.
    """
    part = shard.part_name
    counts = schema.read_metadata(table.schema, IMAGES)
    images = counts.get("images") if isinstance(counts, dict) else None
    if images != shard.rows:
        yield Fault("images", part, f"its metadata counts {images} images, expected {shard.rows}")
    rows = table["row"].to_numpy() - shard.first_row
    is_inside = (rows >= 0) & (rows < shard.rows)
    if not is_inside.all():
        row = int(table["row"][int(np.argmin(is_inside))].as_py())
        yield Fault("images", part, f"row {row} is none of the shard's")
        return
    if (np.diff(rows) < 0).any():
        yield Fault("images", part, "its rows are not in the order of the manifest")
    ids = listed["image_id"].to_pylist()
    expected = listed["image_id"].combine_chunks().take(pa.array(rows))
    is_same = pc.equal(table["image_id"].combine_chunks(), expected)
    for index in np.flatnonzero(~is_same.to_numpy(zero_copy_only=False)):
        stored = table["image_id"][int(index)].as_py()
        text = f"row {rows[index] + shard.first_row} has image {stored!r:.200}"
        yield Fault("images", part, text, ids[rows[index]])
    yield from _find_wrong_kinds(table, shard, rows, ids)
    yield from _find_wrong_objects(table, listed, part, rows, ids)


def _find_wrong_kinds(
    table: pa.Table, shard: Shard, rows: NDArray[np.int64], ids: list[str]
) -> Iterator[Fault]:
    is_own = pc.equal(table["shard"], shard.ordinal).to_numpy(zero_copy_only=False)
    is_kind = pc.is_in(table["kind"], pa.array(KINDS)).to_numpy(zero_copy_only=False)
    is_detection = pc.equal(table["kind"], "detection").to_numpy(zero_copy_only=False)
    has_score = table["score"].is_valid().to_numpy(zero_copy_only=False)
    for text, is_wrong in {
        f"its shard is not {shard.ordinal}": ~is_own,
        "its kind is none of detection, missed, ignored": ~is_kind,
        "a detection without a score, or an object with one": is_detection != has_score,
    }.items():
        for index in np.flatnonzero(is_wrong):
            yield Fault("rows", shard.part_name, text, ids[rows[index]])


def _find_wrong_objects(
    table: pa.Table, listed: pa.Table, part: str, rows: NDArray[np.int64], ids: list[str]
) -> Iterator[Fault]:
    """Objects that stand in no row or in several, and rows of objects that the image does not have."""
    lengths = pc.list_value_length(listed["objects"])
    objects = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    is_true = (pc.fill_null(table["true_all"], 0).to_numpy(zero_copy_only=False) & 1) > 0
    is_object = pc.not_equal(table["kind"], "detection").to_numpy(zero_copy_only=False)
    index = pc.fill_null(table["object_index"], -1).to_numpy(zero_copy_only=False)
    stands = is_true | is_object
    is_there = (index >= 0) & (index < objects[rows])
    for row in np.unique(rows[stands & ~is_there]):
        yield Fault("rows", part, "a row is about an object that the image does not have", ids[row])
    firsts = np.concatenate([[0], np.cumsum(objects)])
    standing = stands & is_there
    times = np.bincount(firsts[rows[standing]] + index[standing], minlength=int(firsts[-1]))
    for place in np.flatnonzero(times != 1):
        row = int(np.searchsorted(firsts, place, side="right")) - 1
        text = f"object {place - firsts[row]} stands in {times[place]} rows"
        yield Fault("rows", part, text, ids[row])
