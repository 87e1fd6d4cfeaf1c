"""The CPU task of detection: reads a piece's images, adds their proposals, and yields them in chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import ray

from pipeline import store_options
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.propose.memory import find_memory_limit
from pipeline.engine.propose.proposing import read_and_propose
from pipeline.engine.propose.reading import read_with_stored_proposals
from pipeline.engine.shards.piece import Piece
from pipeline.proposals.stored_proposals import StoredRows
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Report

CHUNK_BYTES = 32_000_000
"""Encoded images travel in chunks of at most this size; a larger image travels alone."""


@ray.remote(num_cpus=1, max_retries=0)
def read_piece(
    plan: DetectionPlan, piece: Piece, stored: StoredRows | None, is_last_chance: bool
) -> Iterator[tuple[Any, Any]]:
    """Yield a piece's images, with boxes, in chunks.

    Yields:
        Chunks of images, each with a report of the seconds it took; at the end the bytes of all images
        and the id of this node.
    """
    store_options.set_options(plan.stores)
    report = Report()
    chunk: list[EncodedImage] = []
    chunk_bytes = total_bytes = 0
    for encoded in _read_images(plan, piece, stored, report, is_last_chance):
        if encoded.boxes is not None:
            encoded.boxes = encoded.boxes[: plan.settings.max_proposals]
        if chunk and chunk_bytes + encoded.nbytes > CHUNK_BYTES:
            yield chunk, report
            total_bytes += chunk_bytes
            chunk, chunk_bytes = [], 0
            report.seconds, report.counts = {}, Counter()
        chunk.append(encoded)
        chunk_bytes += encoded.nbytes
    yield chunk, report
    yield total_bytes + chunk_bytes, ray.get_runtime_context().get_node_id()


def _read_images(
    plan: DetectionPlan,
    piece: Piece,
    stored: StoredRows | None,
    report: Report,
    is_last_chance: bool,
) -> Iterator[EncodedImage]:
    rows = piece.read_images(plan.manifest, plan.fingerprint)
    if stored is not None:
        table = stored.read_table()
        return read_with_stored_proposals(rows, table, report, is_last_chance=is_last_chance)
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
