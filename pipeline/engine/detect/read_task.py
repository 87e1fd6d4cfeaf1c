"""The CPU task of detection: reads a piece's images, adds their proposals, and yields them in chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import process_time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline import store_options
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.propose.memory import find_memory_limit
from pipeline.engine.propose.proposing import read_and_propose
from pipeline.engine.propose.reading import read_with_stored_proposals
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.proposals.stored_proposals import StoredRows
from pipeline.runs.encoded_image import EncodedImage, ListedImage
from pipeline.runs.report import Report
from pipeline.runs.reusable_rows import ReusableRows

CHUNK_BYTES = 32_000_000
"""Encoded images travel in chunks of at most this size; a larger image travels alone."""


@dataclass(frozen=True)
class ReadEnd:
    """The last thing that a task yields."""

    size: int
    """Bytes of the images and boxes in all chunks."""
    node: str
    """The node that holds the chunks."""
    images: int
    """Images in all chunks."""
    is_committed: bool = False
    """Whether nothing is left to detect in, since rows of an earlier output hold for all images."""


@ray.remote(num_cpus=1, max_retries=0)
def read_piece(
    plan: DetectionPlan,
    piece: Piece,
    stored: StoredRows | None,
    is_last_chance: bool,
    reusable: ReusableRows | None,
) -> Iterator[Any]:
    """Yield a piece's images, with boxes, in chunks.

    If rows of an earlier output hold for all images, the task itself commits them.

    Yields:
        The rows that are taken over for some of the images (`ReusedRows`), if there are any. Then chunks of
        the other images, each with a report of the seconds it took; or one `Report`, if the task committed
        the piece. At the end a `ReadEnd`.
    """
    began = process_time()
    store_options.set_options(plan.stores)
    report = Report()
    images = piece.read_images(plan.manifest, plan.fingerprint)
    proposals = None if stored is None else stored.read_table()
    limit = plan.settings.max_proposals
    if reusable is not None:
        counts = None if proposals is None else _count_proposals(proposals, limit)
        reused = reusable.take(images, report, counts)
        if reused is not None:
            report.counts["detections"] += reused.count_elements("detections")
            if len(reused.rows) == len(images):
                table = reused.merge(plan.build_table([], []))
                yield commit_or_return(piece, plan.output, table, report)
                yield ReadEnd(0, _get_node(), 0, is_committed=True)
                return
            yield reused
            images = reused.leave_out(images)
            if proposals is not None:
                proposals = proposals.take(pa.array(reused.find_others(len(proposals))))
    total_bytes = 0
    stage = "propose" if stored is None else "read"
    encoded_images = _read_images(plan, images, proposals, report, is_last_chance)
    for chunk, chunk_report in _divide(encoded_images, limit, report, stage, began):
        total_bytes += sum(encoded.nbytes for encoded in chunk)
        yield chunk, chunk_report
    yield ReadEnd(total_bytes, _get_node(), len(images))


def _divide(
    encoded_images: Iterable[EncodedImage],
    max_proposals: int | None,
    report: Report,
    stage: str,
    began: float,
) -> Iterator[tuple[list[EncodedImage], Report]]:
    """Divide images into chunks, each with the report of what it took since the one before.

    Args:
        encoded_images: the images; reading them adds to `report`.
        max_proposals: boxes of an image that are used, the best ones; None uses all.
        report: that of the first chunk.
        stage: the stage of these images.
        began: the CPU seconds of this process when the first chunk was begun.
    """
    chunk: list[EncodedImage] = []
    chunk_bytes = 0
    for encoded in encoded_images:
        if encoded.boxes is not None:
            encoded.boxes = encoded.boxes[:max_proposals]
        if chunk and chunk_bytes + encoded.nbytes > CHUNK_BYTES:
            count_on_node(report, stage, len(chunk))
            report.cpu_seconds, began = {stage: process_time() - began}, process_time()
            yield chunk, report
            chunk, chunk_bytes = [], 0
            report.seconds, report.counts, report.images_by_node = {}, Counter(), Counter()
        chunk.append(encoded)
        chunk_bytes += encoded.nbytes
    count_on_node(report, stage, len(chunk))
    report.cpu_seconds = {stage: process_time() - began}
    yield chunk, report


def _get_node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _count_proposals(proposals: pa.Table, limit: int | None) -> list[int | None]:
    """How many of its stored proposals each image uses; None for one that failed when proposing."""
    counts = pc.list_value_length(proposals["boxes"]).to_pylist()
    return [None if count is None else min(count, limit or count) for count in counts]


def _read_images(
    plan: DetectionPlan,
    rows: Sequence[ListedImage],
    proposals: pa.Table | None,
    report: Report,
    is_last_chance: bool,
) -> Iterator[EncodedImage]:
    if proposals is not None:
        return read_with_stored_proposals(rows, proposals, report, is_last_chance=is_last_chance)
    assert plan.proposals is not None
    return read_and_propose(
        rows,
        plan.proposals,
        report,
        image_seconds=plan.options.image_seconds,
        is_last_chance=is_last_chance,
        decoding=plan.manifest.decoding,
        memory_limit=find_memory_limit(),
    )
