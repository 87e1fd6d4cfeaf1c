"""Proposals that a run stored, matched with the manifest whose images they are to be used on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import pyarrow as pa

from pipeline import run_record, schema, shards, storage
from pipeline.errors import MismatchedProposals
from pipeline.manifests import Manifest
from pipeline.shards import Parts, Shard


@dataclass(frozen=True)
class StoredRows:
    """Where the proposals of some consecutive images lie: all that a worker needs to know of them."""

    uri: str
    spans: tuple[tuple[Shard, int, int], ...]
    """Of each shard that they lie in: the first of its rows, and how many."""

    def table(self) -> pa.Table:
        """The rows of `schema.PROPOSALS`, one per image.

        Raises:
            UnreadableDataset: a part is damaged.
        """
        parts = Parts(self.uri, tuple(shard for shard, _, _ in self.spans))
        return pa.concat_tables(
            parts.read(shard).slice(first, rows) for shard, first, rows in self.spans
        )


@dataclass(frozen=True)
class StoredProposals:
    """Stored proposals, and the part of their cut that is used."""

    parts: Parts
    rows: tuple[int, ...]
    """Images taken of each shard, in order; the last shard may be taken in part."""
    dataset: str
    """Digest of the manifest's images that they are used on."""
    provenance: Any
    """How they were made and for which images; what a later run records of them."""

    def of(self, first_row: int, rows: int) -> StoredRows:
        """Where the proposals of these rows of the manifest lie; any cut may be laid over theirs."""
        shards, spans = self.parts.shards, []
        ordinal = bisect_right(self._first_rows, first_row) - 1
        while rows:
            shard = shards[ordinal]
            first = first_row - shard.first_row
            taken = min(rows, shard.rows - first)
            spans.append((shard, first, taken))
            first_row, rows, ordinal = first_row + taken, rows - taken, ordinal + 1
        return StoredRows(self.parts.uri, tuple(spans))

    @cached_property
    def _first_rows(self) -> list[int]:
        return [shard.first_row for shard in self.parts.shards]


def matching(uri: str, manifest: Manifest, limit: int | None = None) -> StoredProposals:
    """Open stored proposals and check that they are for the manifest's images, in its order.

    Args:
        uri: the output folder of a propose run that ended.
        manifest: the images.
        limit: only its first `limit` images are wanted.

    Raises:
        MismatchedProposals: they are for other images, or for fewer; the message names the first.
        UnreadableDataset: they are incomplete, or no proposals.
    """
    parts = shards.open_parts(uri)
    stored_schema = parts.schema()
    if "boxes" not in stored_schema.names:
        raise MismatchedProposals(
            f"{storage.shown(uri)} holds no proposals: its columns are {', '.join(stored_schema.names)}"
        )
    wanted = manifest.rows if limit is None else min(limit, manifest.rows)
    if parts.rows < wanted:
        raise MismatchedProposals(
            f"{storage.shown(uri)} has proposals for {parts.rows} images, but {wanted} of "
            f"{storage.shown(manifest.uri)} are asked for: propose for all of them, "
            f"or detect with --limit {parts.rows}"
        )
    ends = accumulate(shard.rows for shard in parts.shards)
    rows = tuple(
        min(shard.rows, wanted - (end - shard.rows))
        for shard, end in zip(parts.shards, ends, strict=True)
        if end - shard.rows < wanted
    )
    dataset = shards.cut(manifest, rows, limit).dataset
    record = run_record.read_record(parts.uri)
    if record is None or record.settings.get("dataset") != dataset:
        _compare_ids(parts, manifest, wanted)
    provenance = {
        "stored": schema.metadata_value(stored_schema, "provenance"),
        "fingerprint": schema.metadata_value(stored_schema, "fingerprint"),
    }
    return StoredProposals(parts, rows, dataset, provenance)


def _compare_ids(parts: Parts, manifest: Manifest, wanted: int) -> None:
    """Images may have moved: the same ids in the same order are the same images."""
    proposed = _ids(parts.tables(["image_id"]))
    for row, image_id in enumerate(_ids(manifest.batches(["image_id"], wanted))):
        other = next(proposed)
        if other != image_id:
            raise MismatchedProposals(
                f"{storage.shown(parts.uri)} was made for other images than "
                f"{storage.shown(manifest.uri)}: row {row} is {other!r} there and {image_id!r} here; "
                "propose for this manifest"
            )


def _ids(tables: Iterable[Any]) -> Iterator[str]:
    for table in tables:
        yield from table.column("image_id").to_pylist()
