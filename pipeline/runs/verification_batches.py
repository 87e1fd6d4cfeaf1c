"""Verifies many parts in this process or in several, with little in memory at a time."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from pipeline.errors import ShardFailed
from pipeline.runs.part_verification import PartContents, PartVerifier
from pipeline.shards import Shard

BATCH_IMAGES = 4096
"""Images whose parts a process verifies at a time, with one look into the manifest."""
SHARDS_PER_PROCESS = 32
"""Below that many, another process is not worth its start of a second."""


def batch_shards(present: Sequence[Shard], rows: int) -> Iterator[list[Shard]]:
    """Shards that follow on each other, at most `BATCH_IMAGES` of their images, or one shard."""
    batch: list[Shard] = []
    for shard in present:
        if shard.first_row + shard.rows > rows:  # the manifest has fewer images, which is a fault
            break
        images = sum(member.rows for member in batch) + shard.rows
        if batch and (images > BATCH_IMAGES or batch[-1].ordinal + 1 != shard.ordinal):
            yield batch
            batch = []
        batch.append(shard)
    if batch:
        yield batch


def verify_batches(
    verifier: PartVerifier, batches: Iterator[list[Shard]], processes: int | None
) -> Iterator[PartContents]:
    """Verify batches, in order, in this process or in several; few wait at a time.

    Raises:
        ShardFailed: a process was ended.
    """
    listed = list(batches)
    if processes is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = sum(map(len, listed))
        processes = max(1, min(cores or 1, count // SHARDS_PER_PROCESS))
    if processes == 1:
        yield from map(verifier, listed)
        return
    context = multiprocessing.get_context("spawn")  # a store's client does not survive a fork
    with ProcessPoolExecutor(processes, context) as pool:
        remaining = iter(listed)
        pending: list[Future[PartContents]] = [
            pool.submit(verifier, batch) for batch in islice(remaining, 2 * processes)
        ]
        try:
            while pending:
                yield pending.pop(0).result()
                pending += [pool.submit(verifier, batch) for batch in islice(remaining, 1)]
        except BrokenProcessPool as error:
            raise ShardFailed(
                "a process of the verification was ended, perhaps for its memory: use fewer --processes"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
