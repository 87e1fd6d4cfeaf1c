"""A manifest cut into shards with content keys, and the parts that commit these shards in an output.

A shard's key hashes the run's fingerprint and the shard's images, not its number. A shard is committed if
the output holds its one object `part-<ordinal>-<key>.parquet`, so one listing shows which shards are left.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema, storage, uris
from pipeline.errors import MismatchedProposals, MissingObject, UnreadableDataset
from pipeline.manifests import Manifest
from pipeline.unique_ids import UniqueIds

TABLE_NAME = "shards.parquet"
_PART = re.compile(r"part-(\d{6,})-([0-9a-f]{24})\.parquet")


def compute_shard_key(fingerprint: str, images: bytes) -> str:
    """The key of the shard with this digest of images in the run with this fingerprint."""
    return hashlib.sha256(fingerprint.encode() + images).hexdigest()[:24]


@dataclass(frozen=True)
class Shard:
    """Consecutive manifest rows that are processed and committed together."""

    ordinal: int
    key: str
    first_row: int
    rows: int

    @property
    def part_name(self) -> str:
        """The name of the object that commits this shard."""
        return f"part-{self.ordinal:06d}-{self.key}.parquet"


@dataclass(frozen=True)
class Cut:
    """A manifest cut into shards that have no keys yet: sizes and image digests in order."""

    rows: tuple[int, ...]
    digests: tuple[bytes, ...]
    dataset: str
    """Digest of all (image_id, uri) pairs, the same however the manifest is cut."""

    @property
    def images(self) -> int:
        """Images in all shards."""
        return sum(self.rows)

    def build_shards(self, fingerprint: str) -> list[Shard]:
        """The shards of the run with this fingerprint."""
        shards, first_row = [], 0
        for ordinal, (rows, digest) in enumerate(zip(self.rows, self.digests, strict=True)):
            shards.append(Shard(ordinal, compute_shard_key(fingerprint, digest), first_row, rows))
            first_row += rows
        return shards


def cut_manifest(manifest: Manifest, sizes: int | Sequence[int], limit: int | None = None) -> Cut:
    """Stream the manifest once and cut it into shards.

    Args:
        manifest: the images to cut.
        sizes: images per shard, or the rows of each shard of an earlier cut to follow.
        limit: only the first `limit` images.

    Raises:
        UnreadableDataset: a null image_id or uri, or the same image_id twice.
        MismatchedProposals: the sizes of the earlier cut do not add up to the manifest's images.
    """
    total = manifest.rows if limit is None else min(limit, manifest.rows)
    if isinstance(sizes, int):
        rows = [min(sizes, total - start) for start in range(0, total, sizes)]
    else:
        rows = list(sizes)
        if sum(rows) != total:
            raise MismatchedProposals(
                f"{uris.redact_uri(manifest.uri)} has {total} images here, but the cut to follow has "
                f"{sum(rows)}"
            )
    whole, digests = hashlib.sha256(), []
    pairs, image_ids = _read_pairs(manifest, total), UniqueIds(total)
    for count in rows:
        members = list(islice(pairs, count))
        image_ids.add(image_id for image_id, _ in members)
        encoded = b"".join(_encode_pair(image_id, uri) for image_id, uri in members)
        whole.update(encoded)
        digests.append(hashlib.sha256(encoded).digest())
    image_ids.check(manifest)
    return Cut(tuple(rows), tuple(digests), whole.hexdigest())


def digest_images(image_ids: Iterable[str], image_uris: Iterable[str]) -> bytes:
    """The digest of a shard's images, as `cut_manifest` computes it."""
    return hashlib.sha256(
        b"".join(_encode_pair(i, u) for i, u in zip(image_ids, image_uris, strict=True))
    ).digest()


def _read_pairs(manifest: Manifest, limit: int) -> Iterator[tuple[str, str]]:
    row = 0
    for batch in manifest.read_batches(["image_id", "uri"], limit):
        try:
            ids, image_uris = (batch.column(name).to_pylist() for name in ("image_id", "uri"))
        except UnicodeDecodeError as error:
            raise UnreadableDataset(
                f"{uris.redact_uri(manifest.uri)}: an image_id or uri in rows {row} to "
                f"{row + len(batch) - 1} is not UTF-8: {error.object[:100]!r}"
            ) from error
        for image_id, uri in zip(ids, image_uris, strict=True):
            if image_id is None or uri is None:
                name = "image_id" if image_id is None else "uri"
                raise UnreadableDataset(
                    f"{uris.redact_uri(manifest.uri)}: row {row} has a null {name}"
                )
            row += 1
            yield image_id, uri


def _encode_pair(image_id: str, uri: str) -> bytes:
    first, second = image_id.encode(), uri.encode()
    return b"%d:%b%d:%b" % (len(first), first, len(second), second)


def write_shard_table(output: str, shards: Sequence[Shard]) -> None:
    """Put the shard table; a run writes it before its work starts and never changes it."""
    target = schema.add_metadata(schema.SHARD_TABLE, {})
    table = pa.Table.from_pylist([vars(shard) for shard in shards], schema=target)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    storage.put(uris.join(output, TABLE_NAME), buffer.getvalue())


def read_shard_table(output: str) -> list[Shard] | None:
    """The shard table of an output, or None if the output has none.

    Raises:
        UnreadableDataset: the table is damaged or has a newer schema.
    """
    uri = uris.join(output, TABLE_NAME)
    try:
        data = storage.read(uri)
    except MissingObject:
        return None
    with schema.report_damage(uri):
        table = pq.read_table(io.BytesIO(data))
        schema.check_version(table.schema, uri)
        rows = table.select(schema.SHARD_TABLE.names).to_pylist()
    return [Shard(**row) for row in rows]


@dataclass(frozen=True)
class PartListing:
    """The parts in an output folder, by their names alone."""

    committed: frozenset[int]
    """Ordinals of the shards whose part exists."""
    strays: tuple[str, ...]
    """Names of parts that belong to no shard of the table: another run's, or an older cut's."""


def list_parts(output: str, shards: Sequence[Shard]) -> PartListing:
    """List an output once and find which shards are committed."""
    ordinals = {shard.part_name: shard.ordinal for shard in shards}
    parts = [name for name in storage.list_names(output) if _PART.fullmatch(name)]
    return PartListing(
        frozenset(ordinals[name] for name in parts if name in ordinals),
        tuple(name for name in parts if name not in ordinals),
    )


def put_part(output: str, shard: Shard, table: pa.Table) -> int:
    """Commit a shard: put its part as one whole object. Returns the object's size in bytes."""
    data = encode_part(table)
    storage.put(uris.join(output, shard.part_name), data)
    return len(data)


def encode_part(table: pa.Table) -> bytes:
    """The table of a part as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


@dataclass(frozen=True)
class Parts:
    """A finished output, opened for reading: its parts in the order of the manifest."""

    uri: str
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        """Images in all parts."""
        return sum(shard.rows for shard in self.shards)

    def read_schema(self) -> pa.Schema:
        """The parts' schema with its metadata, read from the first part.

        Raises:
            UnreadableDataset: the part is damaged or has a newer schema.
        """
        uri = uris.join(self.uri, self.shards[0].part_name)
        with storage.open_file(uri) as source, schema.report_damage(uri):
            part_schema = pq.read_schema(source)
        schema.check_version(part_schema, uri)
        return part_schema

    def read(self, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one part.

        Raises:
            UnreadableDataset: the part is damaged, has a newer schema, or has a wrong number of rows.
        """
        uri = uris.join(self.uri, shard.part_name)
        with storage.open_file(uri) as source, schema.report_damage(uri):
            table = pq.read_table(source, columns=None if columns is None else list(columns))
        schema.check_version(table.schema, uri)
        if len(table) != shard.rows:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)} has {len(table)} rows, but its shard has {shard.rows}"
            )
        return table

    def read_tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read all parts in order, one at a time."""
        for shard in self.shards:
            yield self.read(shard, columns)


def open_parts(output: str) -> Parts:
    """Open an output of `propose` or `detect` for reading.

    Raises:
        UnreadableDataset: the folder is no such output, its schema is newer, or its run did not finish.
    """
    output = uris.make_absolute(output)
    shards = read_shard_table(output)
    if not shards:
        raise UnreadableDataset(
            f"{uris.redact_uri(output)} holds no {TABLE_NAME}: "
            "it is not the output of a propose or detect run"
        )
    missing = len(shards) - len(list_parts(output, shards).committed)
    if missing:
        raise UnreadableDataset(
            f"{uris.redact_uri(output)} lacks {missing} of {len(shards)} shards: "
            "rerun the job that writes it; it processes only the missing shards"
        )
    return Parts(output, tuple(shards))
