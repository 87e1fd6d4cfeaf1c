"""Shards that are done one image per task, all of them or the images that failed before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.engine.shards.piece import Piece
from pipeline.runs.report import Report
from pipeline.shards import Parts, Shard, put_part


@dataclass
class _Gathered:
    """What is there of one shard."""

    rows: Sequence[int]
    """The rows that are done one by one; the others are as they were committed before."""
    tables: dict[int, pa.Table] = field(default_factory=dict)
    report: Report = field(default_factory=Report)


class IsolatedShards:
    """Gathers single images' rows in the driver, and puts a shard's part whole when all are there."""

    def __init__(self, output: str) -> None:
        self.output = output
        self._gathered: dict[Shard, _Gathered] = {}

    def begin(self, shard: Shard, rows: Sequence[int]) -> None:
        """These rows of a shard are to be done one by one."""
        self._gathered[shard] = _Gathered(rows)

    def collect(self, piece: Piece, report: Report) -> bool:
        """Keep a single image's row; tells whether its shard is complete."""
        gathered = self._gathered[piece.shard]
        assert piece.row is not None
        assert report.table is not None
        gathered.tables[piece.row] = report.table
        gathered.report.add(report)
        return len(gathered.tables) == len(gathered.rows)

    def put(self, shard: Shard) -> Report:
        """Put the part of a complete shard and return the report of its single images.

        Raises:
            StorageError: the store did not take it, or did not give the part that was there; nothing is lost.
        """
        gathered = self._gathered[shard]
        tables = dict(gathered.tables)
        if len(tables) < shard.rows:
            before = Parts(self.output, (shard,)).read(shard)
            tables = {row: before.slice(row, 1) for row in range(shard.rows)} | tables
        table = pa.concat_tables(tables[row] for row in range(shard.rows))
        gathered.report.counts["bytes"] += put_part(self.output, shard, table)
        del self._gathered[shard]
        return gathered.report
