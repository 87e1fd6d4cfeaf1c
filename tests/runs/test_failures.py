"""Failed rows and lost reports, read from committed parts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema, shards
from pipeline.runs.failures import FOOTER, is_all_ok, read_committed_report, read_failed_rows
from pipeline.shards import Shard, put_part


@pytest.mark.parametrize("kind", ["propose", "detect", "no statistics", "long footer"])
def test_failed_rows_are_read_with_and_without_the_help_of_the_footer(
    tmp_path: Path, kind: str
) -> None:
    target = schema.DETECTIONS if kind == "detect" else schema.PROPOSALS
    if kind == "long footer":
        target = schema.add_metadata(target, {"provenance": "x" * 2 * FOOTER})
    planned = [shards.Shard(ordinal, f"{ordinal:024x}", 3 * ordinal, 3) for ordinal in range(3)]
    for shard in planned:
        has_failed = shard.ordinal == 1
        rows = [{"image_id": "i", "uri": "u", "status": "ok", "error_type": None} for _ in range(3)]
        if has_failed:
            rows[2] |= {"status": "failed", "error_type": "Gone"}
            if kind == "detect":
                rows[2]["stage"] = "read"
        table = pa.Table.from_pylist(rows, schema=target)
        path = tmp_path / shard.part_name
        pq.write_table(table, path, write_statistics=kind != "no statistics", compression="zstd")
        assert is_all_ok(str(path)) == (not has_failed and kind in ("propose", "detect"))
    failed = read_failed_rows(str(tmp_path), planned)
    stage = "read" if kind == "detect" else "propose"
    assert failed == {planned[1]: {2: f"{stage}: Gone"}}


def test_the_report_of_a_part_whose_worker_was_lost(tmp_path: Path) -> None:
    shard = Shard(0, "0" * 24, 0, 3)
    assert read_committed_report(str(tmp_path), shard) is None
    box = [[0.0, 0.0, 1.0, 1.0]]
    rows = {
        "status": ["ok", "failed", "ok"],
        "error_type": [None, "UnreadableImage", None],
        "boxes": [box, None, box * 2],
    }
    size = put_part(str(tmp_path), shard, pa.table(rows))
    report = read_committed_report(str(tmp_path), shard)
    assert report is not None
    assert report.images == 3
    assert report.failed == {"propose: UnreadableImage": 1}
    assert report.counts == {"bytes": size, "proposals": 3}
