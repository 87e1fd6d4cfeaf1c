"""Pieces of shards, and what happens to a finished one."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pipeline import uris
from pipeline.errors import UnreadableDataset
from pipeline.image_keys import compute_image_key
from pipeline.image_members import read_members
from pipeline.manifests import Manifest
from pipeline.runs.encoded_image import ListedImage
from pipeline.runs.report import Report
from pipeline.shards import Shard, compute_shard_key, digest_images, put_part
from pipeline.stated_sizes import pair_sizes


@dataclass(frozen=True)
class Piece:
    """Rows of one shard that one task works on: all of them, or a single image on its own."""

    shard: Shard
    row: int | None = None
    """The image's row in the shard, or None for the whole shard, which its worker then commits."""

    @property
    def is_whole(self) -> bool:
        """Whether the piece is the whole shard."""
        return self.row is None

    @property
    def rows(self) -> int:
        """Images in the piece."""
        return self.shard.rows if self.is_whole else 1

    def read_images(self, manifest: Manifest, fingerprint: str) -> list[ListedImage]:
        """The piece's images.

        Raises:
            UnreadableDataset: the manifest no longer holds the images that the shard was made of.
        """
        table = manifest.read(self.shard.first_row, self.shard.rows, manifest.image_columns)
        image_ids, image_uris = table["image_id"].to_pylist(), table["uri"].to_pylist()
        members = read_members(table, manifest.uri, self.shard.first_row)
        digest = digest_images(image_ids, image_uris, members)
        if compute_shard_key(fingerprint, digest) != self.shard.key:
            raise UnreadableDataset(
                f"{uris.redact_uri(manifest.uri)}: rows from {self.shard.first_row} changed "
                "while the run was working"
            )
        sizes: list[tuple[int, int] | None] = [None] * len(table)
        if manifest.classes is not None:  # boxes refer to these sizes
            sizes = pair_sizes(table)
        keys = [
            compute_image_key(*identity, manifest.decoding)
            for identity in zip(image_ids, image_uris, members, strict=True)
        ]
        images = list(map(ListedImage, image_ids, image_uris, sizes, members, keys))
        return images if self.row is None else images[self.row : self.row + 1]


def commit_or_return(piece: Piece, output: str, table: pa.Table, report: Report) -> Report:
    """The report of a finished piece: a whole shard is committed, a single image's row is returned in it."""
    report.images = len(table)
    if piece.is_whole:
        with report.time_stage("commit"):
            report.counts["bytes"] += put_part(output, piece.shard, table)
    else:
        report.table = table
    return report
