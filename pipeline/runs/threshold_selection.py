"""The thresholds of `detect --rule paper`, selected exactly from the candidate scores of all parts.

A class's threshold is its (images * mean)-th best candidate score. Two passes over the column of scores find
it in memory that does not grow with the dataset. Scores from 0 to 1 are ordered like the bits of their
float32: the first pass counts scores by the upper half of the bits, the second by the lower half among those
whose upper half is the threshold's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema, uris
from pipeline.candidate_thresholds import (
    CANDIDATE_SCORES,
    CandidateThresholds,
    get_mean_per_image,
    read_thresholds,
)
from pipeline.errors import UnreadableDataset
from pipeline.run_record import RunRecord
from pipeline.shards import Parts, Shard

log = logging.getLogger(__name__)

HALF_BITS = 16
HALF = 1 << HALF_BITS
MOST_UPPER = (int(np.array(1, np.float32).view(np.uint32)) >> HALF_BITS) + 1
"""Values of the upper half of the bits of a score from 0 to 1."""
WINDOW = 8
"""Parts that are read ahead."""


@dataclass(frozen=True)
class PartCandidates:
    """The candidates in one part."""

    images: int
    """Images that were detected in."""
    class_id: NDArray[np.int64]
    """`(N,)`"""
    bits: NDArray[np.int64]
    """`(N,)` the bits of the float32 scores."""


def put_missing_thresholds(output: str, record: RunRecord, shards: tuple[Shard, ...]) -> None:
    """Put the thresholds of a run whose parts are all committed, if its rule has any and they are missing.

    Raises:
        UnreadableDataset: a part is damaged.
        StorageError: the store does not answer.
    """
    mean = get_mean_per_image(record)
    if mean is None or read_thresholds(output, record) is not None:
        return
    log.info("selecting each class's score threshold from %d parts", len(shards))
    select_thresholds(Parts(output, shards, record.fingerprint), mean).put(output)


def select_thresholds(parts: Parts, mean_per_image: int) -> CandidateThresholds:
    """Select each class's threshold from the candidate scores in an output.

    The rule is that of `test_net` in the first release of Fast R-CNN: its heap keeps the best
    `images * mean_per_image` of the scores of each image's best 100 boxes, and the worst score in it is the
    threshold once there were more.

    Raises:
        UnreadableDataset: a part lacks the column, or holds other numbers than scores.
    """
    assert parts.fingerprint is not None, "thresholds are those of a known run"
    classes = schema.read_classes(parts.read_schema(), parts.uri)
    if not classes:
        raise UnreadableDataset(f"{uris.redact_uri(parts.uri)}: its parts name no classes")
    upper_counts = np.zeros((len(classes), MOST_UPPER), np.int64)
    images = 0
    for candidates in _read_candidates(parts, len(classes)):
        images += candidates.images
        np.add.at(upper_counts, (candidates.class_id, candidates.bits >> HALF_BITS), 1)
    rank = images * mean_per_image
    has_threshold = upper_counts.sum(1) > rank
    upper, rank_in_upper = _find_rank(upper_counts, np.full(len(classes), rank))
    lower_counts = np.zeros((len(classes), HALF), np.int64)
    if has_threshold.any():
        for candidates in _read_candidates(parts, len(classes)):
            class_id, bits = candidates.class_id, candidates.bits
            is_near = bits >> HALF_BITS == upper[class_id]
            np.add.at(lower_counts, (class_id[is_near], bits[is_near] % HALF), 1)
    lower, _ = _find_rank(lower_counts, rank_in_upper)
    limits = ((upper << HALF_BITS) + lower).astype(np.uint32).view(np.float32)
    thresholds = {
        label: float(limit) if is_set else None
        for label, limit, is_set in zip(classes, limits, has_threshold, strict=True)
    }
    return CandidateThresholds(parts.fingerprint, images, mean_per_image, thresholds)


def _find_rank(
    counts: NDArray[np.int64], rank: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row of counts `(K, B)`, the bin that holds the `rank`-th value from above, and its rank there.

    A row with fewer values gives any bin.
    """
    from_above = np.cumsum(counts[:, ::-1], axis=1)
    position = np.minimum((from_above < rank[:, None]).sum(1), counts.shape[1] - 1)
    rows = np.arange(len(counts))
    before = from_above[rows, position] - counts[rows, -1 - position]
    return counts.shape[1] - 1 - position, rank - before


def _read_candidates(parts: Parts, class_count: int) -> Iterator[PartCandidates]:
    """Read the candidates part by part, some parts ahead."""
    with ThreadPoolExecutor(WINDOW) as threads:
        for start in range(0, len(parts.shards), WINDOW):
            window = parts.shards[start : start + WINDOW]
            yield from threads.map(lambda shard: _read_part(parts, shard, class_count), window)


def _read_part(parts: Parts, shard: Shard, class_count: int) -> PartCandidates:
    table = parts.read(shard, ["status", CANDIDATE_SCORES.name])
    is_ok = pc.equal(table.column("status"), "ok").combine_chunks()
    rows = table.column(CANDIDATE_SCORES.name).combine_chunks()
    fault = _find_fault(rows, is_ok, class_count)
    if fault is not None:
        uri = uris.redact_uri(uris.join(parts.uri, shard.part_name))
        raise UnreadableDataset(f"{uri}: column {CANDIDATE_SCORES.name}: {fault}")
    # Adding 0 turns a negative zero, whose bits are the largest, into a positive one.
    scores = rows.flatten().to_numpy() + np.float32(0)
    per_image = rows.value_lengths().fill_null(0).to_numpy()
    per_class = np.repeat(per_image // class_count, class_count)
    class_id = np.repeat(np.tile(np.arange(class_count), len(rows)), per_class)
    return PartCandidates(is_ok.true_count, class_id, scores.view(np.uint32).astype(np.int64))


def _find_fault(rows: pa.ListArray, is_ok: pa.BooleanArray, class_count: int) -> str | None:
    """What is wrong with a column of candidate scores; None if nothing is."""
    if rows.type != CANDIDATE_SCORES.type:
        return f"it is {rows.type}, expected {CANDIDATE_SCORES.type}"
    if not rows.is_valid().equals(is_ok):
        return "it is null for an image with status ok, or has a value for a failed one"
    if (rows.value_lengths().fill_null(0).to_numpy() % class_count).any():
        return f"the number of scores of an image is no multiple of the {class_count} classes"
    scores = rows.flatten()
    values = scores.to_numpy(zero_copy_only=False)
    if scores.null_count or not ((values >= 0) & (values <= 1)).all():
        return "a value is no score from 0 to 1"
    return None
