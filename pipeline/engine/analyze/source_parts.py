"""The parts of a detection run before they are matched: whole or damaged, how large, and their digests."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.part_identity import get_footer, get_footer_length
from pipeline.shards import Parts, Shard

END = 32_768
"""Bytes read from a part's end; a longer footer takes a second read."""


@dataclass(frozen=True)
class SourcePart:
    """What the end of a part of detections says."""

    digest: str
    """Of its footer, which changes with the part: it holds offsets, sizes and statistics."""
    detections: int
    """About how many there are; an image without any counts as one."""


def inspect_source_parts(parts: Parts) -> dict[int, SourcePart]:
    """Read the ends of all parts, by ordinal.

    Raises:
        UnreadableDataset: a part is empty or truncated; the message names it.
        StorageError: the store fails.
    """
    with ThreadPoolExecutor(16) as threads:  # each thread mostly waits for the store
        sources = list(threads.map(lambda shard: _inspect(parts, shard), parts.shards))
    return dict(zip((shard.ordinal for shard in parts.shards), sources, strict=True))


def _inspect(parts: Parts, shard: Shard) -> SourcePart:
    uri = uris.join(parts.uri, shard.part_name)
    end = storage.read_end(uri, END)
    length = get_footer_length(end)
    if length > len(end):
        end = storage.read_end(uri, length)
    footer = get_footer(end)
    if footer is None:
        fault = "it does not end as a Parquet file does" if end else "it is empty"
        raise _describe_fault(uri, fault)
    try:
        metadata = pq.ParquetFile(io.BytesIO(end)).metadata
    except (pa.ArrowException, OSError) as error:
        text = str(error).splitlines()[0]
        raise _describe_fault(uri, f"its footer is not readable: {text}") from error
    return SourcePart(hashlib.sha256(footer).hexdigest()[:16], _count_scores(metadata))


def _describe_fault(uri: str, fault: str) -> UnreadableDataset:
    return UnreadableDataset(
        f"{uris.redact_uri(uri)}: {fault}; rerun the job that writes it, which redoes such parts"
    )


def _count_scores(metadata: pq.FileMetaData) -> int:
    count = 0
    for group in range(metadata.num_row_groups):
        columns = metadata.row_group(group)
        for index in range(columns.num_columns):
            column = columns.column(index)
            if column.path_in_schema.endswith(".score"):
                count += column.num_values
    return count


def find_stale_parts(
    matches: Parts, committed: Sequence[Shard], sources: dict[int, SourcePart]
) -> list[Shard]:
    """Find committed parts of matches whose detections changed since: a detection run retried failed images.

    Args:
        matches: the output of the matches.
        committed: shards whose part is whole and of this run.
        sources: the parts of detections by ordinal.
    """

    def is_stale(shard: Shard) -> bool:
        source = sources.get(shard.ordinal)
        return source is not None and source.digest != read_source_digest(matches, shard)

    with ThreadPoolExecutor(16) as threads:
        stale = list(threads.map(is_stale, committed))
    return [shard for shard, old in zip(committed, stale, strict=True) if old]


def read_source_digest(matches: Parts, shard: Shard) -> str | None:
    """Read the digest of the detections that a part of matches was made from; None if it names none."""
    uri = uris.join(matches.uri, shard.part_name)
    end = storage.read_end(uri, END)
    length = get_footer_length(end)
    if length > len(end):
        end = storage.read_end(uri, length)
    try:
        stored = pq.ParquetFile(io.BytesIO(end)).schema_arrow
    except (pa.ArrowException, OSError):
        return None
    digest = (stored.metadata or {}).get(SOURCE.encode(), b"").decode(errors="replace")
    return digest.strip('"') or None


SOURCE = "source"
"""Key of the metadata of matches that names the part of detections."""
