"""A manifest cut into shards with content keys; which shards of an output are committed.

A shard's key hashes the run's fingerprint and its images, not its number. A shard is committed when
the one object `part-<ordinal>-<key>.parquet` lies in the output, so one listing tells what is left.
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

from pipeline import schema, storage
from pipeline.errors import MismatchedProposals, UnreadableDataset
from pipeline.manifests import Manifest
from pipeline.unique_ids import UniqueIds

TABLE_NAME = "shards.parquet"
_PART = re.compile(r"part-(\d{6,})-([0-9a-f]{24})\.parquet")


def shard_key(fingerprint: str, images: bytes) -> str:
    """The key of the shard with this digest of images in the run with this fingerprint."""
    return hashlib.sha256(fingerprint.encode() + images).hexdigest()[:24]


@dataclass(frozen=True)
class Shard:
    """Consecutive manifest rows that are worked on, and committed, as one."""

    ordinal: int
    key: str
    first_row: int
    rows: int

    @property
    def part_name(self) -> str:
        """The object's name that commits this shard."""
        return f"part-{self.ordinal:06d}-{self.key}.parquet"


@dataclass(frozen=True)
class Cut:
    """A manifest cut into shards, before a run gives them keys: sizes and image digests in order."""

    rows: tuple[int, ...]
    digests: tuple[bytes, ...]
    dataset: str
    """Digest of all (image_id, uri) pairs, the same however the manifest is cut."""

    @property
    def images(self) -> int:
        """Images in all shards."""
        return sum(self.rows)

    def shards(self, fingerprint: str) -> list[Shard]:
        """The shards of the run with this fingerprint."""
        made, first_row = [], 0
        for ordinal, (rows, digest) in enumerate(zip(self.rows, self.digests, strict=True)):
            made.append(Shard(ordinal, shard_key(fingerprint, digest), first_row, rows))
            first_row += rows
        return made


def cut(manifest: Manifest, sizes: int | Sequence[int], limit: int | None = None) -> Cut:
    """Stream the manifest once and cut it into shards.

    Args:
        manifest: what to cut.
        sizes: images per shard, or the rows of each shard of a cut made before.
        limit: only the first `limit` images.

    Raises:
        UnreadableDataset: a null image_id or uri, or the same image_id twice.
        MismatchedProposals: `sizes` of an earlier cut do not add up to the images there are.
    """
    total = manifest.rows if limit is None else min(limit, manifest.rows)
    if isinstance(sizes, int):
        rows = [min(sizes, total - start) for start in range(0, total, sizes)]
    else:
        rows = list(sizes)
        if sum(rows) != total:
            raise MismatchedProposals(
                f"{storage.shown(manifest.uri)} has {total} images here, the cut to follow has {sum(rows)}"
            )
    whole, digests = hashlib.sha256(), []
    pairs, image_ids = _pairs(manifest, total), UniqueIds(total)
    for count in rows:
        members = list(islice(pairs, count))
        image_ids.add(image_id for image_id, _ in members)
        encoded = b"".join(_encoded(image_id, uri) for image_id, uri in members)
        whole.update(encoded)
        digests.append(hashlib.sha256(encoded).digest())
    image_ids.check(manifest)
    return Cut(tuple(rows), tuple(digests), whole.hexdigest())


def digest(image_ids: Iterable[str], uris: Iterable[str]) -> bytes:
    """The digest of a shard's images, as `cut` computes it."""
    return hashlib.sha256(
        b"".join(_encoded(i, u) for i, u in zip(image_ids, uris, strict=True))
    ).digest()


def _pairs(manifest: Manifest, limit: int) -> Iterator[tuple[str, str]]:
    seen = 0
    for batch in manifest.batches(["image_id", "uri"], limit):
        try:
            ids, uris = (batch.column(name).to_pylist() for name in ("image_id", "uri"))
        except UnicodeDecodeError as error:
            raise UnreadableDataset(
                f"{storage.shown(manifest.uri)}: an image_id or uri of the rows {seen} to "
                f"{seen + len(batch) - 1} is not UTF-8: {error.object[:100]!r}"
            ) from error
        for image_id, uri in zip(ids, uris, strict=True):
            if image_id is None or uri is None:
                name = "image_id" if image_id is None else "uri"
                raise UnreadableDataset(
                    f"{storage.shown(manifest.uri)}: row {seen} has a null {name}"
                )
            seen += 1
            yield image_id, uri


def _encoded(image_id: str, uri: str) -> bytes:
    first, second = image_id.encode(), uri.encode()
    return b"%d:%b%d:%b" % (len(first), first, len(second), second)


def write_table(output: str, shards: Sequence[Shard]) -> None:
    """Put the shard table; it is written before work starts and never changes."""
    table = pa.Table.from_pylist([vars(shard) for shard in shards], schema=schema.SHARD_TABLE)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    storage.put(storage.join(output, TABLE_NAME), buffer.getvalue())


def read_table(output: str) -> list[Shard] | None:
    """The shard table of an output, or None where there is none.

    Raises:
        UnreadableDataset: it is damaged.
    """
    uri = storage.join(output, TABLE_NAME)
    try:
        data = storage.read(uri)
    except storage.MissingObject:
        return None
    with schema.reading(uri):
        rows = pq.read_table(io.BytesIO(data)).select(schema.SHARD_TABLE.names).to_pylist()
    return [Shard(**row) for row in rows]


@dataclass(frozen=True)
class Listing:
    """What lies in an output folder, told from names alone."""

    committed: frozenset[int]
    """Ordinals of the shards whose part is there."""
    strays: tuple[str, ...]
    """Names of parts that belong to no shard of the table: another run's, or an older cut's."""


def listing(output: str, shards: Sequence[Shard]) -> Listing:
    """List an output once and tell which shards are committed."""
    ordinals = {shard.part_name: shard.ordinal for shard in shards}
    parts = [name for name in storage.names(output) if _PART.fullmatch(name)]
    return Listing(
        frozenset(ordinals[name] for name in parts if name in ordinals),
        tuple(name for name in parts if name not in ordinals),
    )


def put_part(output: str, shard: Shard, table: pa.Table) -> int:
    """Commit a shard: put its part as one whole object. Returns the object's size in bytes."""
    data = part_bytes(table)
    storage.put(storage.join(output, shard.part_name), data)
    return len(data)


def part_bytes(table: pa.Table) -> bytes:
    """A part's table as the bytes of a Parquet object."""
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

    def schema(self) -> pa.Schema:
        """The parts' schema with its metadata, read from the first part."""
        uri = storage.join(self.uri, self.shards[0].part_name)
        with storage.opened(uri) as source, schema.reading(uri):
            return pq.read_schema(source)

    def read(self, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
        """One part.

        Raises:
            UnreadableDataset: the part is damaged or has another number of rows than its shard.
        """
        uri = storage.join(self.uri, shard.part_name)
        with storage.opened(uri) as source, schema.reading(uri):
            table = pq.read_table(source, columns=None if columns is None else list(columns))
        if len(table) != shard.rows:
            raise UnreadableDataset(
                f"{storage.shown(uri)} has {len(table)} rows, its shard {shard.rows}"
            )
        return table

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All parts in order, one at a time."""
        for shard in self.shards:
            yield self.read(shard, columns)


def open_parts(output: str) -> Parts:
    """Open an output of `propose` or `detect` for reading.

    Raises:
        UnreadableDataset: it is no such output, or shards are missing because its run did not end.
    """
    output = storage.absolute(output)
    shards = read_table(output)
    if not shards:
        raise UnreadableDataset(
            f"{storage.shown(output)} holds no {TABLE_NAME}: no propose or detect run wrote here"
        )
    missing = len(shards) - len(listing(output, shards).committed)
    if missing:
        raise UnreadableDataset(
            f"{storage.shown(output)} lacks {missing} of {len(shards)} shards: "
            "run the job that writes it again, it does just those"
        )
    return Parts(output, tuple(shards))
