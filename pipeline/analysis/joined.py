"""An output's parts beside the manifest rows they were made from, a few images at a time.

Row k of a part belongs to manifest row `first_row + k` of its shard, so nothing is looked up; the
image_ids are compared, because a manifest that was written anew may hold other images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import storage
from pipeline.analysis.flat import Detections
from pipeline.errors import UnreadableDataset
from pipeline.manifests import ROW_GROUP, Manifest
from pipeline.shards import Parts

IMAGES = 64
"""Images in one step: bounds the pairs of boxes that are compared at once."""


@dataclass(frozen=True)
class Step:
    """The same images twice: what a run wrote about them, and the manifest's rows."""

    first_row: int
    results: pa.Table
    manifest: pa.Table


def check_holds(parts: Parts, column: str, job: str) -> pa.Schema:
    """The parts' schema, after checking that it has the column that only `job` writes.

    Raises:
        UnreadableDataset: another job wrote these parts.
    """
    found = parts.schema()
    if column not in found.names:
        raise UnreadableDataset(
            f"{storage.shown(parts.uri)} has no column {column}, so no {job} run wrote it; "
            f"it has {', '.join(found.names)}"
        )
    return found


def joined(parts: Parts, manifest: Manifest, columns: Sequence[str]) -> Iterator[Step]:
    """Stream the parts' `columns` together with the manifest's width, height and objects.

    Raises:
        UnreadableDataset: the parts are of other images than the manifest's, or of more.
    """
    if parts.rows > manifest.rows:
        raise UnreadableDataset(
            f"{storage.shown(parts.uri)} has {parts.rows} images, the manifest "
            f"{storage.shown(manifest.uri)} only {manifest.rows}: it was made from another manifest"
        )
    rows = _ManifestRows(manifest)
    for shard in parts.shards:
        results = parts.read(shard, ["image_id", *columns])
        annotated = rows.take(shard.first_row, shard.rows)
        check_images(parts, manifest, shard.first_row, results, annotated)
        for start in range(0, shard.rows, IMAGES):
            yield Step(
                shard.first_row + start,
                results.slice(start, IMAGES),
                annotated.slice(start, IMAGES),
            )


def labelled(step: Step) -> NDArray[np.bool_]:
    """Which of the step's images are annotated, `(P,)`; the others are not scored."""
    known: NDArray[np.bool_] = (
        pc.is_valid(step.manifest.column("objects")).combine_chunks().to_numpy(zero_copy_only=False)
    )
    return known


def check_finite(found: Detections, step: Step) -> None:
    """Check the scores and boxes of a step's detections.

    Raises:
        UnreadableDataset: one is not a finite number; it names the image.
    """
    wrong = ~np.isfinite(found.scores) | ~np.isfinite(found.boxes).all(axis=1)
    if wrong.any():
        image = int(found.image[wrong.argmax()])
        raise UnreadableDataset(
            f"image {step.results.column('image_id')[image].as_py()!r} has a detection "
            "whose score or box is not a finite number"
        )


class _ManifestRows:
    """Consecutive slices of a manifest; its row groups are read once, whatever the slices' size."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.first = 0
        self.held: list[pa.Table] = []

    def take(self, first_row: int, rows: int) -> pa.Table:
        held = sum(len(table) for table in self.held)
        while self.first + held < first_row + rows:
            table = self.manifest.read(
                self.first + held, ROW_GROUP, ["image_id", "uri", "width", "height", "objects"]
            )
            self.held.append(table)
            held += len(table)
        whole = pa.concat_tables(self.held)
        wanted = whole.slice(first_row - self.first, rows)
        self.held = [whole.slice(first_row - self.first + rows)]
        self.first = first_row + rows
        return wanted


def check_images(
    parts: Parts, manifest: Manifest, first_row: int, results: pa.Table, annotated: pa.Table
) -> None:
    """Check that both tables' rows are of the same images, in order.

    Raises:
        UnreadableDataset: a row differs; it names the row and both image_ids.
    """
    same = pc.equal(results.column("image_id"), annotated.column("image_id"))
    if pc.all(same, skip_nulls=False).as_py() is True:
        return
    row = pc.index(same, False).as_py()
    raise UnreadableDataset(
        f"row {first_row + row} is {results.column('image_id')[row].as_py()!r} in "
        f"{storage.shown(parts.uri)} and {annotated.column('image_id')[row].as_py()!r} in "
        f"{storage.shown(manifest.uri)}: give the manifest that it was made from"
    )
