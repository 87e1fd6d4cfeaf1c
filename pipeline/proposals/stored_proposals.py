"""Proposals that a run stored, matched with the manifest on whose images they are used."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import pyarrow as pa

from pipeline import run_record, schema, shards, uris
from pipeline.errors import MismatchedProposals
from pipeline.manifests import Manifest
from pipeline.shards import Parts, Shard


@dataclass(frozen=True)
class StoredRows:
    """The location of some consecutive images' proposals: all that a worker needs to read them."""

    uri: str
    spans: tuple[tuple[Shard, int, int], ...]
    """Each shard with the first row to read, counted from the shard's start, and the number of rows."""
    fingerprint: str | None = None
    """Fingerprint of the run that stored them."""

    def read_table(self) -> pa.Table:
        """Read the rows of `schema.PROPOSALS`, one per image.

        Raises:
            UnreadableDataset: a part is damaged.
        """
        parts = Parts(self.uri, tuple(shard for shard, _, _ in self.spans), self.fingerprint)
        return pa.concat_tables(
            parts.read(shard, schema.PROPOSALS.names).slice(first, rows)
            for shard, first, rows in self.spans
        )


@dataclass(frozen=True)
class StoredProposals:
    """Stored proposals, and how many rows of each shard are used."""

    parts: Parts
    rows: tuple[int, ...]
    """Images used of each shard, in order; the last shard may be used in part."""
    dataset: str
    """Digest of the manifest's images on which the proposals are used."""
    provenance: Any
    """How and for which images the proposals were made; a later run records it."""

    def locate(self, first_row: int, rows: int) -> StoredRows:
        """Locate the proposals of some rows of the manifest; the rows may span several stored shards."""
        shards, spans = self.parts.shards, []
        ordinal = bisect_right(self._first_rows, first_row) - 1
        while rows:
            shard = shards[ordinal]
            first = first_row - shard.first_row
            count = min(rows, shard.rows - first)
            spans.append((shard, first, count))
            first_row, rows, ordinal = first_row + count, rows - count, ordinal + 1
        return StoredRows(self.parts.uri, tuple(spans), self.parts.fingerprint)

    @cached_property
    def _first_rows(self) -> list[int]:
        return [shard.first_row for shard in self.parts.shards]


def open_stored_proposals(
    uri: str, manifest: Manifest, limit: int | None = None
) -> StoredProposals:
    """Open stored proposals and check that they are for the manifest's images, in its order.

    Args:
        uri: the output folder of a complete propose run.
        manifest: the images.
        limit: use only the manifest's first `limit` images.

    Raises:
        MismatchedProposals: not proposals, or for other or fewer images; names the first difference.
        UnreadableDataset: the proposals are incomplete.
    """
    parts = shards.open_parts(uri)
    stored_schema = parts.read_schema()
    if "boxes" not in stored_schema.names:
        raise MismatchedProposals(
            f"{uris.redact_uri(uri)} holds no proposals: "
            f"its columns are {', '.join(stored_schema.names)}"
        )
    images = manifest.rows if limit is None else min(limit, manifest.rows)
    if parts.rows < images:
        raise MismatchedProposals(
            f"{uris.redact_uri(uri)} has proposals for {parts.rows} images, but {images} of "
            f"{uris.redact_uri(manifest.uri)} are needed: propose for all of them, "
            f"or detect with --limit {parts.rows}"
        )
    ends = accumulate(shard.rows for shard in parts.shards)
    rows = tuple(
        min(shard.rows, images - (end - shard.rows))
        for shard, end in zip(parts.shards, ends, strict=True)
        if end - shard.rows < images
    )
    dataset = shards.cut_manifest(manifest, rows, limit).dataset
    record = run_record.read_record(parts.uri)
    if record is None or record.settings.get("dataset") != dataset:
        _check_image_ids(parts, manifest, images)
    provenance = {
        "stored": schema.read_metadata(stored_schema, "provenance"),
        "fingerprint": schema.read_metadata(stored_schema, "fingerprint"),
    }
    return StoredProposals(parts, rows, dataset, provenance)


def _check_image_ids(parts: Parts, manifest: Manifest, images: int) -> None:
    """Compare only ids, not URIs: images may have moved since the proposals were made."""
    proposed_ids = _iterate_image_ids(parts.read_tables(["image_id"]))
    for row, image_id in enumerate(_iterate_image_ids(manifest.read_batches(["image_id"], images))):
        proposed_id = next(proposed_ids)
        if proposed_id != image_id:
            raise MismatchedProposals(
                f"{uris.redact_uri(parts.uri)} was made for other images than "
                f"{uris.redact_uri(manifest.uri)}: row {row} is {proposed_id!r} there and "
                f"{image_id!r} here; propose for this manifest"
            )


def _iterate_image_ids(tables: Iterable[Any]) -> Iterator[str]:
    for table in tables:
        yield from table.column("image_id").to_pylist()
