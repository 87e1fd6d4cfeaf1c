"""Copies rows of a manifest into others: every column and all metadata stay, also those of other programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import schema, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.manifest_files import FILES_KEY
from pipeline.manifests import ROW_GROUP, Manifest


def read_manifest_tables(manifest: Manifest) -> Iterator[pa.Table]:
    """All rows in order, a few thousand at a time, with the columns of the first file.

    Raises:
        UnreadableDataset: a file is damaged, or a column has another type in a later file.
    """
    target = read_manifest_schema(manifest)
    for file in manifest.files:
        with storage.open_file(file.uri) as source, schema.report_damage(file.uri):
            parquet = pq.ParquetFile(source)
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(ROW_GROUP, row_groups=[group]):
                    yield _align(pa.Table.from_batches([batch]), target)


def read_manifest_schema(manifest: Manifest) -> pa.Schema:
    """The columns and metadata of the first file, without what says that it is one of several."""
    first = manifest.files[0].uri
    with storage.open_file(first) as source, schema.report_damage(first):
        stored = pq.read_schema(source)
    metadata = {k: v for k, v in (stored.metadata or {}).items() if k != FILES_KEY.encode()}
    return stored.with_metadata(metadata)


def _align(table: pa.Table, target: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in target
    ]
    return pa.Table.from_arrays(columns, schema=target)


def write_selections(
    manifest: Manifest, targets: Sequence[str], chosen: NDArray[np.integer]
) -> list[int]:
    """Write each target with its rows of a manifest, all whole or none, and return their numbers of rows.

    Args:
        manifest: the rows.
        targets: the files to write.
        chosen: `(N,)` for each row the position of its target, or -1.

    Raises:
        UnreadableDataset: the manifest is damaged, or changed meanwhile.
        StorageError: a file cannot be written.
    """
    stored = read_manifest_schema(manifest)
    first = 0
    with contextlib.ExitStack() as files:
        writers = [
            files.enter_context(
                pq.ParquetWriter(
                    files.enter_context(storage.write_whole(uri)), stored, compression="zstd"
                )
            )
            for uri in targets
        ]
        for table in read_manifest_tables(manifest):
            of_table = chosen[first : first + len(table)]
            for position, writer in enumerate(writers):
                rows = np.flatnonzero(of_table == position)
                if len(rows):
                    writer.write_table(table.take(pa.array(rows)), row_group_size=ROW_GROUP)
            first += len(table)
        if first != len(chosen):
            raise UnreadableDataset(f"{uris.redact_uri(manifest.uri)} changed while it was read")
    return [int((chosen == position).sum()) for position in range(len(targets))]
