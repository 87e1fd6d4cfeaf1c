"""A manifest cut into shards with content keys, and the parts that commit these shards in an output.

A shard's key hashes the run's fingerprint and the shard's images, not its number. A shard is committed if
the output holds its one object `part-<ordinal>-<key>.parquet`, so one listing shows which shards are left.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import candidate_thresholds, run_record, schema, storage, uris
from pipeline.candidate_thresholds import CandidateThresholds
from pipeline.errors import (
    MismatchedOutput,
    MismatchedProposals,
    MissingObject,
    UnreadableDataset,
)
from pipeline.image_members import Member, read_members
from pipeline.manifests import Manifest
from pipeline.part_identity import find_fault_in_schema, find_wrong_count, name_shard
from pipeline.run_record import RunRecord
from pipeline.table_checks import PART, cast_table, require_columns
from pipeline.unique_ids import UniqueIds

TABLE_NAME = "shards.parquet"
_KEY = re.compile(r"[0-9a-f]{24}")
PART_NAME = re.compile(rf"part-\d{{6,}}-{_KEY.pattern}\.parquet")
"""Names of parts; a run removes no others."""


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
    """Digest of all image_ids, uris and members, and of how to decode them, the same however the manifest is
    cut."""

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
        StorageError: the package for an image's store is not installed.
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
    images, image_ids = _read_identities(manifest, total), UniqueIds(total)
    for count in rows:
        of_shard = list(islice(images, count))
        image_ids.add(image_id for image_id, _, _ in of_shard)
        encoded = b"".join(_encode_identity(*identity) for identity in of_shard)
        whole.update(encoded)
        digests.append(hashlib.sha256(encoded).digest())
    image_ids.check(manifest)
    if manifest.exif != "ignore":  # other pixels; the digest of unturned images stays what it was
        whole.update(f"exif:{manifest.exif}".encode())
    if manifest.truncated != "reject":
        whole.update(f"truncated:{manifest.truncated}".encode())
    return Cut(tuple(rows), tuple(digests), whole.hexdigest())


def digest_images(
    image_ids: Iterable[str],
    image_uris: Iterable[str],
    members: Iterable[Member | None] | None = None,
) -> bytes:
    """The digest of a shard's images, as `cut_manifest` computes it; without `members`, all are files."""
    image_ids = list(image_ids)
    members = [None] * len(image_ids) if members is None else members
    identities = zip(image_ids, image_uris, members, strict=True)
    return hashlib.sha256(b"".join(_encode_identity(*identity) for identity in identities)).digest()


def _read_identities(manifest: Manifest, limit: int) -> Iterator[tuple[str, str, Member | None]]:
    row = 0
    protocols: set[str] = set()
    for batch in manifest.read_batches(manifest.image_columns, limit):
        try:
            ids, image_uris = (batch.column(name).to_pylist() for name in ("image_id", "uri"))
        except UnicodeDecodeError as error:
            raise UnreadableDataset(
                f"{uris.redact_uri(manifest.uri)}: an image_id or uri in rows {row} to "
                f"{row + len(batch) - 1} is not UTF-8: {error.object[:100]!r}"
            ) from error
        members = read_members(batch, manifest.uri, row)
        for image_id, uri, member in zip(ids, image_uris, members, strict=True):
            if image_id is None or uri is None:
                name = "image_id" if image_id is None else "uri"
                raise UnreadableDataset(
                    f"{uris.redact_uri(manifest.uri)}: row {row} has a null {name}"
                )
            if (protocol := uris.get_protocol(uri)) not in protocols:
                protocols.add(protocol)
                storage.check_packages(uri)
            row += 1
            yield image_id, uri, member


def _encode_identity(image_id: str, uri: str, member: Member | None) -> bytes:
    first, second = image_id.encode(), uri.encode()
    encoded = b"%d:%b%d:%b" % (len(first), first, len(second), second)
    if member is None:
        return encoded
    return encoded + b"member%d:%b" % (len(member.identity), member.identity)


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
        UnreadableDataset: the table is damaged, has columns of other types or a newer schema, or its shards
            do not follow on each other.
    """
    uri = uris.join(output, TABLE_NAME)
    try:
        data = storage.read(uri)
    except MissingObject:
        return None
    with schema.report_damage(uri):
        table = schema.parse_parquet(data)
        schema.check_version(table.schema, uri)
    names = schema.SHARD_TABLE.names
    table = cast_table(require_columns(table, names, uri), schema.SHARD_TABLE, uri)
    rows = table.select(names).to_pylist()
    shards = [Shard(**row) for row in rows]
    _check_shards(uri, shards)
    return shards


def _check_shards(uri: str, shards: Sequence[Shard]) -> None:
    """Check that shards are numbered in order and cover the rows from 0 on without gap or overlap."""
    first_row = 0
    for ordinal, shard in enumerate(shards):
        is_in_order = (shard.ordinal, shard.first_row) == (ordinal, first_row)
        if not is_in_order or shard.rows < 1 or not _KEY.fullmatch(shard.key):
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)} is damaged: entry {ordinal} is {shard!s:.200}, expected ordinal "
                f"{ordinal}, first_row {first_row}, at least one row and a key of 24 hexadecimal digits; "
                "run the job that writes it with --overwrite"
            )
        first_row += shard.rows


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
    parts = [name for name in storage.list_names(output) if PART_NAME.fullmatch(name)]
    return PartListing(
        frozenset(ordinals[name] for name in parts if name in ordinals),
        tuple(name for name in parts if name not in ordinals),
    )


def find_missing(output: str, shards: Sequence[Shard], committed: Collection[int]) -> list[Shard]:
    """The shards that have no part.

    Listings of some stores lag behind what was put, so a part that is not listed is looked up by its name.
    The first one that is indeed missing ends the look-ups.

    Args:
        output: the folder.
        shards: the shards that must have a part.
        committed: ordinals of those whose part is listed.

    Returns:
        The shards that are not listed, or none if all of their parts exist.
    """
    unlisted = [shard for shard in shards if shard.ordinal not in committed]
    for shard in unlisted:
        if not storage.exists(uris.join(output, shard.part_name)):
            return unlisted
    return []


def put_part(output: str, shard: Shard, table: pa.Table, *, one_row_per_image: bool = True) -> int:
    """Commit a shard: put its part, which names the shard, as one whole object.

    Returns:
        The object's size in bytes.
    """
    data = encode_part(name_shard(table, shard.key, None if one_row_per_image else shard.rows))
    storage.put(uris.join(output, shard.part_name), data)
    return len(data)


def encode_part(table: pa.Table) -> bytes:
    """The table of a part as the bytes of a Parquet file.

    Floats of a flat table have no dictionary: they hardly repeat, and matches are 29 % smaller without.
    """
    fields = list(table.schema)
    is_flat = not any(pa.types.is_nested(field.type) for field in fields)
    repeating = [field.name for field in fields if not pa.types.is_floating(field.type)]
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=repeating if is_flat else True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Parts:
    """A finished output, opened for reading: its parts in the order of the manifest."""

    uri: str
    shards: tuple[Shard, ...]
    fingerprint: str | None = None
    """Fingerprint of the run that wrote the parts; None if it is unknown."""
    thresholds: CandidateThresholds | None = None
    """Score thresholds that the run's rule applies to all detections once they are there."""
    one_row_per_image: bool = True
    """False for matches, which have a row per detection and missed object."""

    @property
    def rows(self) -> int:
        """Images in all parts."""
        return sum(shard.rows for shard in self.shards)

    def read_schema(self) -> pa.Schema:
        """The parts' schema with its metadata, read from the first part.

        Raises:
            UnreadableDataset: the part is damaged, has a newer schema, or is of another shard or run.
        """
        uri = uris.join(self.uri, self.shards[0].part_name)
        with storage.open_file(uri) as source, schema.report_damage(uri):
            part_schema = pq.read_schema(source)
        self._check_part(uri, self.shards[0], part_schema)
        return part_schema

    def read(self, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one part, with its columns in the types of their schema and all values checked.

        Raises:
            UnreadableDataset: the part is damaged, of another shard or run, has a newer schema or a wrong
                number of rows, lacks one of `columns`, or holds a value that does not belong there, such as
                a null or inverted box.
        """
        uri = uris.join(self.uri, shard.part_name)
        with storage.open_file(uri) as source, schema.report_damage(uri):
            table = pq.ParquetFile(source).read(None if columns is None else list(columns))
        self._check_part(uri, shard, table.schema, len(table))
        table = cast_table(require_columns(table, columns or (), uri), PART, uri)
        if self.thresholds is None or "detections" not in table.column_names:
            return table
        return self.thresholds.apply(table)

    def _check_part(
        self, uri: str, shard: Shard, part_schema: pa.Schema, rows: int | None = None
    ) -> None:
        schema.check_version(part_schema, uri)
        fault = find_fault_in_schema(part_schema, shard.key, shard.rows, self.fingerprint)
        if fault is None and rows is not None and self.one_row_per_image:
            fault = find_wrong_count(rows, shard.rows)
        if fault is not None:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)}: {fault}; rerun the job that writes it, which redoes such parts"
            )

    def read_tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read all parts in order, one at a time."""
        for shard in self.shards:
            yield self.read(shard, columns)


def open_parts(output: str, *, may_lack_shards: bool = False) -> Parts:
    """Open an output of `propose` or `detect` for reading.

    Args:
        output: the folder.
        may_lack_shards: open the shards that an unfinished run has committed, at least one.

    Raises:
        UnreadableDataset: the folder is no such output, its schema is newer, its run did not finish, or its
            record is damaged.
    """
    output = uris.make_absolute(output)
    shards = read_shard_table(output)
    if not shards:
        raise UnreadableDataset(
            f"{uris.redact_uri(output)} holds no {TABLE_NAME}: "
            "it is not the output of a propose or detect run"
        )
    committed = list_parts(output, shards).committed
    if not may_lack_shards and not find_missing(output, shards, committed):
        committed = frozenset(shard.ordinal for shard in shards)
    missing = len(shards) - len(committed)
    if missing and not (may_lack_shards and committed):
        raise UnreadableDataset(
            f"{uris.redact_uri(output)} lacks {missing} of {len(shards)} shards: "
            "rerun the job that writes it; it processes only the missing shards"
        )
    shards = [shard for shard in shards if shard.ordinal in committed]
    record = _read_record(output)
    if record is None:
        return Parts(output, tuple(shards))
    thresholds = candidate_thresholds.read_thresholds(output, record)
    if thresholds is None and candidate_thresholds.get_mean_per_image(record) is not None:
        raise UnreadableDataset(
            f"{uris.redact_uri(output)} lacks {candidate_thresholds.THRESHOLDS_NAME}, since its run did not "
            "finish: rerun the job that writes it"
        )
    return Parts(output, tuple(shards), record.fingerprint, thresholds)


def _read_record(output: str) -> RunRecord | None:
    """The record of the run that wrote an output; None if it has none."""
    try:
        return run_record.read_record(output)
    except MismatchedOutput as error:
        raise UnreadableDataset(
            f"{uris.redact_uri(output)}/{run_record.RECORD_NAME} is damaged, so it is unknown which run "
            "wrote the parts"
        ) from error
