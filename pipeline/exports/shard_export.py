"""The export of one shard: reads its rows, puts the files that it has of its own, and returns its texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema, storage, uris
from pipeline.analysis.manifest_join import check_images
from pipeline.csv_cells import escape_cell, format_rows
from pipeline.errors import UnreadableDataset
from pipeline.exports.box_selection import BoxSelection
from pipeline.exports.export_format import ExportFormat
from pipeline.exports.image_batch import (
    ImageBatch,
    LeftOutImage,
    build_detection_batch,
    build_object_batch,
)
from pipeline.image_members import read_members
from pipeline.manifests import Manifest
from pipeline.shards import Parts, Shard, compute_shard_key, digest_images

LEFT_OUT = "left_out"
"""The stream of images that are not in the export."""
BOXES = "exported_boxes"
"""The column of the number of boxes of each image."""
PUTS_AT_ONCE = 16
"""Files of a shard that are put side by side: each mostly waits for the store."""
_COLUMNS = ("image_id", "uri", "width", "height", "objects")
_RESULT_COLUMNS = (
    *("image_id", "width", "height", "status", "stage", "error_type", "error_message"),
    "detections",
)


@dataclass(frozen=True)
class ShardExport:
    """What the export of any shard needs."""

    manifest: Manifest
    parts: Parts | None
    """The detections; None exports the manifest's own objects."""
    selection: BoxSelection
    file_format: ExportFormat
    output: str
    fingerprint: str

    @property
    def streams(self) -> tuple[str, ...]:
        """The columns of texts."""
        return (*self.file_format.streams, LEFT_OUT)

    def export(self, shard: Shard, numbers: NDArray[np.int64] | None) -> pa.Table:
        """Put the files of a shard and return its texts, one row per image.

        Args:
            shard: rows of the manifest; if there are detections, those of the part with its ordinal.
            numbers: COCO's ids of its images, for formats that need them.

        Raises:
            UnreadableDataset: a part or the manifest is damaged, does not fit the other, or changed.
            StorageError: a store fails.
        """
        batch = self._read(shard, numbers)

        def put_file(file: tuple[str, bytes]) -> None:
            storage.put(uris.join(self.output, file[0]), file[1])

        with ThreadPoolExecutor(PUTS_AT_ONCE) as threads:
            for _ in threads.map(put_file, self.file_format.list_files(batch)):
                pass  # an error of a put is raised here
        texts = {**self.file_format.encode(batch), LEFT_OUT: _list_left_out(batch)}
        return self._build_table(batch.image_ids, texts, np.diff(batch.offsets).tolist())

    def build_left_out_row(self, image: LeftOutImage) -> pa.Table:
        """The row of an image that cannot be exported."""
        texts = {name: [b""] for name in self.streams} | {LEFT_OUT: [_format_left_out(image)]}
        return self._build_table([image.image_id], texts, [0])

    def _read(self, shard: Shard, numbers: NDArray[np.int64] | None) -> ImageBatch:
        columns = dict.fromkeys((*_COLUMNS, *self.manifest.image_columns))
        rows = self.manifest.read(shard.first_row, shard.rows, list(columns))
        members = read_members(rows, self.manifest.uri, shard.first_row)
        digest = digest_images(rows["image_id"].to_pylist(), rows["uri"].to_pylist(), members)
        if compute_shard_key(self.fingerprint, digest) != shard.key:
            raise UnreadableDataset(
                f"{uris.redact_uri(self.manifest.uri)}: rows from {shard.first_row} changed while the export "
                "was working"
            )
        place = (shard.ordinal, shard.first_row)
        if self.parts is None:
            return build_object_batch(rows, self.selection, place, numbers)
        results = self.parts.read(self.parts.shards[shard.ordinal], _RESULT_COLUMNS)
        check_images(self.parts, self.manifest, shard.first_row, results, rows)
        return build_detection_batch(results, rows, self.selection, place, numbers)

    def _build_table(
        self, image_ids: list[str], texts: Mapping[str, Sequence[bytes]], boxes: list[int]
    ) -> pa.Table:
        nothing = pa.nulls(len(image_ids), pa.string())
        columns = {
            "image_id": pa.array(image_ids, pa.string()),
            "status": pa.array(["ok"] * len(image_ids), pa.string()),
            "error_type": nothing,
            "error_message": nothing,
            BOXES: pa.array(boxes, pa.int64()),
            **{name: pa.array(texts[name], pa.large_binary()) for name in self.streams},
        }
        table = pa.table(columns)
        metadata = {"fingerprint": self.fingerprint}
        return table.cast(schema.add_metadata(table.schema, metadata))


def _list_left_out(batch: ImageBatch) -> list[bytes]:
    texts = [b""] * len(batch)
    for index, image in batch.left_out.items():
        texts[index] = _format_left_out(image)
    return texts


def _format_left_out(image: LeftOutImage) -> bytes:
    return format_rows(
        [
            [
                escape_cell(text)
                for text in (image.image_id, image.stage, image.error_type, image.message)
            ]
        ]
    )
