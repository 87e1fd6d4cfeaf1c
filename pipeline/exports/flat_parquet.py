"""Parquet with one row per detection: a file for each shard, which together are one table."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exports.csv_table import COLUMNS
from pipeline.exports.export_format import ReadStream
from pipeline.exports.image_batch import ImageBatch

FOLDER = "flat_detections"
_TYPES = {
    **dict.fromkeys(("image_id", "uri", "label"), pa.string()),
    **dict.fromkeys(("width", "height", "label_id"), pa.int32()),
    **dict.fromkeys(("score", "x1", "y1", "x2", "y2"), pa.float32()),
}
SCHEMA = pa.schema([pa.field(name, _TYPES[name]) for name in COLUMNS])
"""The columns of the CSV export, with their types."""


@dataclass(frozen=True)
class FlatParquet:
    """`flat_detections/000000.parquet` and so on; the names give the order."""

    classes: tuple[str, ...]

    @property
    def streams(self) -> tuple[str, ...]:
        """None: a shard is a file."""
        return ()

    def encode(self, batch: ImageBatch) -> Mapping[str, Sequence[bytes]]:  # noqa: ARG002
        """Nothing."""
        return {}

    def list_files(self, batch: ImageBatch) -> Iterator[tuple[str, bytes]]:
        """The shard's file."""
        buffer = io.BytesIO()
        pq.write_table(self.build_table(batch), buffer, compression="zstd")
        yield f"{FOLDER}/{batch.ordinal:06d}.parquet", buffer.getvalue()

    def build_table(self, batch: ImageBatch) -> pa.Table:
        """The rows of a batch in the columns of `SCHEMA`."""
        assert batch.scores is not None
        image = batch.image
        sides = [[size and size[side] for size in batch.sizes] for side in (0, 1)]
        columns = [
            pa.array(batch.image_ids, pa.string()).take(image),
            pa.array(batch.uris, pa.string()).take(image),
            *(pa.array(values, pa.int32()).take(image) for values in sides),
            pa.array(self.classes, pa.string()).take(batch.class_ids),
            batch.class_ids.astype(np.int32),
            batch.scores,
            *batch.boxes.astype(np.float32).T,
        ]
        return pa.Table.from_arrays([pa.array(values) for values in columns], schema=SCHEMA)

    def assemble(self, read: ReadStream) -> Iterator[tuple[str, Iterable[bytes]]]:  # noqa: ARG002
        """Nothing: the files of the shards are the export."""
        return iter(())
