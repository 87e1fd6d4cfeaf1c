"""Streams an output's parts together with the manifest rows from which they were made.

Row k of a part belongs to manifest row `first_row + k` of its shard, so no lookup is needed. The
image_ids are compared, because a manifest that was rewritten may hold other images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema, uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import ROW_GROUP, Manifest
from pipeline.shards import Parts

IMAGES_PER_BATCH = 64
OBJECTS_PER_BATCH = 20_000
"""Both bound the pairs of boxes that are compared at once."""


@dataclass(frozen=True)
class JoinedBatch:
    """Consecutive images: the rows that a run wrote about them, and the manifest's rows."""

    first_row: int
    results: pa.Table
    manifest: pa.Table


def require_column(parts: Parts, column: str, job: str) -> pa.Schema:
    """Check that the parts have the column that only `job` writes, and return their schema.

    Raises:
        UnreadableDataset: another job wrote these parts.
    """
    stored_schema = parts.read_schema()
    if column not in stored_schema.names:
        raise UnreadableDataset(
            f"{uris.redact_uri(parts.uri)} has no column {column}, so no {job} run wrote it; "
            f"it has {', '.join(stored_schema.names)}"
        )
    return stored_schema


def join_manifest(
    parts: Parts, manifest: Manifest, columns: Sequence[str], *, images: int = IMAGES_PER_BATCH
) -> Iterator[JoinedBatch]:
    """Stream the parts' `columns` together with the manifest's columns of sizes and annotations.

    Args:
        parts: what a run wrote about the images.
        manifest: the manifest from which the run was made.
        columns: those of the parts, besides `image_id`.
        images: the most images of a batch.

    Raises:
        UnreadableDataset: the parts are of other images than the manifest's, or of more images.
    """
    if parts.rows > manifest.rows:
        raise UnreadableDataset(
            f"{uris.redact_uri(parts.uri)} has {parts.rows} images, the manifest "
            f"{uris.redact_uri(manifest.uri)} only {manifest.rows}: it was made from another manifest"
        )
    reader = _ManifestReader(manifest)
    for shard in parts.shards:
        results = parts.read(shard, ["image_id", *columns])
        annotated = reader.take_rows(shard.first_row, shard.rows)
        check_images(parts, manifest, shard.first_row, results, annotated)
        for start, count in _plan_batches(annotated, images):
            yield JoinedBatch(
                shard.first_row + start,
                results.slice(start, count),
                annotated.slice(start, count),
            )


def _plan_batches(annotated: pa.Table, images: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the rows of each batch: few images, or a single one with many objects."""
    lengths = pc.fill_null(pc.list_value_length(annotated.column("objects")), 0).to_pylist()
    start = objects = 0
    for row, length in enumerate(lengths):
        if row > start and (row - start == images or objects + length > OBJECTS_PER_BATCH):
            yield start, row - start
            start, objects = row, 0
        objects += length
    if lengths:
        yield start, len(lengths) - start


def find_labelled(batch: JoinedBatch) -> NDArray[np.bool_]:
    """Return which of the batch's images are annotated, bool `(P,)`; the others are not scored."""
    is_labelled: NDArray[np.bool_] = (
        pc.is_valid(batch.manifest.column("objects"))
        .combine_chunks()
        .to_numpy(zero_copy_only=False)
    )
    return is_labelled


def list_federated_columns(manifest: Manifest) -> list[str]:
    """The columns that say for which classes images are annotated; none if for all."""
    return [field.name for field in schema.FEDERATED] if manifest.is_federated else []


class _ManifestReader:
    """Reads consecutive slices of a manifest, and each row group once, whatever the slices' size."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.columns = [*schema.MANIFEST.names, *list_federated_columns(manifest)]
        self.first = 0
        self.tables: list[pa.Table] = []

    def take_rows(self, first_row: int, rows: int) -> pa.Table:
        buffered = sum(len(table) for table in self.tables)
        while self.first + buffered < first_row + rows:
            table = self.manifest.read(self.first + buffered, ROW_GROUP, self.columns)
            self.tables.append(table)
            buffered += len(table)
        whole = pa.concat_tables(self.tables)
        rest = first_row - self.first + rows
        self.tables = [whole.slice(rest)]
        part = whole.slice(first_row - self.first, rows)
        self.first = first_row + rows
        return part


def check_images(
    parts: Parts, manifest: Manifest, first_row: int, results: pa.Table, annotated: pa.Table
) -> None:
    """Check that both tables' rows are of the same images, in the same order.

    Raises:
        UnreadableDataset: a row differs; names the row and both image_ids.
    """
    same = pc.equal(results.column("image_id"), annotated.column("image_id"))
    if pc.all(same, skip_nulls=False).as_py() is True:
        return
    row = pc.index(same, False).as_py()
    raise UnreadableDataset(
        f"row {first_row + row} is {results.column('image_id')[row].as_py()!r:.200} in "
        f"{uris.redact_uri(parts.uri)} and {annotated.column('image_id')[row].as_py()!r:.200} in "
        f"{uris.redact_uri(manifest.uri)}: pass the manifest from which the output was made"
    )
