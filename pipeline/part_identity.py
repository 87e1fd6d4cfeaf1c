"""Which shard of which run a part holds: said in its footer, and compared when the part is read.

A part's name is not proof: a copy of another part, or of a part of another run, may have it. The metadata
`shard` holds the shard's key, which hashes the run's fingerprint and the shard's images, and the number of
rows. A resumed run parses the footer of each part, so a damaged one is noticed; what it says of the shard is
searched in its bytes, which takes a fraction of the time of building the schema.
"""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.json_reader import InvalidJson, parse_json

MAGIC = b"PAR1"
"""First and last bytes of a Parquet file."""
FOOTER_END = 8
"""Bytes after the footer: its length, then the magic bytes."""
SHARD = b"shard"
"""Key of the metadata that names the shard."""
FINGERPRINT = b"fingerprint"
"""Key of the metadata that names the run."""


def encode_shard(key: str, rows: int) -> bytes:
    """The metadata value that names a shard."""
    return json.dumps({"key": key, "rows": rows}).encode()


def name_shard(table: pa.Table, key: str, rows: int | None = None) -> pa.Table:
    """The table with its shard in the metadata; `rows` are the shard's if the table has not one per image."""
    count = len(table) if rows is None else rows
    metadata = {**(table.schema.metadata or {}), SHARD: encode_shard(key, count)}
    return table.replace_schema_metadata(metadata)


def get_footer(end: bytes) -> bytes | None:
    """The footer in the last bytes of a Parquet file; None if there is none, or it begins before `end`."""
    if len(end) < len(MAGIC) + FOOTER_END or end[-len(MAGIC) :] != MAGIC:
        return None
    length = int.from_bytes(end[-FOOTER_END : -len(MAGIC)], "little")
    if not 0 < length <= len(end) - FOOTER_END:
        return None
    return end[-FOOTER_END - length : -FOOTER_END]


def get_footer_length(end: bytes) -> int:
    """Bytes of the footer and what follows it, as a Parquet file's last bytes say; 0 if they are none."""
    if len(end) < FOOTER_END or end[-len(MAGIC) :] != MAGIC:
        return 0
    return int.from_bytes(end[-FOOTER_END : -len(MAGIC)], "little") + FOOTER_END


def find_fault_in_end(end: bytes, key: str, rows: int, fingerprint: str | None) -> str | None:
    """Why the last bytes of a part show that it is damaged or not this shard's; None if they do not.

    Args:
        end: the last bytes of the part, with the whole footer.
        key: the shard's key.
        rows: the shard's number of rows.
        fingerprint: the run's; None if it is unknown.
    """
    if not end:
        return "it is empty"
    footer = get_footer(end)
    if footer is None:
        return "it does not end as a Parquet file does"
    try:
        metadata = pq.read_metadata(io.BytesIO(end))
        wrong_count = _find_wrong_row_count(metadata, rows)
        names_shard = encode_shard(key, rows) in footer
        if names_shard and (fingerprint is None or json.dumps(fingerprint).encode() in footer):
            return wrong_count
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        return f"its footer is not readable: {str(error).splitlines()[0]}"
    if FINGERPRINT not in (schema.metadata or {}):
        return wrong_count if names_shard else "it does not name the run that wrote it"
    return find_fault_in_schema(schema, key, rows, fingerprint) or wrong_count


def _find_wrong_row_count(metadata: pq.FileMetaData, rows: int) -> str | None:
    """Why the row counts of a footer are wrong; None if they are right.

    Only tables with a status have one row per image.
    """
    count = metadata.num_rows
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    if sum(groups) != count or min(groups, default=0) < 0:
        return f"its footer says {count} rows, but its row groups have {sum(groups)}"
    return find_wrong_count(count, rows) if "status" in metadata.schema.names else None


def find_fault_in_schema(
    schema: pa.Schema, key: str, rows: int, fingerprint: str | None
) -> str | None:
    """Why a part's schema shows that it is of another shard or run; None if it does not.

    Parts of earlier releases do not name their shard, and `fingerprint` is None if the run is unknown.
    """
    metadata = schema.metadata or {}
    if fingerprint is not None:
        stored = metadata.get(FINGERPRINT)
        if stored is not None and stored != json.dumps(fingerprint).encode():
            return "it is a part of another run"
    if SHARD not in metadata or metadata[SHARD] == encode_shard(key, rows):
        return None
    try:
        shard = parse_json(metadata[SHARD])
    except InvalidJson:
        shard = None
    if isinstance(shard, dict) and shard.get("key") == key:
        return find_wrong_count(shard.get("rows"), rows)
    return "it is the part of another shard"


def find_wrong_count(count: object, rows: int) -> str | None:
    """Why a part has the wrong number of rows; None if it has the right one."""
    return None if count == rows else f"it has {count} rows, but its shard has {rows}"
