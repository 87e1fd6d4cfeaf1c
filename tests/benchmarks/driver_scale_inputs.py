"""The inputs of `driver_scale`: a large manifest, and an output in which every shard is committed."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema, shards, uris
from pipeline.manifests import ROW_GROUP, open_manifest
from pipeline.part_identity import name_shard
from pipeline.run_record import RunRecord

FILES = 16


def write_manifest_files(folder: Path, images: int, files: int = FILES) -> None:
    """Write a manifest of images that do not exist, split into several Parquet files."""
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(images), files)):
        table = pa.table(
            {
                "image_id": [f"{index:09d}" for index in part],
                "uri": [
                    f"s3://bucket/images/{index // 1000:06d}/{index:09d}.jpg" for index in part
                ],
                "width": pa.array(np.full(len(part), 500), pa.int32()),
                "height": pa.array(np.full(len(part), 375), pa.int32()),
                "objects": pa.nulls(len(part), schema.MANIFEST.field("objects").type),
            },
            schema=schema.MANIFEST,
        )
        pq.write_table(table, folder / f"{number:03d}.parquet", row_group_size=ROW_GROUP)


def write_committed(folder: str, count: int) -> None:
    """Write an output of proposals with `count` committed shards, as small valid parts."""
    target = uris.join(folder, "committed")
    manifest = open_manifest(uris.join(folder, "manifest"))
    cut = shards.cut_manifest(manifest, -(-manifest.rows // count))
    record = build_record(cut)
    planned = cut.build_shards(record.fingerprint)
    record.write(target)
    shards.write_shard_table(target, planned)
    for shard in planned:
        table = _build_rows(shard.rows, failed=shard.ordinal % 100 == 0)
        data = shards.encode_part(name_shard(table, shard.key))
        (Path(target) / shard.part_name).write_bytes(data)


@functools.cache
def _build_rows(rows: int, *, failed: bool) -> pa.Table:
    statuses = ["failed" if failed and row == 0 else "ok" for row in range(rows)]
    return pa.Table.from_pylist(
        [
            {
                "image_id": str(row),
                "status": status,
                "error_type": "X" if status == "failed" else None,
            }
            for row, status in enumerate(statuses)
        ],
        schema=schema.PROPOSALS,
    )


def build_record(cut: shards.Cut) -> RunRecord:
    """The record of a propose run over the manifest of `cut`."""
    return RunRecord("propose", {"dataset": cut.dataset}, {})
