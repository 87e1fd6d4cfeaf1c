"""Pieces of shards, and what happens to a finished one."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pipeline import storage
from pipeline.errors import UnreadableDataset
from pipeline.manifests import Manifest
from pipeline.runs.report import Report
from pipeline.shards import Shard, digest, put_part, shard_key


@dataclass(frozen=True)
class Piece:
    """Rows of one shard that one task works on: all of them, or a single image on its own."""

    shard: Shard
    row: int | None = None
    """The image's row in the shard, or None for the whole shard, which is then committed."""

    @property
    def whole(self) -> bool:
        """Whether the piece is the whole shard."""
        return self.row is None

    @property
    def rows(self) -> int:
        """Images in the piece."""
        return self.shard.rows if self.whole else 1

    def image_rows(self, manifest: Manifest, fingerprint: str) -> list[tuple[str, str]]:
        """The (image_id, uri) of the piece's images.

        Raises:
            UnreadableDataset: the manifest no longer holds the images that the shard was made of.
        """
        table = manifest.read(self.shard.first_row, self.shard.rows, ["image_id", "uri"])
        ids, uris = table["image_id"].to_pylist(), table["uri"].to_pylist()
        if shard_key(fingerprint, digest(ids, uris)) != self.shard.key:
            raise UnreadableDataset(
                f"{storage.shown(manifest.uri)}: rows from {self.shard.first_row} changed "
                "while the run was at work"
            )
        rows = list(zip(ids, uris, strict=True))
        return rows if self.row is None else rows[self.row : self.row + 1]


def commit_or_return(piece: Piece, output: str, table: pa.Table, report: Report) -> Report:
    """The report of a piece that is done: a whole shard is committed, an image's row goes along."""
    report.images = len(table)
    if piece.whole:
        with report.timed("commit"):
            report.counts["bytes"] += put_part(output, piece.shard, table)
    else:
        report.table = table
    return report
