"""Shards that are done one image per task: whole shards, or the images of a shard that failed before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.engine.shards.piece import Piece
from pipeline.runs.report import Report
from pipeline.shards import Parts, Shard, put_part


@dataclass
class _IsolatedShard:
    """The rows of one shard that are done so far."""

    rows: Sequence[int]
    """The rows to do one by one; the others stay as an earlier run committed them."""
    tables: dict[int, pa.Table] = field(default_factory=dict)
    report: Report = field(default_factory=Report)


class IsolatedShards:
    """Collects single images' rows in the driver, and puts a shard's part once all are there."""

    def __init__(self, output: str) -> None:
        self.output = output
        self._shards: dict[Shard, _IsolatedShard] = {}

    def begin(self, shard: Shard, rows: Sequence[int]) -> None:
        """Expect these rows of a shard one by one."""
        self._shards[shard] = _IsolatedShard(rows)

    def collect(self, piece: Piece, report: Report) -> bool:
        """Keep a single image's row; returns whether its shard is complete."""
        isolated = self._shards[piece.shard]
        assert piece.row is not None
        assert report.table is not None
        isolated.tables[piece.row] = report.table
        isolated.report.add(report)
        return len(isolated.tables) == len(isolated.rows)

    def put(self, shard: Shard) -> Report:
        """Put the part of a complete shard and return the report of its single images.

        Raises:
            StorageError: the store did not take the part, or did not return the earlier one; the rows are
                kept for another attempt.
        """
        isolated = self._shards[shard]
        tables = dict(isolated.tables)
        if len(tables) < shard.rows:
            before = Parts(self.output, (shard,)).read(shard)
            tables = {row: before.slice(row, 1) for row in range(shard.rows)} | tables
        # Rows of an earlier release lack the optional columns, which then become null.
        ordered = [tables[row] for row in range(shard.rows)]
        table = pa.concat_tables(ordered, promote_options="default")
        isolated.report.counts["bytes"] += put_part(self.output, shard, table)
        del self._shards[shard]
        return isolated.report
