"""Checks of the rows of one part of proposals or detections, beyond those that every reader makes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema, uris
from pipeline.image_keys import compute_image_key
from pipeline.image_members import read_members
from pipeline.manifests import Manifest
from pipeline.runs.verification_faults import Fault
from pipeline.stated_sizes import describe_mismatch, pair_sizes

TOLERANCE = 0.5
"""Pixels by which a corner may be outside its image: float32 rounds, and other tools round corners."""
_CORNERS = ("x1", "y1", "x2", "y2")


def find_wrong_images(
    table: pa.Table, listed: pa.Table, manifest: Manifest, first_row: int, part: str
) -> Iterator[Fault]:
    """Compare the images of a part with the manifest's.

    Args:
        table: the part.
        listed: the shard's rows of the manifest, with its `image_columns`.
        manifest: the manifest.
        first_row: the manifest's row of the first of them.
        part: the name of the part.
    """
    expected, actual = listed["image_id"].to_pylist(), table["image_id"].to_pylist()
    if len(expected) != len(actual):
        yield Fault("images", part, f"{len(actual)} rows for {len(expected)} images")
        return
    if expected != actual:
        for row, (image_id, stored) in enumerate(zip(expected, actual, strict=True)):
            if image_id != stored:
                text = f"row {row} has image {stored!r:.200}"
                yield Fault("images", part, text, image_id)
        return
    yield from _find_wrong_uris(table, listed, part)
    yield from _find_wrong_keys(table, listed, manifest, first_row, part)


def _find_wrong_uris(table: pa.Table, listed: pa.Table, part: str) -> Iterator[Fault]:
    if "uri" not in table.column_names:
        return
    pairs = zip(listed["uri"].to_pylist(), table["uri"].to_pylist(), strict=True)
    for row, (uri, stored) in enumerate(pairs):
        if uri != stored and uris.strip_secrets(uri) != stored:
            image_id = listed["image_id"][row].as_py()
            text = f"uri is {uris.redact_uri(str(stored))!r:.300}, expected {uris.redact_uri(uri)!r:.300}"
            yield Fault("images", part, text, image_id)


def _find_wrong_keys(
    table: pa.Table, listed: pa.Table, manifest: Manifest, first_row: int, part: str
) -> Iterator[Fault]:
    """Rows that an earlier release wrote have no key."""
    if "image_key" not in table.column_names:
        return
    members = read_members(listed, manifest.uri, first_row)
    ids, image_uris = listed["image_id"].to_pylist(), listed["uri"].to_pylist()
    rows = zip(ids, image_uris, members, table["image_key"].to_pylist(), strict=True)
    for image_id, uri, member, stored in rows:
        if stored is not None and stored != compute_image_key(
            image_id, uri, member, manifest.decoding
        ):
            yield Fault("images", part, "image_key is not the image's", image_id)


def find_wrong_rows(
    table: pa.Table, listed: pa.Table, manifest: Manifest, part: str
) -> Iterator[Fault]:
    """Check status, sizes, boxes and detections of a part whose images are the manifest's."""
    ids = table["image_id"].to_pylist()
    column = "detections" if "detections" in table.column_names else "boxes"
    lists = table[column].combine_chunks()
    is_ok = pc.equal(table["status"], "ok").to_numpy(zero_copy_only=False)
    has_list = lists.is_valid().to_numpy(zero_copy_only=False)
    has_error = table["error_type"].is_valid().to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(~is_ok & has_list):
        yield Fault("rows", part, f"status is failed, but it has {column}", ids[row])
    for row in np.flatnonzero(~is_ok & ~has_error):
        yield Fault("rows", part, "status is failed, without an error_type", ids[row])
    for row in np.flatnonzero(is_ok & has_error):
        yield Fault("rows", part, "status is ok, with an error_type", ids[row])
    sizes = pair_sizes(table)
    for row in np.flatnonzero(is_ok):
        if sizes[row] is None:
            yield Fault("rows", part, "status is ok, without width and height", ids[row])
    yield from _find_wrong_sizes(listed, sizes, is_ok, manifest, part)
    if isinstance(lists, pa.ChunkedArray):  # an empty table
        return
    images = pc.list_parent_indices(lists).to_numpy()
    boxes = _flatten_boxes(lists, column)
    limits = np.array([pair or (np.inf, np.inf) for pair in sizes], np.float64)[images]
    is_outside = (boxes < -TOLERANCE).any(1) | (boxes > np.tile(limits, 2) + TOLERANCE).any(1)
    for index in np.flatnonzero(is_outside):
        row, box = images[index], ", ".join(f"{side:g}" for side in boxes[index])
        yield Fault("rows", part, f"a box ({box}) is outside the image {sizes[row]}", ids[row])
    if column == "detections":
        yield from _find_wrong_detections(table, lists.flatten(), images, ids, part)


def _find_wrong_sizes(
    listed: pa.Table,
    sizes: list[tuple[int, int] | None],
    is_ok: NDArray[np.bool_],
    manifest: Manifest,
    part: str,
) -> Iterator[Fault]:
    """Boxes of an annotated image refer to its stated size; another one fails the image."""
    if manifest.classes is None:
        return
    for row, (stated, actual) in enumerate(zip(pair_sizes(listed), sizes, strict=True)):
        if is_ok[row] and stated is not None and actual is not None:
            turned = manifest.exif == "apply"
            mismatch = describe_mismatch(stated, actual, turned=turned)
            if mismatch is not None:
                yield Fault("rows", part, mismatch, listed["image_id"][row].as_py())


def _flatten_boxes(lists: pa.ListArray, column: str) -> NDArray[np.float64]:
    """All boxes `(N, 4)` of a column, image by image."""
    values = lists.flatten()
    if column == "boxes":
        sides = [values.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)]
    else:
        sides = [values.field(name).to_numpy(zero_copy_only=False)[:, None] for name in _CORNERS]
    boxes: NDArray[np.float64] = np.concatenate(sides, axis=1, dtype=np.float64)
    return boxes


def _find_wrong_detections(
    table: pa.Table, values: pa.StructArray, images: NDArray[np.int64], ids: list[str], part: str
) -> Iterator[Fault]:
    classes = schema.read_classes(table.schema, part)
    if classes is None:
        yield Fault("rows", part, "its metadata lists no classes")
        return
    scores = values.field("score").to_numpy(zero_copy_only=False)
    for index in np.flatnonzero(~((scores >= 0) & (scores <= 1))):
        yield Fault("rows", part, f"a score is {scores[index]:g}", ids[images[index]])
    rises = np.flatnonzero((np.diff(scores) > 0) & (np.diff(images) == 0)) + 1
    for row in np.unique(images[rises]):
        yield Fault("rows", part, "its detections are not best first", ids[row])
    label_ids = values.field("label_id").to_numpy(zero_copy_only=False)
    has_class = (label_ids >= 0) & (label_ids < len(classes))
    expected = pa.array(classes, pa.string()).take(pa.array(np.where(has_class, label_ids, 0)))
    is_right = has_class & pc.equal(values.field("label"), expected).to_numpy(zero_copy_only=False)
    for index in np.flatnonzero(~is_right):
        label = values.field("label")[int(index)].as_py()
        text = f"label {label!r:.100} with label_id {label_ids[index]}"
        yield Fault("rows", part, text, ids[images[index]])
    is_ok = pc.equal(table["status"], "ok").to_numpy(zero_copy_only=False)
    has_count = table["num_proposals"].is_valid().to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(is_ok & ~has_count):
        yield Fault("rows", part, "status is ok, without num_proposals", ids[row])
