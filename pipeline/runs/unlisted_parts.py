"""Parts that exist though their store does not list them yet, so that a resumed run does not redo them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline import storage, uris
from pipeline.shards import Shard

TOGETHER = 16
"""Requests at a time."""
MOST_MISSES = 64
"""Shards without a part, one after the other, that end the look-ups: a run commits about in order, so what
follows has not begun."""


def find_unlisted(output: str, shards: Sequence[Shard], listed: Collection[int]) -> frozenset[int]:
    """Look up by name what a listing lacks.

    Args:
        output: the folder of the parts.
        shards: of the run, in order.
        listed: ordinals of the shards whose part is listed.

    Returns:
        The ordinals of shards whose part exists though it is not listed.

    Raises:
        StorageError: the store cannot be reached.
    """
    unlisted = [shard for shard in shards if shard.ordinal not in listed]
    existing: set[int] = set()
    misses = 0

    def exists(shard: Shard) -> bool:
        return storage.exists(uris.join(output, shard.part_name))

    with ThreadPoolExecutor(TOGETHER) as threads:
        for first in range(0, len(unlisted), TOGETHER):
            batch = unlisted[first : first + TOGETHER]
            for shard, is_there in zip(batch, threads.map(exists, batch), strict=True):
                misses = 0 if is_there else misses + 1
                if is_there:
                    existing.add(shard.ordinal)
            if misses >= MOST_MISSES:
                break
    return frozenset(existing)
